"""What is known of an experience's classes once its images have been read, and whether a memory is of them.

Nothing here imports Avalanche.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from clreplay.condensation import RealImages
from clreplay.data import Normalization, pixel_codes
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.plugin.avalanche_data import (
    checked_image,
    evaluation_view,
    has_task_labels,
    read_items,
    task_label_of_classes,
    whole_number,
)
from clreplay.plugin.class_names import names_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contents:
    """The classes of an experience.

    Attributes:
        keys: hash of every class's real images; empty texts where nobody read them.
        tasks: task label of every class, None without.
        sample: one image as network input, (c, h, w).
        sample_label: its label.
        normalization: of the images, where it is known.
        names: of classes, where they are known.
    """

    keys: dict[int, str]
    tasks: dict[int, int] | None
    sample: Tensor
    sample_label: int
    normalization: Normalization | None = None
    names: dict[int, str] = field(default_factory=dict)

    @property
    def classes(self) -> list[int]:
        """Labels, ascending."""
        return sorted(self.keys)

    @property
    def sample_task(self) -> int | None:
        """Task label of the sample."""
        return None if self.tasks is None else self.tasks[self.sample_label]

    @property
    def largest(self) -> int:
        """The largest label among the classes that share the sample's task label."""
        return max(label for label in self.keys if self.tasks is None or self.tasks[label] == self.sample_task)


@dataclass(frozen=True)
class Arrival:
    """Classes of an experience on their way into a memory.

    Attributes:
        contents: of what the strategy trains on.
        classes: those to take in, ascending.
        real: their images; None where the memory has them already.
    """

    contents: Contents
    classes: list[int]
    real: RealImages | None


def is_own(strategy: Any) -> bool:
    """Whether what the strategy trains on is the experience's own data set, as far as one can tell."""
    as_usual = type(strategy).train_dataset_adaptation.__qualname__.startswith("BaseSGDTemplate.")
    return as_usual and len(strategy.adapted_dataset) == len(strategy.experience.dataset)


def look(strategy: Any, memory: ReplayMemory, own: bool, declared: bool) -> tuple[Contents, RealImages | None]:
    """What the strategy would train on, and its images unless they are not needed or come from elsewhere.

    Args:
        strategy: of Avalanche, once it has adapted its data.
        memory: what is in it already need not be read again.
        own: whether these are the experience's own data.
        declared: whether ``targets`` are to be believed and nothing is to be read.

    Raises:
        ValueError: there is nothing, or nothing that a memory could hold.
    """
    experience, dataset = strategy.experience, strategy.adapted_dataset
    view = evaluation_view(dataset)
    if len(view) == 0:
        raise ValueError(f"experience {experience.current_experience} is empty; every experience needs images")
    if declared:
        return declared_contents(dataset, view, experience, memory), None
    known = _read.get(id(experience.dataset)) if own else None
    if known is not None and all(label in memory.slots for label in known.classes):
        return known, None
    contents, real = read_contents(view, experience, memory)
    if own:
        _keep(experience.dataset, contents)
    return contents, real


def read_contents(view: Any, experience: Any, memory: ReplayMemory) -> tuple[Contents, RealImages]:
    """Read all items of a data set: what they are, and the images to condense.

    Args:
        view: the data set in its evaluation transforms.
        experience: says whether there are task labels.
        memory: says how images may be normalised.

    Raises:
        ValueError: images or labels are such that no memory could hold them.
    """
    items = read_items(view, has_task_labels(experience))
    check_shape(memory, items.images.shape[1:])
    real = _by_pixel_codes(items.images, items.labels, memory)
    normalization = real.normalization
    if normalization is None and any(label in memory.slots for label in real.classes):
        normalization = pixel_codes(real.images)[1]  # not the memory's, which is what one wants to know
    label = int(items.labels[0])
    sample = real.normalise(real.images[:1])[0]
    names = names_of(experience, view, items.labels)
    return Contents(
        real.keys, task_label_of_classes(items.labels, items.task_labels), sample, label, normalization, names
    ), real


def declared_contents(dataset: Any, view: Any, experience: Any, memory: ReplayMemory) -> Contents:
    """What a data set says of itself, for callers who answer for its images; one item is read.

    Raises:
        ValueError: ``targets`` are no integers.
    """
    labels = torch.as_tensor(list(dataset.targets))
    if labels.is_floating_point():
        raise ValueError(f"targets must be integers, got {labels.dtype}; make the data set give class numbers")
    tasks = torch.as_tensor(list(dataset.targets_task_labels)) if has_task_labels(experience) else None
    item = view[0]
    image = checked_image(item)
    check_shape(memory, image.shape)
    sample = RealImages(image[None], torch.zeros(1, dtype=torch.int64), memory.normalization)
    keys = dict.fromkeys(labels.unique().tolist(), "")
    label = whole_number("labels", item[1], 0)
    return Contents(keys, task_label_of_classes(labels, tasks), sample.normalised(0)[0], label)


def declared_images(
    real_images: Callable[[Any], RealImages], experience: Any, memory: ReplayMemory, classes: list[int]
) -> RealImages:
    """The images of an experience from the caller who answers for them.

    Raises:
        ValueError: they are of other classes, or of another shape than those in memory.
    """
    real = real_images(experience)
    if real.classes != classes:
        raise ValueError(f"real_images gave classes {real.classes} of an experience of {classes}; give those")
    check_shape(memory, real.shape)
    return real


def part_of(real: RealImages, classes: list[int]) -> RealImages:
    """The images of some classes in an experience of their own, in their order."""
    if classes == real.classes:
        return real
    labels = torch.full((len(real.images),), -1, dtype=torch.int64)
    for label in classes:
        labels[real.rows(label)] = label
    return RealImages(real.images[labels >= 0], labels[labels >= 0], real.normalization)


