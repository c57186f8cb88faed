"""Shuffled, augmented mini-batches of a fixed set, whose chance is keyed by the epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from clreplay.data import Normalization
from clreplay.runtime.seeding import generator
from clreplay.training.augmentation import augment_images, draw, parse_strategy


class BatchSource:
    """Shuffled, augmented mini-batches of a fixed set, on its device; an epoch's chance is keyed by its number.

    Iterating never touches the global generator, so other random draws of a program cannot change training.

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
        """What is drawn for every batch of an epoch.

        Returns:
            a batch each: rows (b,), the number in [0, 1) that chooses the operator, and the parameters of every
            image (b, draw_size - 1), on the images' device but for the number.
        """
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

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The mini-batches of one epoch."""
        for rows, choice, parameters in self.rows(epoch):
            yield self.batch(rows, choice, parameters)


class BatchLoader:
    """The mini-batches of a source as a loop takes them, ``(images, labels)``; each pass is the next epoch.

    Args:
        source: the images that are served.
        shuffle: False serves the images in their order.
        drop_last: leaves out a last batch that is smaller than the others.

    Attributes:
        epoch: number of the next pass; set it to go on where a training stopped.
    """

    def __init__(self, source: BatchSource, shuffle: bool = True, drop_last: bool = False) -> None:
        self.source, self.shuffle, self.drop_last = source, shuffle, drop_last
        self.epoch = 0

    def __len__(self) -> int:
        size = self.source.batch_size
        return len(self.source.images) // size if self.drop_last else len(self.source)

    def __iter__(self) -> Iterator[Sequence[Tensor]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        in_order = torch.arange(len(self.source.images), device=self.source.images.device)
        ordered = in_order.split(self.source.batch_size)
        for number, (rows, choice, parameters) in enumerate(self.source.rows(epoch)[: len(self)]):
            rows = rows if self.shuffle else ordered[number]
            yield self.batch(rows, self.source.batch(rows, choice, parameters))

    def batch(self, rows: Tensor, images_and_labels: tuple[Tensor, Tensor]) -> Sequence[Tensor]:
        """What is served of a mini-batch, given its rows."""
        return images_and_labels


class StackedBatches:
    """The mini-batches that :class:`BatchSource` gives for every key, stacked; on a GPU in few calls for all keys.

    Args:
        keys: N of them, what the chance of every training is keyed by.

    The others are those of :class:`BatchSource`.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        augment: str | None,
        keys: Sequence[tuple[int | str, ...]],
        normalization: Normalization | None = None,
    ) -> None:
        self.images, self.labels, self.normalization = images, labels, normalization
        # The sources only draw, on the host: one transfer for all networks instead of one each.
        nothing = torch.empty(len(images), 0)
        self.sources = [BatchSource(nothing, nothing, batch_size, augment, key) for key in keys]
        self.strategy = self.sources[0].strategy

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (N, b, c, h, w) and labels (N, b) of an epoch's mini-batches; row i has those of ``keys[i]``."""
        for draws in zip(*(source.rows(epoch) for source in self.sources)):
            rows, choices, parameters = zip(*draws)
            yield self._batch(torch.stack(rows), choices, torch.stack(parameters))

    def _batch(self, rows: Tensor, choices: Sequence[float], parameters: Tensor) -> tuple[Tensor, Tensor]:
        """One mini-batch. Networks that drew the same operator share its call: it acts on every image by itself.

        Args:
            rows: (N, b), on the host.
            choices: the operator's choice of every network.
            parameters: (N, b, draw_size - 1) uniform numbers, on the host.
        """
        groups: dict[tuple[str, ...], list[int]] = {}
        for i, choice in enumerate(choices):
            groups.setdefault(tuple(self.strategy.chosen(choice)), []).append(i)
        order = torch.tensor([i for members in groups.values() for i in members])
        b = rows.shape[1]
        images = self.images[self._to_device(rows[order].flatten())]  # N * b, grouped by operator
        if self.normalization is not None:
            images = self.normalization.apply(images)
        numbers = self._to_device(parameters[order].flatten(0, 1))
        sizes = [len(members) * b for members in groups.values()]
        pieces = [
            augment_images(piece, choices[members[0]], u, self.strategy)
            for members, piece, u in zip(groups.values(), images.split(sizes), numbers.split(sizes))
        ]
        images = torch.cat(pieces).unflatten(0, (len(rows), b))
        return images[self._to_device(order.argsort())], self.labels[self._to_device(rows)]

    def _to_device(self, tensor: Tensor) -> Tensor:
        # Without waiting: a step that had to end before the next is prepared would leave the GPU idle.
        return tensor.to(self.images.device, non_blocking=True)
