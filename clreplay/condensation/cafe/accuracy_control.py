"""Loops that an accuracy steers: how it is measured on real images, and when it has come to rest or has moved."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from clreplay.condensation.engine.class_group import ClassGroup
from clreplay.runtime.seeding import generator
from clreplay.training.evaluate import share_right


class AccuracyWindow:
    """The last accuracies of a network in training; a window that is not full yet says nothing.

    Args:
        length: how many values it holds.
        carried: part of the value before that is added to each accuracy.
        values: so far, the oldest first: accuracies with what they carry along.
    """

    def __init__(self, length: int, carried: float = 0.0, values: Iterable[float] = ()) -> None:
        self.carried, self.values = carried, deque(values, maxlen=length)

    def add(self, accuracy: float) -> None:
        """Take in the newest accuracy; the oldest value of a full window leaves."""
        self.values.append(accuracy + (self.carried * self.values[-1] if self.values else 0.0))

    def is_stable(self, within: float) -> bool:
        """Whether the window is full and its values are less than ``within`` apart."""
        return self._full and max(self.values) - min(self.values) < within

    def has_changed(self, beyond: float) -> bool:
        """Whether the window is full and its values are more than ``beyond`` apart."""
        return self._full and max(self.values) - min(self.values) > beyond

    @property
    def _full(self) -> bool:
        return len(self.values) == self.values.maxlen


class RealAccuracy:
    """Accuracy of a network on real images, as many of every class, others in every measurement.

    Args:
        groups: the classes with their real images.
        outputs: of every group, the outputs of its classes, (classes,) on the device.
        normalise: makes network input of images as the groups hold them.
        images: of a class and measurement, without replacement; a smaller class is used whole.
        seed: of all chance.
    """

    def __init__(
        self,
        groups: Sequence[ClassGroup],
        outputs: Sequence[Tensor],
        normalise: Callable[[Tensor], Tensor],
        images: int,
        seed: int,
    ) -> None:
        self.groups, self.outputs, self.normalise, self.images, self.seed = groups, outputs, normalise, images, seed
        self._number: tuple[int, ...] = ()
        self._orders: list[list[Tensor]] = []

    def __call__(self, network: nn.Module, number: tuple[int, ...], turn: int) -> float:
        """The share of the images classified right, measured in evaluation mode, in which the network is left.

        Args:
            network: with an output a class.
            number: of a series of measurements, whose images are drawn together from ``(seed, class key, number)``.
            turn: of the measurement within its series; turns go through a class's images before any comes again.

        This waits for the device, because the caller decides by the answer.
        """
        if number != self._number:
            self._orders = [[self._order(*one, number) for one in zip(g.keys, g.sizes)] for g in self.groups]
            self._number = number
        images, labels = [], []
        for group, outputs, orders in zip(self.groups, self.outputs, self._orders):
            counts = [min(self.images, size) for size in group.sizes]
            rows = [self._rows(*one, turn) for one in zip(orders, counts, group.starts.flatten().tolist())]
            images.append(group.real[torch.cat(rows).to(group.real.device)])
            labels.append(outputs.repeat_interleave(torch.tensor(counts, device=outputs.device)))
        network.eval()
        return share_right(network, self.normalise(torch.cat(images)), torch.cat(labels)).item()

    def _order(self, key: str, size: int, number: tuple[int, ...]) -> Tensor:
        return torch.randperm(size, generator=generator(self.seed, key, "accuracy", *number))

    @staticmethod
    def _rows(order: Tensor, count: int, start: int, turn: int) -> Tensor:
        return start + order[(turn * count + torch.arange(count)) % len(order)]
