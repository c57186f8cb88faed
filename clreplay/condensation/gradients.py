"""Gradient matching: DC (Zhao et al. 2021) and DSA (Zhao & Bilen 2021), one loop with another augmentation and start.

Each outer iteration draws a random network. In each of its matching steps a class's synthetic images move so that
the gradient they give the network comes closer to the gradient of a real batch of the class; between two steps the
network trains on the synthetic images of all classes. So classes depend on one another.

A matching step puts one class after another through the network, or all together (the setting ``together``), with
the same outcome to float rounding.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clreplay.allocator import keep_freed_memory
from clreplay.augment import augment_classes, parse_strategy
from clreplay.chance import BLOCK, generator
from clreplay.condensation.class_gradients import class_gradients
from clreplay.condensation.gradient_settings import GradientSettings
from clreplay.condensation.group import Group
from clreplay.condensation.inner_training import train_further
from clreplay.condensation.keeping import kept, load_kept
from clreplay.condensation.methods import Condensed, Progress, register
from clreplay.condensation.real import RealImages
from clreplay.condensation.start import equal_groups
from clreplay.losses.gradient_distance import gradient_distance, is_compared
from clreplay.networks import FlatParameters

logger = logging.getLogger(__name__)
RECORD_ROWS = 200


class GradientMatching:
    """One condensation in progress: all that it is, and how it goes one matching step further.

    Its chance is keyed by iteration and step, so between two steps the state is the synthetic images, their
    velocity, the network and where it stands.

    Args:
        real: the experience.
        counts: synthetic images of every class.
        settings: see :class:`GradientSettings`.
        seed: seed of all chance.
        device: where the work is done.

    Raises:
        ValueError: a class has fewer real images than are asked of it, or the loop's numbers are to be the
            published ones and none are published for so many images a class.
    """

    def __init__(
        self,
        real: RealImages,
        counts: dict[int, int],
        settings: GradientSettings,
        seed: int,
        device: torch.device,
    ) -> None:
        real.check_counts(counts)
        self.real, self.settings, self.seed, self.device = real, settings, seed, torch.device(device)
        self.counts = {label: counts[label] for label in real.classes}
        self.steps, self.epochs = settings.loops(max(self.counts.values()))
        if self.device.type == "cpu":
            keep_freed_memory()
        self.strategy = parse_strategy(settings.siamese_augment)
        self.network = settings.build(len(real.classes), real.shape[0], real.shape[1]).to(self.device)
        self.parameters = FlatParameters(self.network)
        self.network.requires_grad_()  # views of the buffer still, trained in place
        self.compared = [n for n, p in self.network.named_parameters() if is_compared(p, settings.distance)]
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=settings.lr_net)
        self.groups = equal_groups(real, self.counts, settings.real_batch, settings.init, seed, self.device)
        dtype = self.parameters.buffer.dtype
        for group in self.groups:
            group.synthetic, group.velocity = group.synthetic.to(dtype), group.velocity.to(dtype)
        outputs = {label: i for i, label in enumerate(real.classes)}
        self.targets = [torch.tensor([outputs[c] for c in g.labels], device=self.device) for g in self.groups]
        repeats = torch.tensor(list(self.counts.values()))
        self.labels = torch.arange(len(outputs)).repeat_interleave(repeats).to(self.device)
        self.classes_at_once = self._classes_at_once()
        self.iteration = self.position = 0  # outer iterations done, and matching steps of the one under way
        self.distance = torch.zeros((), device=self.device, dtype=dtype)  # of the iteration under way, summed
        self.record: list[dict[str, Any]] = []
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
            self._note()
        self._state = self._snapshot()
        return distance

    def _of_group(self, group: Group, targets: Tensor, number: int) -> tuple[Tensor, Tensor]:
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

    def _of_classes(self, group: Group, part: slice, targets: Tensor, within: int) -> tuple[Tensor, Tensor]:
        draws, together = group.draws[within][part], len(targets) > 1
        real = self._normalised(group.real[group.rows[within][part].flatten()]).unflatten(0, (len(targets), -1))
        real = augment_classes(real, draws, self.strategy)
        goal = class_gradients(self.network, self.compared, real, targets, together)
        images = group.synthetic[part].detach().requires_grad_()
        augmented = augment_classes(images, draws, self.strategy)  # the same draw: siamese
        own = class_gradients(self.network, self.compared, augmented, targets, together, differentiable=True)
        distances = gradient_distance(goal, own, self.settings.distance)
        (gradient,) = torch.autograd.grad(distances.sum(), images)
        return gradient, distances.detach()

    def _train(self, number: int) -> None:
        train_further(
            self.network,
            torch.cat(list(self.images().values())),
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
            held = []
            for label in self.real.classes:
                chance = generator(self.seed, self.real.keys[label], "statistics", number)
                rows = torch.randperm(self.real.count(label), generator=chance)[: self.settings.statistics_batch]
                held.append(self.real.raw(label)[rows])
            with torch.no_grad():
                self.network(self._normalised(torch.cat(held).to(self.device)))
        self.network.eval()

    def _normalised(self, held: Tensor) -> Tensor:
        return self.real.normalise(held).to(self.parameters.buffer.dtype)

    # ------------------------------------------------------------------ how many classes at once

    def _classes_at_once(self) -> int:
        together = self.settings.together
        if together is None:
            together = self.device.type != "cpu" and self.settings.norm != "layer"
        return max(len(group.labels) for group in self.groups) if together else 1

    def _halve(self, tried: int) -> None:
        self.classes_at_once = (tried + 1) // 2
        logger.warning("out of memory with %d classes at once; going on with %d", tried, self.classes_at_once)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    # ------------------------------------------------------------------ the whole way

    def run(self, progress: Progress | None = None, keep: Path | None = None) -> Condensed:
        """Go on to the last iteration.

        Args:
            progress: told after every matching step.
            keep: file to save the state in every few minutes and when interrupted. If it is there already
                and holds a state of this very condensation, that is where the run goes on from. It is
                removed at the end.

        Raises:
            FloatingPointError: the distance or an image is no longer finite.
        """
        state = load_kept(keep, self._identity())
        if state is not None:
            self.load_state_dict(state)
        total = self.settings.iterations * self.steps
        with kept(keep, self._identity(), self.state_dict) as tick:
            while self.iteration < self.settings.iterations:
                self.step()
                if progress is not None:
                    progress(self.iteration * self.steps + self.position, total, "matching steps")
                tick()
        chosen = {"classes_at_once": self.classes_at_once, "outer_loops": self.steps, "inner_epochs": self.epochs}
        return Condensed(self.images(), self.record, chosen)

    def images(self) -> dict[int, Tensor]:
        """The synthetic images of every class as they are now, (k, c, h, w)."""
        by_label = {label: group.synthetic[i] for group in self.groups for i, label in enumerate(group.labels)}
        return {label: by_label[label].detach().clone() for label in self.real.classes}

    def _note(self) -> None:
        """A row of the record, of some iterations only: reading a number makes the host wait for the device."""
        total = self.settings.iterations
        if self.iteration % max(1, total // RECORD_ROWS) and self.iteration not in (1, total):
            return
        flat = torch.cat([group.synthetic.flatten() for group in self.groups])
        values = {"gradient_distance": self.distance, "image_std": flat.std()}
        values.update(image_min=flat.min(), image_max=flat.max())
        row = {name: float(value) for name, value in values.items()}
        if not all(abs(value) < float("inf") for value in row.values()):
            raise FloatingPointError(
                f"condensation diverged at iteration {self.iteration} ({row}); "
                f"lower lr_img (now {self.settings.lr_img}) or lr_net (now {self.settings.lr_net})"
            )
        self.record = [*self.record, {"iteration": self.iteration, **row}]

    # ------------------------------------------------------------------ saving and going on

    def _snapshot(self) -> dict[str, Any]:
        """The state now; a step replaces tensors, so only the network has to be copied."""
        tensors = {"network": self.parameters.buffer.clone(), "distance": self.distance}
        tensors.update({f"buffer.{name}": buffer.clone() for name, buffer in self.network.named_buffers()})
        for group in self.groups:
            for i, label in enumerate(group.labels):
                tensors[f"{label}.image"], tensors[f"{label}.velocity"] = group.synthetic[i], group.velocity[i]
        return {
            "iteration": self.iteration,
            "position": self.position,
            "classes_at_once": self.classes_at_once,
            "record": self.record,
            "tensors": tensors,
        }

    def state_dict(self) -> dict[str, Any]:
        """The state after the last whole step: with the same inputs it continues an unbroken run."""
        state = self._state
        tensors = {name: tensor.detach().clone() for name, tensor in state["tensors"].items()}
        return {**state, "record": list(state["record"]), "tensors": tensors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was taken.

        Raises:
            ValueError: a tensor is missing or has another shape; nothing is changed then.
        """
        saved = state["tensors"]
        for name, tensor in self._state["tensors"].items():
            if name not in saved or saved[name].shape != tensor.shape:
                raise ValueError(f"the state does not fit: it has no {name} of {tuple(tensor.shape)}")
        for group in self.groups:
            group.synthetic, group.velocity = (
                torch.stack([saved[f"{label}.{kind}"] for label in group.labels]).to(self.device)
                for kind in ("image", "velocity")
            )
        self.parameters.buffer.copy_(saved["network"])
        for name, buffer in self.network.named_buffers():
            buffer.copy_(saved[f"buffer.{name}"])
        self.distance = saved["distance"].to(self.device)
        self.iteration, self.position = state["iteration"], state["position"]
        self.classes_at_once, self.record = state["classes_at_once"], list(state["record"])
        self._state = self._snapshot()

    def _identity(self) -> str:
        """Names this condensation: classes, counts, settings, seed and kind of device."""
        classes = [[self.real.keys[label], count] for label, count in self.counts.items()]
        return json.dumps([classes, asdict(self.settings), self.seed, self.device.type])


@register("gradient_matching", GradientSettings)  # training on all images mixes the classes: not separable
def condense_by_gradients(
    real: RealImages,
    counts: dict[int, int],
    settings: GradientSettings,
    *,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
    keep: Path | None = None,
) -> Condensed:
    """DC, DSA and what lies between them, as the settings say."""
    return GradientMatching(real, counts, settings, seed, device).run(progress, keep)
