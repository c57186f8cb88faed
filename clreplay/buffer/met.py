"""The images of the present experience as a loop meets them, batch by batch, until they are condensed."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from clreplay.api import as_tensor
from clreplay.condensation.real_images import check_images, check_labels


class Met:
    """Images met since the last consolidation, each once, however often an epoch brings it.

    Attributes:
        images: batches (n, c, h, w) on the CPU.
        labels, task_labels: (n,) int64 of each.
    """

    def __init__(self) -> None:
        self.images: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.task_labels: list[Tensor] = []
        self._known: set[bytes] = set()

    def __len__(self) -> int:
        return sum(map(len, self.images))

    def add(self, images: Any, labels: Any, task_labels: Any, shape: tuple[int, ...] | None) -> None:
        """Take a batch in.

        Args:
            images: (n, c, h, w) uint8 or floats.
            labels: (n,) integers of at least 0.
            task_labels: (n,) integers, one for all, or None for 0.
            shape: of the images that were met before, None before any.

        Raises:
            ValueError: they are unusable, or unlike those before; nothing is taken in then.
        """
        images = check_images(as_tensor(images)).detach().cpu()
        labels = check_labels(labels, len(images))
        if int(labels.min()) < 0:
            raise ValueError(f"labels must be at least 0, got {int(labels.min())}; number classes from 0")
        one = task_labels is None or isinstance(task_labels, int)
        tasks = torch.full_like(labels, task_labels or 0) if one else check_labels(task_labels, len(images))
        shape = tuple(self.images[0].shape[1:]) if self.images else shape
        if shape is not None and tuple(images.shape[1:]) != tuple(shape):
            raise ValueError(f"images have shape {tuple(images.shape[1:])}, those before {tuple(shape)}; resize them")
        if self.images and images.dtype != self.images[0].dtype:
            raise ValueError(
                f"images are {images.dtype}, those before {self.images[0].dtype}; give a whole experience in one type"
            )
        # The same picture of another class is another one.
        names = [_name(image, int(label)) for image, label in zip(images, labels)]
        new = [row for row, name in enumerate(names) if name not in self._known and name not in names[:row]]
        if new:
            self._known.update(names)
            self.images.append(images[new].clone())
            self.labels.append(labels[new].clone())
            self.task_labels.append(tasks[new].clone())

    def all(self) -> tuple[Tensor, Tensor, Tensor]:
        """Images, labels and task labels together; there must be some."""
        return torch.cat(self.images), torch.cat(self.labels), torch.cat(self.task_labels)

    def classes(self) -> list[int]:
        """Labels, ascending."""
        return torch.cat(self.labels).unique().tolist() if self.labels else []

    def clear(self) -> None:
        """Forget them."""
        self.images, self.labels, self.task_labels, self._known = [], [], [], set()


def _name(image: Tensor, label: int) -> bytes:
    return hashlib.blake2b(image.contiguous().numpy().tobytes(), digest_size=16, salt=str(label).encode()[:16]).digest()
