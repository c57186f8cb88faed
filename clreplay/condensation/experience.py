"""Condense one experience into a memory, to what its budget gives every class."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from clreplay.condensation.configured import ConfiguredMethod
from clreplay.condensation.engine.finished_file import Finished, load_finished, save_finished
from clreplay.condensation.intake import STANDS_FOR, Intake, plan_intake
from clreplay.condensation.real_images import RealImages
from clreplay.condensation.registry import Condensed
from clreplay.memory.class_cache import ClassCache
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.runtime.files import plain
from clreplay.runtime.progress import Progress
from clreplay.runtime.provenance import made_with


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
    returning: str = "refuse",
    keep_whole: bool = False,
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
        keep: file that holds the work in progress, so that a stopped condensation can go on. What is finished is kept
            beside it, until the caller has saved the memory and calls
            :func:`clreplay.condensation.engine.finished_file.forget_finished`.
        cache: where classes that were condensed before are found and new ones put; where classes depend on one
            another, all together. Methods that are as quick, and the user's own callables, do not use it.
        who: the memory, for the message about what its method cannot do.
        returning: what becomes of classes that are in memory already: ``refuse`` them, ``condense`` them again, of what
            is stored and what comes, each weighted by the number of real images that it stands for (a selection keeps
            so many of the stored ones and selects the rest of the new), ``keep`` what is stored and leave the new
            images out, which is said, or ``share`` the class's budget equally between the experiences it came in,
            whose images are made of its own real ones and only dropped afterwards.
        keep_whole: keep classes that have fewer images than their share as they are, and say so.

    Returns:
        seconds spent condensing, those of processes that were stopped on the way among them.

    Raises:
        ValueError: before any work, if a class is in memory already and may not be, the budget is too small, a class
            has fewer real images than its quota, or the method cannot make so many of such classes; after it, if the
            condenser left a class out or names another decoder than its method does.
    """
    intake = plan_intake(memory, real, configured, who, returning, keep_whole, task_labels)
    real, counts = intake.real, intake.counts
    start = time.perf_counter()
    if not counts:  # all are kept as they are
        _store(memory, intake, Condensed({}), task_labels)
        _say_how(memory, configured)
        return time.perf_counter() - start
    before = configured.resume(memory.info.get("chosen", {}), device)
    fixed = before.with_execution(lambda: (real, counts), device)

    def work(part: RealImages) -> Condensed:
        return fixed.condense(part, counts, seed=seed, device=device, progress=progress, keep=keep)

    cached = cache is not None and fixed.cacheable()
    keep_finished = None if keep is None or not fixed.cacheable() else keep
    classes = [[real.keys[label], counts[label]] for label in real.classes]
    addresses = _addresses(cache, fixed, classes, real.classes, seed, device) if cached else {}
    finished = None
    if keep_finished is not None:
        identity = json.dumps([fixed.identity(), classes, seed, device.type])
        finished = load_finished(keep_finished, identity)
    if finished is None:
        condensed = _through_cache(cache, addresses, fixed.separable(), real, counts, work) if cached else work(real)
        finished = Finished(condensed, time.perf_counter() - start + condensed.seconds_before)
        if keep_finished is not None and not _all_from_cache(condensed):
            save_finished(keep_finished, identity, finished)
    condensed = finished.condensed
    if cached and not _all_from_cache(condensed):
        for label, address in addresses.items():
            if cache.get(address, (counts[label], *real.shape)) is None:
                cache.put(address, condensed.images[label], condensed.decoding)
    chosen = {**fixed.chosen_since(configured), **condensed.chosen}
    _store(memory, intake, condensed, task_labels)
    _say_how(memory, configured)
    if chosen:
        memory.info["chosen"] = chosen
    return finished.seconds


def _store(
    memory: ReplayMemory,
    intake: Intake,
    condensed: Condensed,
    task_labels: Mapping[int, int] | None,
) -> None:
    """Put what was made, and what is kept as it is, into the memory."""
    images = intake.all_images(condensed.images)
    if not images:
        return
    # Counted: classes from the cache have no rows.
    experience = memory.info.get("experiences", 1 + max((row["experience"] for row in memory.record), default=-1))
    record = [{"experience": experience, **row} for row in condensed.record]
    decodings = {label: "none" if label in intake.whole else condensed.decoding for label in images}
    for label in {*intake.stored} - {*condensed.images}:
        decodings[label] = memory.slots[label].decoding
    how = {"replaced": intake.returning, "fewer": intake.fewer, "joined": intake.joined, "sharing": intake.sharing}
    memory.add(images, task_labels, intake.keys, record, decodings, **how)
    memory.info["experiences"] = experience + 1
    behind = {str(label): count for label, count in intake.stands_for.items()}
    memory.info[STANDS_FOR] = {**memory.info.get(STANDS_FOR, {}), **behind}


def _say_how(memory: ReplayMemory, configured: ConfiguredMethod) -> None:
    """Write down in a memory what it is made with; of several versions all."""
    memory.info.setdefault("method", configured.name or configured.method.name)
    memory.info["settings"] = plain(configured.values())
    made = memory.info.setdefault("made_with", [])
    if made_with() not in made:
        made.append(dict(made_with()))


def _all_from_cache(condensed: Condensed) -> bool:
    return condensed.chosen.get("classes_from_cache") == len(condensed.images)


def _addresses(
    cache: ClassCache,
    configured: ConfiguredMethod,
    classes: list[list[Any]],
    labels: list[int],
    seed: int,
    device: torch.device,
) -> dict[int, str]:
    """Where every class lies in the cache.

    Args:
        classes: key and count of each.
    """
    name, values = configured.identity()
    company = None if configured.separable() else classes
    return {label: cache.address(name, values, *one, seed, device, company) for label, one in zip(labels, classes)}


def _through_cache(
    cache: ClassCache,
    addresses: Mapping[int, str],
    separable: bool,
    real: RealImages,
    counts: dict[int, int],
    work: Callable[[RealImages], Condensed],
) -> Condensed:
    """Condense only the classes that are not in the cache; all, if classes depend on others."""
    found = {label: cache.get(address, (counts[label], *real.shape)) for label, address in addresses.items()}
    missing = [label for label, old in found.items() if old is None]
    if missing and not separable:
        found, missing = dict.fromkeys(found), list(found)
    decodings = {old.decoding for old in found.values() if old is not None}
    condensed = work(real.subset(missing)) if missing else Condensed({}, decoding=min(decodings))
    if decodings - {condensed.decoding}:
        return work(real)  # classes that are stored in different ways cannot be in one experience
    images = {label: condensed.images[label] if old is None else old.images for label, old in found.items()}
    chosen = {**condensed.chosen, "classes_from_cache": len(images) - len(missing)}
    return replace(condensed, images=images, chosen=chosen)
