"""Shuffled, augmented mini-batches of a fixed set, whose chance is keyed by the epoch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from clreplay.data import Normalization
from clreplay.runtime.seeding import generator
from clreplay.training.augmentation import augment_images, draw, parse_strategy


class BatchSource:
    """Shuffled, augmented mini-batches of a fixed set, on its device; an epoch's chance is keyed by its number.

    Iterating never touches the global generator, so whatever else a program draws cannot change training.

    Args:
        images: (n, c, h, w), normalised floats, or uint8 with ``normalization``.
        labels: (n,) on the same device.
        batch_size: images a batch; the last may be smaller.
        augment: strategy string or None.
        key: what the chance of this training is keyed by.
        normalization: for uint8 images.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        augment: str | None,
        key: tuple[int | str, ...],
        normalization: Normalization | None = None,
    ) -> None:
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.strategy, self.key, self.normalization = parse_strategy(augment), key, normalization

    def __len__(self) -> int:
        return math.ceil(len(self.images) / self.batch_size)

    def rows(self, epoch: int) -> list[tuple[Tensor, float, Tensor]]:
        """Of every batch of an epoch: rows, the operator's choice, and parameters an image."""
        chance = generator(*self.key, "epoch", epoch)
        n, device = len(self.images), self.images.device
        order = torch.randperm(n, generator=chance)
        choices = torch.rand(len(self), generator=chance).tolist()
        parameters = draw(n, self.strategy, chance)[:, 1:].to(device)
        batches = zip(order.to(device).split(self.batch_size), choices, parameters.split(self.batch_size))
        return list(batches)

    def batch(self, rows: Tensor, choice: float, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """One mini-batch: augmented images and labels."""
        images = self.images[rows]
        if self.normalization is not None:
            images = self.normalization.apply(images)
        return augment_images(images, choice, parameters, self.strategy), self.labels[rows]

    def epoch(self, epoch: int):
        """The mini-batches of one epoch."""
        for rows, choice, parameters in self.rows(epoch):
            yield self.batch(rows, choice, parameters)
