"""What is to be made of every class that arrives: anew, of new and stored images together, or kept as it is."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from clreplay.condensation.configured import ConfiguredMethod
from clreplay.condensation.real_images import RealImages
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.runtime.seeding import generator

logger = logging.getLogger(__name__)

RETURNING = ("refuse", "condense", "keep", "share")
"""Of classes that are in memory already: an error; made anew of what is stored and what comes; left as they are; or
beside what is stored, which is not made again, as many images of what comes, so that all experiences share a class's
budget."""
STANDS_FOR = "stands_for"
"""In a memory's info: how many real images the stored ones of every class were made of, by label."""
MOST_REPEATED = 4
"""Stored images are repeated to at most so many times the new ones; beyond, fewer new ones stand for the rest."""


def check_returning(returning: str) -> str:
    """The same.

    Raises:
        ValueError: there is no such way.
    """
    if returning not in RETURNING:
        raise ValueError(f"returning must be one of {', '.join(RETURNING)}, got {returning!r}")
    return returning


@dataclass(frozen=True)
class Intake:
    """What is to be made of the classes of an experience.

    Attributes:
        real: the images that the method works on; of returning classes stored ones are among them.
        counts: images to make of every class of ``real``.
        whole: classes with fewer images than their share that the method makes none of: their own, (k, c, h, w) each.
        stored: of selections, stored images of returning classes that stay, (k, c, h, w); selected ones join them.
        stands_for: real images behind what will be stored of every class.
        returning: classes that are in memory and will be replaced.
        joined: classes that are in memory and will share their budget with what is stored now.
        sharing: whether all classes may be shared by experiences to come.
        keys: hashes that name what every class was made of.
        fewer: classes that may bring fewer images than their share.
    """

    real: RealImages
    counts: dict[int, int]
    whole: dict[int, Tensor] = field(default_factory=dict)
    stored: dict[int, Tensor] = field(default_factory=dict)
    stands_for: dict[int, int] = field(default_factory=dict)
    returning: tuple[int, ...] = ()
    keys: dict[int, str] = field(default_factory=dict)
    fewer: tuple[int, ...] = ()
    joined: tuple[int, ...] = ()
    sharing: bool = False

    def all_images(self, made: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """What is to be stored of every class, given what the method made."""
        images = {**made, **self.whole, **self.stored}
        for label in {*made} & {*self.stored}:
            images[label] = _interleaved(self.stored[label], made[label])
        return {label: images[label] for label in sorted(images)}


def plan_intake(
    memory: ReplayMemory,
    real: RealImages,
    configured: ConfiguredMethod,
    who: str = "",
    returning: str = "refuse",
    keep_whole: bool = False,
    task_labels: Mapping[int, int] | None = None,
) -> Intake:
    """What is to be made of every class of an experience, once it is known that this can be done.

    Args:
        memory: takes the classes in; it is not changed.
        real: the experience.
        configured: the method with its settings.
        who: the memory, for the message about what its method cannot do.
        returning: one of :data:`RETURNING`.
        keep_whole: keep classes that have fewer images than their share as they are; otherwise that is an error.
        task_labels: task label of every class.

    Raises:
        ValueError: a class is in memory already and may not be, the budget is too small, a class has fewer real images
            than its quota, or the method cannot make so many of such classes.
    """
    again = tuple(label for label in real.classes if label in memory.slots)
    if again and returning == "keep":
        _say(again, "came back; what is stored stays and the new images are left out, as returning='keep' asks")
        real, again = real.subset([label for label in real.classes if label not in again]), ()
    if again and returning == "share":
        same = [label for label in again if real.keys[label] in memory.slots[label].keys]
        _say(tuple(same), "came back with images that are in memory already; what is stored stays")
        real = real.subset([label for label in real.classes if label not in same])
        again = tuple(label for label in again if label not in same)
    if again and returning == "condense":
        _check_task_labels(memory, again, task_labels or {})
    joined: tuple[int, ...] = ()
    if again and returning == "share":
        _check_task_labels(memory, again, task_labels or {})
        again, joined = (), again
    elif again and returning != "condense":
        memory.check_new(again)
    selects, each = configured.method.selects, configured.real_images_each()
    stands_for = {label: real.count(label) for label in real.classes}
    stands_for.update({label: stands_for[label] + _behind(memory, label) for label in again + joined})
    keys = dict(real.keys)
    if again and not selects:
        real = _pooled(memory, real, again)
        keys = dict(real.keys)
    tiles = getattr(configured.settings, "tiles", 1)
    counts = memory.counts_for(real.classes, real.raw, not selects, each, tiles, again, joined)
    stored: dict[int, Tensor] = {}
    for label in again if selects else ():
        share = max(counts[label], len(memory.slots[label])) if memory.budget.in_bytes else counts[label]
        stored[label], counts[label] = _split(memory, real, label, share, stands_for[label], each)
        keys[label] = hashlib.blake2b(f"{memory.slots[label].key}{keys[label]}".encode(), digest_size=16).hexdigest()
    whole: dict[int, Tensor] = {}
    there = {label: real.count(label) // each for label in real.classes}
    none = [label for label in real.classes if not there[label] and not keep_whole and label not in stored]
    if none:
        raise ValueError(
            f"class {none[0]} has {real.count(none[0])} images, fewer than the {each} that one stored one is made of; "
            "lower tiles, or merge experiences"
        )
    # Of a budget in bytes there may be no count where there are no images to make one of.
    short = [label for label in real.classes if keep_whole and there[label] < max(counts[label], label not in stored)]
    for label in short:
        share, counts[label] = counts[label] or real.count(label), there[label] if selects else 0
        if not counts[label]:
            whole[label] = real.raw(label)[:share]
    _say(tuple(short), "fewer images than the share: kept whole")
    real.check_counts(counts)
    counts = {label: count for label, count in counts.items() if count}
    real = real.subset(list(counts))
    if counts:
        configured.check(counts, real.shape, who)
    fewer, sharing = (*short, *stored), returning == "share"
    return Intake(real, counts, whole, stored, stands_for, again, keys, fewer, joined, sharing)


def _behind(memory: ReplayMemory, label: int) -> int:
    """Real images that the stored ones of a class stand for; themselves where nobody has noted it."""
    return int(memory.info.get(STANDS_FOR, {}).get(str(label), memory.slots[label].decoded))


def _check_task_labels(memory: ReplayMemory, again: tuple[int, ...], task_labels: Mapping[int, int]) -> None:
    for label in again:
        before, now = memory.slots[label].task_label, task_labels.get(label, memory.slots[label].task_label)
        if before != now:
            raise ValueError(
                f"class {label} came with task label {before} and comes back with {now}; a class needs one: leave task "
                "labels out, or number the classes of every task apart"
            )


def _pooled(memory: ReplayMemory, real: RealImages, again: tuple[int, ...]) -> RealImages:
    """New images with those stored of returning classes, each as often as it stands for new ones; normalised floats."""
    images, labels = [], []
    for label in real.classes:
        new = real.normalised(label)
        if label in again:
            old, behind = memory.class_images(label), _behind(memory, label)
            most = MOST_REPEATED * len(new)
            times = max(1, round(min(behind, max(most, len(old))) / len(old)))
            if behind > max(most, len(old)):
                fewer = max(1, round(times * len(old) * len(new) / behind))
                new = new[torch.randperm(len(new), generator=generator(real.keys[label], "returning"))[:fewer]]
            new = torch.cat([new, *[old] * times])
        images.append(new)
        labels += [label] * len(new)
    return RealImages(torch.cat(images), torch.tensor(labels), real.normalization)


def _split(
    memory: ReplayMemory, real: RealImages, label: int, share: int, behind: int, each: int
) -> tuple[Tensor, int]:
    """Stored images that stay of a returning class, and how many new ones are to be selected beside them."""
    slot = memory.slots[label]
    there = real.count(label) // each
    new = min(round(share * real.count(label) / behind), there)
    new = max(new, min(1, there)) if share > 1 else new
    old = min(share - new, len(slot))
    new = min(share - old, there)
    return memory.codes_or_floats(label, real.images.dtype == torch.uint8)[:old], new


def _interleaved(old: Tensor, new: Tensor) -> Tensor:
    """Both in turn, in proportion, so that whatever is dropped from the end later is of both."""
    places = [(position + 0.5) / len(part) for part in (old, new) for position in range(len(part))]
    return torch.cat([old, new])[torch.tensor(places).argsort(stable=True)]


def _say(labels: tuple[int, ...], what: str) -> None:
    if labels:
        shown = ", ".join(map(str, labels[:10])) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")
        logger.warning("%s %s: %s", "class" if len(labels) == 1 else "classes", shown, what)