def _by_pixel_codes(images: Tensor, labels: Tensor, memory: ReplayMemory) -> RealImages:
    """Real images by their pixel codes where these can be recovered exactly: a quarter of the bytes."""
    normalization = memory.normalization
    if images.dtype == torch.uint8:
        if normalization is None:
            raise ValueError(
                "the evaluation transforms give uint8 images, which no network takes; give the benchmark an "
                "eval_transform that ends in ToTensor() and Normalize(...)"
            )
        return RealImages(images, labels, normalization)
    pixels, found = (images, None) if normalization is None else pixel_codes(images, normalization)
    if found is None and not memory.slots:
        pixels, found = pixel_codes(images)
    return RealImages(pixels, labels, found)


_read: dict[int, Contents] = {}


def _keep(dataset: Any, contents: Contents) -> None:
    """For as long as the data set lives: strategies that share a memory, each with its plugin, read it once."""
    if id(dataset) not in _read:
        weakref.finalize(dataset, _read.pop, id(dataset), None)
    _read[id(dataset)] = contents


def arriving(
    contents: Contents,
    seen: list[int],
    unfinished: list[int],
    keys: dict[int, str],
    own: bool,
    returning: str = "refuse",
) -> list[int]:
    """The classes to take in; a strategy may carry along those of earlier experiences, unchanged.

    Args:
        contents: of what the strategy would train on.
        seen: classes of earlier experiences.
        unfinished: those of them whose training has not ended: it may be repeated.
        keys: hashes of the images that the classes seen came with; empty texts where nobody read them.
        own: whether these are the experience's own data; nothing is carried along then.
        returning: what becomes of classes that come again (:data:`clreplay.condensation.intake.RETURNING`).

    Raises:
        ValueError: a class comes a second time and may not.
    """
    again = [label for label in contents.classes if label in seen]
    if not again or contents.classes == unfinished or (own and returning != "refuse"):
        return contents.classes
    if not own:
        fresh = any(label not in seen for label in contents.classes)
        carried = again if fresh else [label for label in again if label not in unfinished]
        new = [label for label in contents.classes if label not in carried]
        changed = [label for label in carried if keys.get(label, "") not in ("", contents.keys[label])]
        if new and not changed:
            return new
        again = changed or again
    raise ValueError(
        f"classes {again} have come in an earlier experience; a class may arrive in one experience only: "
        "merge the experiences, say what becomes of it (returning='condense' or 'keep'), or number classes apart "
        "(class_ids_from_zero_in_each_exp=False). To train longer "
        "raise train_epochs; for another strategy make a new plugin (memory=plugin.memory spares condensing again)"
    )


def to_be_made(
    memory: ReplayMemory, contents: Contents, classes: list[int], before: dict[int, str | None], share: bool = False
) -> tuple[list[int], list[int]]:
    """Those of the classes that are not in memory, or came before with other images, and the latter among them.

    The very same images say nothing new: nothing is made of them again.

    Args:
        memory: of earlier experiences, or given.
        contents: of what the strategy would train on.
        classes: of them, those that are to be in memory.
        before: hashes of the images that classes of earlier experiences came with, where these may come again.
        share: whether those that come again join what is in memory, which may have been made for another strategy.

    Raises:
        ValueError: a memory that was given is of other data, or of some of the classes only.
    """
    again = [label for label in classes if label in before and not before[label] == contents.keys[label] != ""]
    if share:
        again = [one for one in again if one not in memory.slots or contents.keys[one] not in memory.slots[one].keys]
    missing = [label for label in classes if label not in memory.slots or label in again]
    if missing and len(missing) < len(classes) and not set(classes) & set(before):
        raise ValueError(f"the memory holds some classes of the experience but not {missing}; use another memory")
    if not missing:
        check_shape(memory, contents.sample.shape)
        check_given(memory, contents)
    return missing, again


def check_shape(memory: ReplayMemory, shape: tuple[int, ...]) -> None:
    """Whether images of this shape can be in a memory.

    Raises:
        ValueError: it holds others.
    """
    held = next((tuple(slot.shape) for slot in memory.slots.values()), shape)
    if held != tuple(shape):
        raise ValueError(
            f"the experience has images of shape {tuple(shape)} and the memory holds {held}; "
            "give all experiences one eval_transform, or use another memory"
        )


def check_given(memory: ReplayMemory, contents: Contents) -> None:
    """Whether classes that are in memory already are those of the experience.

    What is certain is refused: another normalisation, or a class's images under the label of another. Other images
    than those that the class was made from are warned of: they may be a part of the same data.

    Raises:
        ValueError: with what was found and the cure.
    """
    of_key = {key: label for label, key in contents.keys.items() if key}
    made_of = {label: memory.slots[label].key for label in contents.classes if label in memory.slots}
    known = {label: memory.slots[label].keys for label in made_of}
    other = [label for label, key in made_of.items() if key and contents.keys[label] not in ("", key, *known[label])]
    for label in other:
        if made_of[label] in of_key:
            raise ValueError(
                f"class {label} of the memory was made from the images of class {of_key[made_of[label]]} of the "
                "experience: they are numbered otherwise; make the memory with the benchmark's labels"
            )
    if other and None not in (memory.normalization, contents.normalization):
        if memory.normalization != contents.normalization:
            raise ValueError(
                f"the memory is normalised with {memory.normalization} and the experience with "
                f"{contents.normalization}; give the benchmark the eval_transform that the memory was made with"
            )
    if other:
        logger.warning(
            "the memory's classes %s were not made from the images that the experience has of them; "
            "is it the memory of this data, with these labels and transforms?",
            other,
        )
