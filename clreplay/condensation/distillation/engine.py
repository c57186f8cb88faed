"""Dataset Distillation (Wang et al. 2018): images and step sizes learned through unrolled training.

From fresh random weights, a network is trained for a few steps of gradient descent on the learned images, each
step with a learned step size; the loss of the trained network on real images is carried back through all steps.
Step t of a cycle takes image t of every class, and the cycle is repeated ``distill_epochs`` times, so there are
``distill_epochs * images per class`` steps, each with a step size of its own.

The learned step sizes are in the record (:func:`.learned_steps.learned_step_sizes`), and with it in the memory and
its file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clreplay.condensation.distillation.learned_steps import step_batches, step_loss
from clreplay.condensation.distillation.settings import UnrolledSettings
from clreplay.condensation.distillation.unrolled_gradient import Batch, walk, walk_back
from clreplay.condensation.engine.base import Engine
from clreplay.condensation.engine.start import first_images
from clreplay.condensation.registry import register
from clreplay.condensation.tiles import check_tiles, decoding
from clreplay.networks.flat_function import FlatFunction
from clreplay.runtime.seeding import generator

REAL_AT_ONCE = 256
"""Real images whose activations are in memory at a time; their loss is a sum, so only rounding depends on it."""


@dataclass(frozen=True)
class Learned:
    """All that a distillation is between two updates; an update makes a new one, so Ctrl-C never finds half of it.

    Attributes:
        values: images of all classes, step by step of a cycle (n, c, h, w), and the step sizes before softplus (T,).
        first, second: Adam's moments of both.
        iteration: updates done.
        record: rows so far.
    """

    values: tuple[Tensor, ...]
    first: tuple[Tensor, ...]
    second: tuple[Tensor, ...]
    iteration: int = 0
    record: tuple[dict[str, Any], ...] = ()


def check_classes(settings: UnrolledSettings, counts: Mapping[int, int], shape: tuple[int, int, int]) -> None:
    """There must be several classes to classify, and images that can be cut into tiles.

    Raises:
        ValueError: there is only one, or as :func:`clreplay.condensation.tiles.check_tiles`.
    """
    check_tiles(settings, counts, shape)
    if len(counts) < 2:
        raise ValueError(
            f"dd learns to tell classes apart and needs at least 2 in an experience, got class {next(iter(counts))} "
            "alone; take more classes a step, or a memory that works class by class, such as dm"
        )


@register("dd", UnrolledSettings, decoding=decoding, check=check_classes, engine=True)
class DistillationEngine(Engine):
    """Dataset Distillation of one experience; a step is an update.

    The chance of an update is a function of (seed, class keys, its number).

    Args:
        real, seed, device: see :class:`~clreplay.condensation.engine.base.Engine`.
        counts: learned images of every class; a class with fewer takes part in fewer steps of a cycle.
        settings: see :class:`UnrolledSettings`.

    Raises:
        ValueError: there is only one class, or a class has fewer real images than images are to be made of it.
    """

    unit, one = "updates", "update"
    lower = ("step_size", "lr_img")

    def set_up(self) -> None:
        """See :class:`~clreplay.condensation.engine.base.Engine`."""
        real, settings = self.real, self.settings
        check_classes(settings, self.counts, real.shape)
        self.store_tiles()
        self.function = FlatFunction(settings.build_for(len(real.classes), real.shape).to(self.device))
        self.function.network.train()  # batch norm, where chosen, uses the batch's own statistics
        self._real_images = torch.cat([real.raw(label) for label in real.classes]).to(self.device)
        places = [torch.full((real.count(label),), place) for place, label in enumerate(real.classes)]
        self._real_labels = torch.cat(places).to(self.device)
        self._epoch, self._order = -1, torch.empty(0)
        self.learned = self._begin()

    @property
    def iteration(self) -> int:
        """Updates done."""
        return self.learned.iteration

    @property
    def iterations(self) -> int:
        """Updates in all."""
        return self.settings.updates_for(len(self._real_images))

    @property
    def step_sizes(self) -> Tensor:
        """Step size of every step of the unrolled training, (distill_epochs * steps of a cycle,)."""
        return F.softplus(self.learned.values[1])

    def images(self) -> dict[int, Tensor]:
        """The learned images of every class as they are now, (k, c, h, w), in the order of the steps."""
        places = torch.cat(self._places)
        return {label: self.learned.values[0][places == place] for place, label in enumerate(self.real.classes)}

    # ------------------------------------------------------------------ one update

    def step(self) -> None:
        """One update of the images and step sizes."""
        now, networks = self.learned, self.settings.networks
        rows = self._real_rows(now.iteration)
        total = torch.zeros((), device=self.device)
        gradients = tuple(torch.zeros_like(value) for value in now.values)
        for number in range(networks):
            chance = generator(self.seed, "network", now.iteration * networks + number, device=self.device)
            loss, found = self.gradients(self.function.xavier_normal(chance), rows)
            total += loss / networks
            for mean, gradient in zip(gradients, found):
                mean += gradient / networks
        lr = self.settings.lr_img * 0.5 ** (now.iteration * self.settings.lr_stages // self.iterations)
        self.learned = self._with_row(total, self._adam(gradients, lr))

    def gradients(self, start: Tensor, rows: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What one network says.

        Args:
            start: (p,) its weights before training.
            rows: (b,) the real images it is tested on.

        Returns:
            loss of the trained network on the real images, and its gradients with respect to the learned images
            and to the step sizes before softplus.
        """
        images, raw = self.learned.values
        raw = raw.detach().requires_grad_()
        sizes = F.softplus(raw)
        images = images.detach().requires_grad_()
        shown = self.seen(images)
        batches: list[Batch] = list(zip(shown.detach().split(self._sizes), self._shown_places))
        path = walk(step_loss(self.function), start, batches, sizes)
        loss, end = self._real_loss(path[-1], rows)
        to_images, to_sizes = walk_back(step_loss(self.function), path, batches, sizes, end)
        (to_raw,) = torch.autograd.grad(sizes, raw, to_sizes)
        to_stored = torch.cat(to_images)
        if shown is not images:
            (to_stored,) = torch.autograd.grad(shown, images, to_stored)
        return loss, (to_stored, to_raw)

    def _real_rows(self, iteration: int) -> Tensor:
        """Rows of an update's real batch; every epoch has its own keyed order."""
        count, batch = len(self._real_images), self.settings.real_batch
        epoch, within = divmod(iteration, math.ceil(count / batch))
        if epoch != self._epoch:
            chance = generator(self.seed, "dd", *(self.real.keys[label] for label in self.real.classes), "epoch", epoch)
            self._epoch, self._order = epoch, torch.randperm(count, generator=chance).to(self.device)
        return self._order[within * batch : (within + 1) * batch]

    def _real_loss(self, weights: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of the real batch and its gradient with respect to the weights."""
        weights = weights.detach().requires_grad_()
        loss, gradient = torch.zeros((), device=self.device), torch.zeros_like(weights)
        # Batch statistics are those of the whole batch.
        for some in rows.split(len(rows) if self.settings.norm == "batch" else REAL_AT_ONCE):
            logits = self.function(weights, self.real.normalise(self._real_images[some]))
            part = F.cross_entropy(logits, self._real_labels[some], reduction="sum") / len(rows)
            gradient += torch.autograd.grad(part, weights)[0]
            loss += part.detach()
        return loss, gradient

    def _adam(self, gradients: tuple[Tensor, Tensor], lr: float) -> Learned:
        """What Adam makes of the gradients (Kingma & Ba 2015), in new tensors."""
        now, (beta1, beta2) = self.learned, self.settings.betas
        number = now.iteration + 1
        first = tuple(beta1 * m + (1 - beta1) * g for m, g in zip(now.first, gradients))
        second = tuple(beta2 * v + (1 - beta2) * g.square() for v, g in zip(now.second, gradients))
        mean, square = 1 - beta1**number, 1 - beta2**number
        values = tuple(
            value - lr * (m / mean) / ((v / square).sqrt() + 1e-8) for value, m, v in zip(now.values, first, second)
        )
        return Learned(values, first, second, number, now.record)

    def _with_row(self, loss: Tensor, new: Learned) -> Learned:
        """With a row of the record, where the update is recorded."""
        if not self.is_recorded(new.iteration):
            return new
        return replace(new, record=(*new.record, self.row(new.iteration, {"loss": loss}, new.values[0])))

    def recorded(self) -> tuple[dict[str, Any], ...]:
        """The rows so far."""
        return self.learned.record

    def rows(self) -> list[dict[str, Any]]:
        """The record, and after it the learned step sizes by step."""
        steps = enumerate(self.step_sizes.tolist(), start=1)
        return [*self.learned.record, *({"iteration": number, "step_size": size} for number, size in steps)]

    # ------------------------------------------------------------------ saving and going on

    def state_dict(self) -> dict[str, Any]:
        """Images, step sizes, Adam's moments, iteration and record: they continue an unbroken run."""
        now = self.learned
        tensors = {name: list(getattr(now, name)) for name in ("values", "first", "second")}
        return {**tensors, "iteration": now.iteration, "record": list(now.record)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was taken.

        Raises:
            ValueError: images, step sizes or their moments have another shape; nothing is changed then.
        """
        wanted = [value.shape for value in self.learned.values]
        for name in ("values", "first", "second"):  # Adam's moments would be broadcast where they do not fit
            found = [value.shape for value in state[name]]
            if found != wanted:
                raise ValueError(f"the state does not fit: {name} of {found}, not of {wanted}")
        tensors = [tuple(t.to(self.device) for t in state[name]) for name in ("values", "first", "second")]
        self.learned = Learned(*tensors, state["iteration"], tuple(state["record"]))

    def _begin(self) -> Learned:
        s, each = self.settings, self.tiles.images_each
        first = {
            label: first_images(self.real, label, count, s.init, self.seed, s.tiles)
            for label, count in self.counts.items()
        }
        batches = step_batches(first)
        self._sizes = [len(images) * each for images, _ in batches]
        self._places = [places.to(self.device) for _, places in batches]
        self._shown_places = [places.repeat_interleave(each) for places in self._places]
        images = torch.cat([images for images, _ in batches]).to(self.device)
        # The inverse of softplus, so that every step size begins at ``step_size``.
        raw = self.settings.step_size + math.log(-math.expm1(-self.settings.step_size))
        values = images, torch.full((self.settings.distill_epochs * len(batches),), raw, device=self.device)
        zeros = tuple(torch.zeros_like(value) for value in values)
        return Learned(values, zeros, zeros)
