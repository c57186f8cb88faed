"""Classes that are worked on together in one batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clreplay.augment import Strategy, draw
from clreplay.chance import BLOCK, generator


@dataclass
class Group:
    """Classes with equal numbers of images, worked on in one batch."""

    labels: list[int]
    keys: list[str]
    real: Tensor  # images of all its classes, one after another; uint8 codes or floats, on the device
    starts: Tensor  # classes, 1: where each class begins in ``real``
    sizes: list[int]
    batch: int  # real images a class and iteration
    synthetic: Tensor  # classes, n, c, h, w
    velocity: Tensor
    terms: list[Any]
    block: int = -1  # number of the block whose draws are at hand
    rows: Tensor | None = None  # block, classes, batch: real images of each iteration
    draws: Tensor | None = None  # block, classes, draw size, on the host
    statistics: list[tuple[Tensor, ...]] | None = None
    drawn_for: int = -1  # network whose statistics are at hand

    def prepare(self, block: int, seed: int, strategy: Strategy) -> None:
        """Make the draws of a block of networks, all ahead of time, each class from its own key."""
        rows, draws = [], []
        for key, size in zip(self.keys, self.sizes):
            chance = generator(seed, key, "match", block)
            draws.append(draw(BLOCK, strategy, chance))
            if self.batch < size:
                uniform = torch.rand(BLOCK, size, generator=chance)
                rows.append(uniform.topk(self.batch, dim=1).indices)
            else:
                rows.append(torch.arange(size).expand(BLOCK, size))
        device = self.real.device
        self.rows = torch.stack(rows, 1).to(device) + self.starts.to(device)
        self.draws = torch.stack(draws, 1)
        self.block = block

    def halves(self) -> list[Group]:
        """The same classes in two groups that each need half of the memory at once."""
        middle = len(self.labels) // 2
        return [self._part(slice(0, middle)), self._part(slice(middle, None))]

    def _part(self, part: slice) -> Group:
        sizes = self.sizes[part]
        first = int(self.starts[part][0])
        return Group(
            labels=self.labels[part],
            keys=self.keys[part],
            real=self.real[first : first + sum(sizes)],
            starts=self.starts[part] - first,
            sizes=sizes,
            batch=self.batch,
            synthetic=self.synthetic.detach()[part].clone(),
            velocity=self.velocity[part].clone(),
            terms=self.terms,
        )
