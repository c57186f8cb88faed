"""Between Avalanche's data sets and plain tensors: what the plugin reads and what it serves.

Nothing here imports Avalanche.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset

from clreplay.training.batches import BatchLoader, BatchSource


class MemoryLoader(BatchLoader):
    """Stands in for ``strategy.dataloader``: whole batches, already augmented and on the device.

    Yields ``[x, y]``, or ``[x, y, t]`` where the experience has task labels. Each pass is the next epoch.

    Args:
        source: the images that are served.
        task_labels: (n,) of them, None without.
        owner: the plugin that serves, by which it knows its own loader again.
        shuffle: False serves the images in the order of the memory.
        drop_last: leaves out a last batch that is smaller than the others.

    Attributes:
        norms: batch norm layers that this training moves; noted when it begins.
    """

    def __init__(
        self,
        source: BatchSource,
        task_labels: Tensor | None = None,
        owner: Any = None,
        shuffle: bool = True,
        drop_last: bool = False,
    ) -> None:
        super().__init__(source, shuffle, drop_last)
        self.task_labels, self.owner = task_labels, owner
        self.norms: list[_BatchNorm] = []

    def batch(self, rows: Tensor, images_and_labels: tuple[Tensor, Tensor]) -> list[Tensor]:
        """With task labels where there are some."""
        return [*images_and_labels, *([] if self.task_labels is None else [self.task_labels[rows]])]


def own_loader(strategy: Any, owner: Any) -> Any:
    """The strategy's data loader, a :class:`MemoryLoader` or another that knows its ``owner``.

    Raises:
        ValueError: it is not the one that the owner put there.
    """
    loader = strategy.dataloader
    if getattr(loader, "owner", None) is not owner:
        raise ValueError(
            f"the strategy's data loader is a {type(loader).__name__} that something else put in the place of the "
            "condensed memory's: another plugin, or the strategy itself, serves its own data; leave it out"
        )
    return loader


class MemoryDataset(Dataset[tuple[Tensor, int]]):
    """Decoded images with integer labels; a class of its own, so that checkpoints can pickle it."""

    def __init__(self, images: Tensor, targets: list[int]) -> None:
        self.images, self.targets = images, targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], self.targets[index]


@dataclass(frozen=True)
class Items:
    """What the items of a data set hold.

    Attributes:
        images: (n, c, h, w).
        labels: (n,) int64.
        task_labels: (n,) int64, None without.
    """

    images: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    task_labels: Tensor | None = field(repr=False)

    def of_classes(self, classes: list[int]) -> Items:
        """The items of some classes; these items themselves where that is all of them."""
        rows = torch.isin(self.labels, torch.tensor(classes, dtype=torch.int64))
        if rows.all():
            return self
        return Items(self.images[rows], self.labels[rows], None if self.task_labels is None else self.task_labels[rows])


def evaluation_view(dataset: Any) -> Any:
    """An Avalanche data set with its evaluation transforms.

    Raises:
        ValueError: it is none.
    """
    if not callable(getattr(dataset, "eval", None)):
        raise ValueError(
            f"the strategy trains on a {type(dataset).__name__}, which has no evaluation transforms to be read "
            "through; its train_dataset_adaptation must set adapted_dataset to an Avalanche data set"
        )
    return dataset.eval()


def checked_image(item: Any, transforms: str = "eval") -> Tensor:
    """The image of an item.

    Args:
        item: of a data set.
        transforms: those it went through, ``eval`` or ``train``.

    Raises:
        ValueError: it is no tensor.
    """
    image = item[0]
    if not isinstance(image, Tensor):
        raise ValueError(
            f"the {'evaluation' if transforms == 'eval' else 'training'} transforms must give tensors, got "
            f"{type(image).__name__}; give the benchmark an {transforms}_transform that ends in ToTensor() and "
            "Normalize(...)"
        )
    return image


def read_items(view: Any, with_task_labels: bool) -> Items:
    """Images, labels and task labels as the items of an Avalanche data set give them, each item read once.

    Labels are not taken from ``targets``: a data set that changes them on the way (torchvision's
    ``target_transform``) leaves the first ones there. Rows are indexed, not loaded by a ``DataLoader``: every pass of
    one draws from the global generator.

    Args:
        view: in the transforms to read through.
        with_task_labels: whether the items' last value is one.

    Raises:
        ValueError: images are not tensors of one shape, or labels no integers of at least 0.
    """
    item = view[0]
    first = checked_image(item)
    images = first.new_empty((len(view), *first.shape))
    labels = torch.empty(len(view), dtype=torch.int64)
    tasks = torch.empty(len(view), dtype=torch.int64) if with_task_labels else None
    for index in range(len(view)):
        item = view[index] if index else item  # every item is read once
        if item[0].shape != first.shape:
            raise ValueError(f"images must share one shape, got {tuple(first.shape)} and {tuple(item[0].shape)}")
        images[index] = item[0]
        labels[index] = whole_number("labels", item[1], index)
        if tasks is not None:
            if len(item) < 3:
                raise ValueError(
                    f"the experience has task labels and its items hold {len(item)} values; they must end in one: "
                    "give the data set the attribute targets_task_labels"
                )
            tasks[index] = whole_number("task labels", item[-1], index)
    return Items(images, labels, tasks)


def whole_number(what: str, value: Any, index: int) -> int:
    """A label as an item gives it, int, NumPy integer or 0-dim integer tensor, as an int.

    Raises:
        ValueError: it is something else, which an int would hide, or is negative.
    """
    try:
        if str(getattr(value, "dtype", type(value).__name__)).endswith("bool") or getattr(value, "ndim", 0) > 0:
            raise TypeError(value)
        number = operator.index(value)
    except TypeError:
        raise ValueError(
            f"{what} must be integers, item {index} gives {str(value)[:60]} ({type(value).__name__}); "
            "make the data set, or its target_transform, give class numbers"
        ) from None
    if number < 0:
        raise ValueError(f"{what} must be at least 0, item {index} gives {number}; number classes from 0")
    return number


def has_task_labels(experience: Any) -> bool:
    """Whether an experience comes with task labels."""
    return hasattr(experience, "task_labels")


def task_label_of_classes(labels: Tensor, task_labels: Tensor | None) -> dict[int, int] | None:
    """The task label each class comes with; None without task labels.

    Args:
        labels: (n,) of the images.
        task_labels: (n,) of the same images.

    Raises:
        ValueError: a class comes with several.
    """
    if task_labels is None:
        return None
    found = {}
    for label in labels.unique().tolist():
        of_class = task_labels[labels == label].unique().tolist()
        if len(of_class) > 1:
            raise ValueError(f"class {label} comes with several task labels {of_class}; a class needs one")
        found[label] = of_class[0]
    return found
