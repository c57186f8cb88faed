"""Between Avalanche's experiences and plain tensors: what the plugin reads and what it serves.

Nothing here imports Avalanche.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from clreplay.training.batches import BatchSource


class MemoryLoader:
    """Stands in for ``strategy.dataloader``: whole batches, already augmented and on the device.

    Yields ``[x, y]``, or ``[x, y, t]`` where the experience has task labels. Each pass is the next epoch.
    """

    def __init__(self, source: BatchSource, task_labels: Tensor | None = None) -> None:
        self.source, self.task_labels = source, task_labels
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[list[Tensor]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        for rows, choice, parameters in self.source.rows(epoch):
            batch = list(self.source.batch(rows, choice, parameters))
            yield batch if self.task_labels is None else [*batch, self.task_labels[rows]]


class MemoryDataset(Dataset):
    """Decoded images with integer labels; a class of its own, so that checkpoints can pickle it."""

    def __init__(self, images: Tensor, targets: list[int]) -> None:
        self.images, self.targets = images, targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], self.targets[index]


def read_images(dataset: Any) -> Tensor:
    """All images of an Avalanche data set through its evaluation transforms, (n, c, h, w), each read once.

    Rows are indexed, not loaded by a ``DataLoader``: every pass of one draws from the global generator.

    Raises:
        ValueError: the transforms do not give tensors of one shape.
    """
    view = dataset.eval()
    first = view[0][0]
    if not isinstance(first, Tensor):
        raise ValueError(
            f"the evaluation transforms must give tensors, got {type(first).__name__}; "
            "give the benchmark an eval_transform that ends in ToTensor() and Normalize(...)"
        )
    images = first.new_empty((len(view), *first.shape))
    images[0] = first
    for index in range(1, len(view)):
        image = view[index][0]
        if image.shape != first.shape:
            raise ValueError(f"images must share one shape, got {tuple(first.shape)} and {tuple(image.shape)}")
        images[index] = image
    return images


def has_task_labels(experience: Any) -> bool:
    """Whether an experience comes with task labels."""
    return hasattr(experience, "task_labels")


def task_label_of_classes(experience: Any, labels: Tensor) -> dict[int, int] | None:
    """The task label each class of the experience comes with; None without task labels.

    Args:
        experience: of Avalanche.
        labels: (n,) of its images.

    Raises:
        ValueError: a class comes with several.
    """
    if not has_task_labels(experience):
        return None
    tasks = torch.as_tensor(list(experience.dataset.targets_task_labels), dtype=torch.int64)
    found = {}
    for label in labels.unique().tolist():
        of_class = tasks[labels == label].unique().tolist()
        if len(of_class) > 1:
            raise ValueError(f"class {label} comes with several task labels {of_class}; a class needs one")
        found[label] = of_class[0]
    return found
