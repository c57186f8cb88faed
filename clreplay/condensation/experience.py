"""``condense``: a memory from images and labels, without Avalanche."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from clreplay.condensation.engine.execution import resume_execution
from clreplay.condensation.real_images import RealImages
from clreplay.condensation.registry import Condensed, Condenser, check_work, method_of
from clreplay.memory.class_cache import ClassCache
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.runtime.progress import Progress


def condense_experience(
    memory: ReplayMemory,
    real: RealImages,
    condenser: Condenser,
    settings: Any,
    *,
    seed: int,
    device: torch.device,
    task_labels: dict[int, int] | None = None,
    progress: Progress | None = None,
    keep: Path | None = None,
    cache: ClassCache | None = None,
) -> float:
    """Condense one experience into a memory, to the quotas its classes get.

    Args:
        memory: takes the classes in.
        real: the experience.
        condenser, settings: a registered method and its settings, or a callable of one's own.
        seed: of all chance.
        device: where to work.
        task_labels: task label of every class.
        progress: told as the work goes on.
        keep: file that holds the work in progress, so that a stopped condensation can go on.
        cache: where classes that were condensed before are found and new ones put. Methods that do not
            separate over classes, and callables of one's own, pass it by.

    Returns:
        seconds spent condensing.

    Raises:
        ValueError: before any work, if a class is in memory already, the budget is too small, a class has fewer
            real images than its quota, or the method cannot make so many of such classes; after it, if the condenser
            left a class out or names another decoder than its method does.
    """
    quotas = memory.quotas_with(real.classes)
    counts = {label: quotas[label] for label in real.classes}
    real.check_counts(counts)
    method = method_of(condenser, settings)
    check_work(method, settings, counts, real.shape)
    start = time.perf_counter()
    chosen: dict[str, Any] = {}
    if method is not None:
        settled = method.choose_execution(
            resume_execution(settings, memory.info.get("chosen", {}), device), real, counts, device
        )
        chosen = {name: value for name, value in asdict(settled).items() if value != getattr(settings, name)}
        settings = settled
    kept = {} if keep is None else {"keep": keep}  # callables of one's own need not know of it

    def work(part: RealImages) -> Condensed:
        return condenser(part, counts, settings, seed=seed, device=device, progress=progress, **kept)

    condensed = (
        work(real) if cache is None else _through_cache(cache, condenser, real, counts, settings, seed, device, work)
    )
    seconds = time.perf_counter() - start
    if set(condensed.images) != set(real.classes):
        raise ValueError(f"the condenser gave classes {sorted(condensed.images)}, but was asked for {real.classes}")
    if method is not None and condensed.decoding != (declared := method.decoding(settings)):
        raise ValueError(
            f"method {method.name!r} gave images with decoding {condensed.decoding!r}, but is registered with "
            f"{declared!r}; give @register(..., decoding=...) and Condensed(..., decoding=...) the same"
        )
    experience = 1 + max((row["experience"] for row in memory.record), default=-1)
    record = [{"experience": experience, **row} for row in condensed.record]
    memory.add(condensed.images, task_labels, real.keys, record, condensed.decoding)
    if chosen or condensed.chosen:
        memory.info["chosen"] = {**chosen, **condensed.chosen}
    return seconds


def _through_cache(
    cache: ClassCache,
    condenser: Condenser,
    real: RealImages,
    counts: dict[int, int],
    settings: Any,
    seed: int,
    device: torch.device,
    work: Callable[[RealImages], Condensed],
) -> Condensed:
    """Condense only the classes that are not in the cache, and put them there."""
    method = method_of(condenser, settings)
    if method is None or not method.separable(settings):
        return work(real)
    name = f"{method.name} {method.code}" if method.code else method.name  # one's own code may change under a name
    addresses = {
        label: cache.address(name, settings, real.keys[label], counts[label], seed, device) for label in real.classes
    }
    found = {label: cache.get(address, (counts[label], *real.shape)) for label, address in addresses.items()}
    missing = [label for label, old in found.items() if old is None]
    decodings = {old.decoding for old in found.values() if old is not None}
    condensed = work(real.subset(missing)) if missing else Condensed({}, decoding=min(decodings))
    if decodings - {condensed.decoding}:
        return work(real)  # classes that are stored in different ways cannot stand in one experience
    for label, images in condensed.images.items():
        cache.put(addresses[label], images, condensed.decoding)
    images = {label: condensed.images[label] if old is None else old.images for label, old in found.items()}
    chosen = {**condensed.chosen, "classes_from_cache": len(images) - len(missing)}
    return Condensed(images, condensed.record, chosen, condensed.decoding)
