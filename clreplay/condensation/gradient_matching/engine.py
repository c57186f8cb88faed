"""Gradient matching: DC (Zhao et al. 2021) and DSA (Zhao & Bilen 2021), one loop with another augmentation and start.

Each outer iteration draws a random network. In each of its matching steps a class's synthetic images move so that
the gradient they give the network comes closer to the gradient of a real batch of the class; between two steps the
network trains on the synthetic images of all classes. So classes depend on one another.

A matching step puts one class after another through the network, or all together (``together`` of the execution), with
the same outcome to float rounding.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from clreplay.condensation.engine.base import SteppedEngine
from clreplay.condensation.engine.class_group import ClassGroup
from clreplay.condensation.gradient_matching.class_gradients import class_gradients
from clreplay.condensation.gradient_matching.settings import GradientSettings
from clreplay.condensation.registry import register
from clreplay.condensation.tiles import check_tiles, decoding
from clreplay.losses.gradient_distance import gradient_distance, is_compared
from clreplay.runtime.seeding import BLOCK, generator
from clreplay.training.augmentation import augment_classes
from clreplay.training.loop import train_further

logger = logging.getLogger(__name__)


def check_loops(settings: GradientSettings, counts: Mapping[int, int], shape: tuple[int, int, int]) -> None:
    """Loops must be known for the largest class, and images be cut into tiles.

    Raises:
        ValueError: see :meth:`GradientSettings.loops` and :func:`clreplay.condensation.tiles.check_tiles`.
    """
    check_tiles(settings, counts, shape)
    settings.loops(max(counts.values()))


# Training on all images mixes the classes: not separable.
@register(
    "gradient_matching", GradientSettings, decoding=decoding, check=check_loops, execution=("together",), engine=True
)
class GradientMatchingEngine(SteppedEngine):
    """DC, DSA and what lies between them, as the settings say; a step is a matching step.

    Its chance is keyed by iteration and step, so between two steps the state is the synthetic images, their
    velocity, the network and the position in the loops.

    Args:
        real, counts, seed, device, execution: see :class:`~clreplay.condensation.engine.base.Engine`.
        settings: see :class:`GradientSettings`.

    Raises:
        ValueError: a class has fewer real images than images are to be made of it, or the loop's numbers are to be the
            published ones and none are published for so many images a class.
    """

    settings: GradientSettings

    unit = "matching steps"

    def set_up(self) -> None:
        """See :class:`~clreplay.condensation.engine.base.Engine`."""
        super().set_up()
        real, settings = self.real, self.settings
        self.steps, self.epochs = settings.loops(max(self.counts.values()))
        self.network.requires_grad_()  # views of the buffer still, trained in place
        self.compared = [n for n, p in self.network.named_parameters() if is_compared(p, settings.distance)]
        dtype = self.parameters.buffer.dtype
        for group in self.groups:
            group.synthetic, group.velocity = group.synthetic.to(dtype), group.velocity.to(dtype)
        outputs = {label: i for i, label in enumerate(real.classes)}
        self.targets = [torch.tensor([outputs[c] for c in g.labels], device=self.device) for g in self.groups]
        repeats = torch.tensor(list(self.counts.values())) * self.tiles.images_each
        self.labels = torch.arange(len(outputs)).repeat_interleave(repeats).to(self.device)
        self.classes_at_once = self._classes_at_once()
        self.distance = torch.zeros((), device=self.device, dtype=dtype)  # of the iteration under way, summed
        self._state = self._snapshot()

    # ------------------------------------------------------------------ one matching step

    def step(self) -> Tensor:
        """Update the images of every class, then train the network on them unless it is done with.

        Returns:
            the distance before the update, mean over classes, still on the device.
        """
        if self.position == 0:
            self.parameters.redraw(generator(self.seed, "network", self.iteration, device=self.device))
            self.distance = torch.zeros_like(self.distance)
        number = self.iteration * self.steps + self.position
        self._settle_statistics(number)
        # All gradients first: the network stays as it is and nothing has changed if memory runs out.
        found = [self._of_group(group, targets, number) for group, targets in zip(self.groups, self.targets)]
        for group, (gradient, _) in zip(self.groups, found):
            # New tensors, not in place: the last state is still the one that Ctrl-C saves.
            group.velocity = self.settings.momentum_img * group.velocity + gradient
            group.synthetic = group.synthetic - self.settings.lr_img * group.velocity
        distance = sum(distances.sum() for _, distances in found) / len(self.counts)
        self.distance = self.distance + distance / self.steps
        last = self.position + 1 == self.steps
        if not last:
            self._train(number)
        self.iteration, self.position = (self.iteration + 1, 0) if last else (self.iteration, self.position + 1)
        if last:
            self.add_row({"gradient_distance": self.distance})
        self._state = self._snapshot()
        return distance

    def _of_group(self, group: ClassGroup, targets: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Of every class of a group: the image gradient (classes, n, c, h, w), and the distance (classes,)."""
        if group.block != number // BLOCK:
            group.prepare(number // BLOCK, self.seed, self.strategy)
        start, parts = 0, []
        while start < len(targets):
            part = slice(start, start + self.classes_at_once)
            try:
                parts.append(self._of_classes(group, part, targets[part], number % BLOCK))
                start = part.stop
                continue
            except torch.cuda.OutOfMemoryError:
                if self.classes_at_once == 1:
                    raise
            self._halve(len(targets[part]))  # out of the handler, whose traceback would keep the tensors alive
        gradients, distances = zip(*parts)
        return torch.cat(gradients), torch.cat(distances)

    def _of_classes(self, group: ClassGroup, part: slice, targets: Tensor, within: int) -> tuple[Tensor, Tensor]:
        draws, together = group.draws[within][part], len(targets) > 1
        real = self._normalised(group.real[group.rows[within][part].flatten()]).unflatten(0, (len(targets), -1))
        real = augment_classes(real, draws, self.strategy)
        goal = class_gradients(self.network, self.compared, real, targets, together)
        images = group.synthetic[part].detach().requires_grad_()
        augmented = augment_classes(self.seen(images), draws, self.strategy)  # the same draw: siamese
        own = class_gradients(self.network, self.compared, augmented, targets, together, differentiable=True)
        distances = gradient_distance(goal, own, self.settings.distance)
        (gradient,) = torch.autograd.grad(distances.sum(), images)
        return gradient, distances.detach()

    def _train(self, number: int) -> None:
        train_further(
            self.network,
            self.seen(torch.cat(list(self.images().values()))),
            self.labels,
            self.optimizer,
            (self.seed, "inner", number),
            epochs=self.epochs,
            batch_size=self.settings.batch_net,
            augment=self.settings.inner_augment,
        )

    def _settle_statistics(self, number: int) -> None:
        """Batch norm: one forward pass of real images of all classes, then the statistics stay for this step.

        A batch of few synthetic images of one class has no statistics to speak of (the authors' code).
        """
        self.network.train()
        if any(isinstance(module, nn.BatchNorm2d) for module in self.network.modules()):
            batches = []
            for label in self.real.classes:
                chance = generator(self.seed, self.real.keys[label], "statistics", number)
                rows = torch.randperm(self.real.count(label), generator=chance)[: self.settings.statistics_batch]
                batches.append(self.real.raw(label)[rows])
            with torch.no_grad():
                self.network(self._normalised(torch.cat(batches).to(self.device)))
        self.network.eval()

    def _normalised(self, images: Tensor) -> Tensor:
        return self.real.normalise(images).to(self.parameters.buffer.dtype)

    # ------------------------------------------------------------------ how many classes at once

    def _classes_at_once(self) -> int:
        together = self.execution.together
        if together is None:
            together = self.device.type != "cpu" and self.settings.norm != "layer"
        return max(len(group.labels) for group in self.groups) if together else 1

    def _halve(self, tried: int) -> None:
        self.classes_at_once = (tried + 1) // 2
        logger.warning("out of memory with %d classes at once; going on with %d", tried, self.classes_at_once)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    # ------------------------------------------------------------------ what a run tells

    def progress(self) -> tuple[int, int]:
        """Matching steps done and in all."""
        return self.iteration * self.steps + self.position, self.iterations * self.steps

    def chosen(self) -> dict[str, Any]:
        """How many classes went together at last, and the loops' lengths."""
        return {"classes_at_once": self.classes_at_once, "outer_loops": self.steps, "inner_epochs": self.epochs}

    # ------------------------------------------------------------------ saving and going on

    def _own_values(self) -> dict[str, Any]:
        return {"classes_at_once": self.classes_at_once}

    def _own_tensors(self) -> dict[str, Tensor]:
        return {"distance": self.distance}

    def _take_own(self, state: dict[str, Any]) -> None:
        self.distance = state["tensors"]["distance"].to(self.device)
        self.classes_at_once = state["classes_at_once"]
