"""Classes that are worked on together in one batch."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from clreplay.runtime.seeding import BLOCK, generator
from clreplay.training.augmentation import Strategy, draw


@dataclass
class ClassGroup:
    """Classes with equal numbers of images, worked on in one batch."""

    labels: list[int]
    keys: list[str]
    real: Tensor  # images of all its classes, one after another; uint8 codes or floats
    starts: Tensor  # classes, 1: where each class begins in ``real``
    sizes: list[int]
    batch: int  # real images a class and iteration
    synthetic: Tensor  # classes, n, c, h, w
    velocity: Tensor
    terms: list[Any]
    positions: list[Tensor] | None = None  # of each class in ``real``, where that holds the images of others too
    block: int = -1  # number of the block whose draws are at hand
    rows: Tensor | None = None  # block, classes, batch: real images of each iteration
    draws: Tensor | None = None  # block, classes, draw size, on the host
    statistics: list[tuple[Tensor, ...]] | None = None
    drawn_for: int = -1  # network whose statistics are at hand
    done: int = 0  # iterations its images have moved
    values: dict[str, Tensor] = field(default_factory=dict)  # of the terms in the last of them
    before: tuple[Tensor, Tensor] | None = None  # images and velocity one iteration ago
    ahead: tuple[int, Future[tuple[Tensor, Tensor]]] | None = None  # draws of a later block in the making

    @property
    def maps_at(self) -> set[str]:
        """Points of the network at which terms need the maps themselves."""
        return {term.tap for term in self.terms if term.reads_maps}

    @property
    def moments_at(self) -> set[str]:
        """Points at which moments are enough for some term."""
        return {term.tap for term in self.terms} - self.maps_at

    def move(self, synthetic: Tensor, velocity: Tensor, done: int, values: dict[str, Tensor]) -> None:
        """Replace images and velocity, all at once: Ctrl-C comes before or after it, never in between."""
        before = (self.synthetic, self.velocity)
        self.__dict__.update(synthetic=synthetic, velocity=velocity, done=done, values=values, before=before)

    def at(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Images and velocity as they were when ``iteration`` iterations were done: now or one ago."""
        return self.before if self.done > iteration else (self.synthetic, self.velocity)

    def prepare(self, block: int, seed: int, strategy: Strategy, helper: Executor | None = None) -> None:
        """Make the draws of a block of networks, all ahead of time, each class from its own key.

        Args:
            block: which.
            seed, strategy: of the draws.
            helper: makes those of the block after it meanwhile, so that a GPU need not wait for the host.
        """
        if self.ahead is not None and self.ahead[0] == block:
            rows, draws = self.ahead[1].result()
        else:
            rows, draws = self._draw(block, seed, strategy)
        device = self.real.device
        self.rows = rows.to(device) + self.starts.to(device) if self.positions is None else rows.to(device)
        self.draws, self.block = draws, block
        self.ahead = None if helper is None else (block + 1, helper.submit(self._draw, block + 1, seed, strategy))

    def _draw(self, block: int, seed: int, strategy: Strategy) -> tuple[Tensor, Tensor]:
        rows, draws = [], []
        for key, size in zip(self.keys, self.sizes):
            chance = generator(seed, key, "match", block)
            draws.append(draw(BLOCK, strategy, chance))
            if self.batch < size:
                uniform = torch.rand(BLOCK, size, generator=chance)
                rows.append(uniform.topk(self.batch, dim=1).indices)
            else:
                rows.append(torch.arange(size).expand(BLOCK, size))
        if self.positions is not None:
            rows = [of_class[chosen] for of_class, chosen in zip(self.positions, rows)]
        return torch.stack(rows, 1), torch.stack(draws, 1)

    def halves(self) -> list[ClassGroup]:
        """The same classes in two groups that each need half of the memory at once."""
        middle = len(self.labels) // 2
        return [self.part(slice(0, middle)), self.part(slice(middle, None))]

    def part(self, part: slice) -> ClassGroup:
        """Some of the classes as a group of their own."""
        sizes = self.sizes[part]
        first = int(self.starts[part][0])
        return ClassGroup(
            labels=self.labels[part],
            keys=self.keys[part],
            real=self.real[first : first + sum(sizes)] if self.positions is None else self.real,
            positions=None if self.positions is None else self.positions[part],
            starts=self.starts[part] - first,
            sizes=sizes,
            batch=self.batch,
            synthetic=self.synthetic.detach()[part].clone(),
            velocity=self.velocity[part].clone(),
            terms=self.terms,
            done=self.done,
        )
