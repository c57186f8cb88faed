"""Condense one experience into a memory, to what its budget gives every class."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from clreplay.condensation.configured import ConfiguredMethod
from clreplay.condensation.real_images import RealImages
from clreplay.condensation.registry import Condensed
from clreplay.memory.class_cache import ClassCache
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.runtime.progress import Progress


def condense_experience(
    memory: ReplayMemory,
    real: RealImages,
    configured: ConfiguredMethod,
    *,
    seed: int,
    device: torch.device,
    task_labels: dict[int, int] | None = None,
    progress: Progress | None = None,
    keep: Path | None = None,
    cache: ClassCache | None = None,
    who: str = "",
) -> float:
    """Condense one experience into a memory, to what its budget gives every class.

    Args:
        memory: takes the classes in.
        real: the experience.
        configured: the method with its settings; the user's own callable is wrapped by
            :meth:`ConfiguredMethod.of_callable`.
        seed: of all chance.
        device: where to work.
        task_labels: task label of every class.
        progress: called as the work goes on, with units done and in all.
        keep: file that holds the work in progress, so that a stopped condensation can go on.
        cache: where classes that were condensed before are found and new ones put; where classes depend on one
            another, all together. Methods that are as quick, and the user's own callables, do not use it.
        who: the memory, for the message about what its method cannot do.

    Returns:
        seconds spent condensing.

    Raises:
        ValueError: before any work, if a class is in memory already, the budget is too small, a class has fewer
            real images than its quota, or the method cannot make so many of such classes; after it, if the condenser
            left a class out or names another decoder than its method does.
    """
    selects, each = configured.method.selects, configured.real_images_each()
    counts = memory.counts_for(real.classes, real.raw, not selects, each, getattr(configured.settings, "tiles", 1))
    real.check_counts(counts)
    configured.check(counts, real.shape, who)
    start = time.perf_counter()
    before = configured.resume(memory.info.get("chosen", {}), device)
    fixed = before.with_execution(lambda: (real, counts), device)

    def work(part: RealImages) -> Condensed:
        return fixed.condense(part, counts, seed=seed, device=device, progress=progress, keep=keep)

    if cache is None or not fixed.cacheable():
        condensed = work(real)
    else:
        condensed = _through_cache(cache, fixed, real, counts, seed, device, work)
    seconds = time.perf_counter() - start
    chosen = {**fixed.chosen_since(configured), **condensed.chosen}
    experience = 1 + max((row["experience"] for row in memory.record), default=-1)
    record = [{"experience": experience, **row} for row in condensed.record]
    memory.add(condensed.images, task_labels, real.keys, record, condensed.decoding)
    if chosen:
        memory.info["chosen"] = chosen
    return seconds


def _through_cache(
    cache: ClassCache,
    configured: ConfiguredMethod,
    real: RealImages,
    counts: dict[int, int],
    seed: int,
    device: torch.device,
    work: Callable[[RealImages], Condensed],
) -> Condensed:
    """Condense only the classes that are not in the cache, and put them there; all, if classes depend on others."""
    name, values = configured.identity()
    separable = configured.separable()
    company = None if separable else [[real.keys[label], counts[label]] for label in real.classes]
    addresses = {
        label: cache.address(name, values, real.keys[label], counts[label], seed, device, company)
        for label in real.classes
    }
    found = {label: cache.get(address, (counts[label], *real.shape)) for label, address in addresses.items()}
    missing = [label for label, old in found.items() if old is None]
    if missing and not separable:
        found, missing = dict.fromkeys(found), list(found)
    decodings = {old.decoding for old in found.values() if old is not None}
    condensed = work(real.subset(missing)) if missing else Condensed({}, decoding=min(decodings))
    if decodings - {condensed.decoding}:
        return work(real)  # classes that are stored in different ways cannot be in one experience
    for label, images in condensed.images.items():
        cache.put(addresses[label], images, condensed.decoding)
    images = {label: condensed.images[label] if old is None else old.images for label, old in found.items()}
    chosen = {**condensed.chosen, "classes_from_cache": len(images) - len(missing)}
    return Condensed(images, condensed.record, chosen, condensed.decoding)
