"""The distribution-matching engine: DM, DDM and every composition of their terms.

Each iteration draws a random network, takes a real batch of every class, augments it and the class's
synthetic images with one shared draw, and moves the synthetic images down the gradient of the terms.
The losses separate over classes, so classes are worked on in groups of any size, one after another or in
threads, with the same outcome (to float rounding): one at a time suits a CPU's cache, many at a time fill a GPU.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clreplay.condensation.engine.base import GroupEngine
from clreplay.condensation.engine.class_group import ClassGroup
from clreplay.condensation.engine.class_threads import ClassThreads
from clreplay.condensation.engine.start import equal_groups
from clreplay.condensation.matching.encoders import TrainedNetworks
from clreplay.condensation.matching.fresh_networks import FreshNetworks
from clreplay.condensation.matching.settings import MatchingSettings
from clreplay.condensation.matching.terms import terms_of
from clreplay.data import Normalization
from clreplay.losses import ClassConstraint, Term
from clreplay.networks.features import Features
from clreplay.networks.fused_forward import Forward
from clreplay.runtime.precision import convolutions_in
from clreplay.runtime.progress import Progress
from clreplay.runtime.seeding import BLOCK
from clreplay.training.augmentation import augment_classes

logger = logging.getLogger(__name__)


class _PixelSpace(NamedTuple):
    """Where pixels lie in normalised space, (c, 1, 1) each.

    Attributes:
        low, high: of the pixel values 0 and 1.
        steepness: a gradient with respect to pixels moves normalised values by this times the one with respect to
            them: once because pixels are a stretched copy, once more because the step is stretched, too.
    """

    low: Tensor
    high: Tensor
    steepness: Tensor


RESIDENT_SHARE = 0.4
"""Of a GPU's free memory: what real images may take of it; beyond, batches come from the host."""


class MatchingEngine(GroupEngine):
    """One condensation by matching distributions.

    The chance of iteration i is a function of (seed, class key, i), so the state is only the synthetic
    images, their velocity, the iteration, the record and what the networks know beyond their draw.

    Args:
        real, seed, device: see :class:`~clreplay.condensation.engine.base.Engine`.
        counts: stored images of every class; with ``tiles`` each is several that the network sees.
        settings: see :class:`MatchingSettings`.
        execution: see there; what is still ``auto`` is plain here.

    Raises:
        ValueError: the images cannot be cut into tiles, ``image_space`` is ``pixels`` and nobody knows which pixels the
            images are of, or a class has fewer real images than are to be made of it.
    """

    settings: MatchingSettings

    def set_up(self) -> None:
        """See :class:`~clreplay.condensation.engine.base.Engine`."""
        super().set_up()
        self.settings = settings = self.settings.plain(self.device)
        self._pixels = self._pixel_space() if settings.image_space == "pixels" else None
        self.execution = how = self.execution.plain(self.device, settings.norm)
        self.networks = self.make_networks()
        self.forward = Forward(self.networks.network, how.kernels, how.layout, settings.precision)
        if isinstance(self.networks, TrainedNetworks):
            self.networks.judged_with(how.kernels, how.layout, settings.precision)
        self.groups = self._make_groups()
        self._halved = False
        self._threads: ClassThreads | None = None
        # Draws are made on the host, which has nothing else to do while a GPU works.
        self._helper = ThreadPoolExecutor(1, "clreplay-draws") if self.device.type == "cuda" else None

    # ------------------------------------------------------------------ what a relative may do otherwise

    def make_networks(self) -> Any:
        """Where the network of every iteration comes from: see :class:`FreshNetworks`."""
        if self.settings.encoders != "random":
            return self._trained_networks()
        # One output, whatever the number of classes: only the features are used, and the size of the buffer
        # decides which number of a GPU's draw goes to which weight.
        network = self.settings.build_for(1, self.real.shape).to(self.device)
        return FreshNetworks(network, self.seed)

    def _trained_networks(self) -> TrainedNetworks:
        images, outputs, codes = self.training_set()
        network, twin = (
            self.settings.build_for(len(self.real.classes), self.real.shape).to(self.device) for _ in range(2)
        )
        return TrainedNetworks(network, twin, self.real, images, outputs, self.settings, self.seed, codes)

    def training_set(self) -> tuple[Tensor, Tensor, Normalization | None]:
        """All real images, class after class, the output of a network that stands for each, and the normalization of
        pixel codes; on the device if it has room for them. How an experience interleaves its classes must not matter.
        """
        real = self.real
        rows = torch.cat([real.rows(label) for label in real.classes])
        images = real.images if torch.equal(rows, torch.arange(len(real.images))) else real.images[rows]  # uncopied
        outputs = torch.cat([torch.full((real.count(label),), i) for i, label in enumerate(real.classes)])
        where = self.device if self._resident() else images.device
        codes = real.normalization if images.dtype == torch.uint8 else None
        return images.to(where), outputs.to(where), codes

    def terms(self, labels: list[int], count: int) -> list[Term]:
        """The terms of the loss for some classes with ``count`` stored images each."""
        terms, weight = terms_of(self.settings, count * self.tiles.images_each), self.settings.constraint_weight
        return [*terms, ClassConstraint(weight, self.outputs(labels), self.networks)] if weight > 0 else terms

    def outputs(self, labels: list[int]) -> Tensor:
        """The output of a trained network that stands for each class, (classes,)."""
        return torch.tensor([self.real.classes.index(label) for label in labels], device=self.device)

    def prepare(self, progress: Progress | None = None) -> None:
        """See :class:`~clreplay.condensation.engine.base.Engine`."""
        if isinstance(self.networks, TrainedNetworks):
            self.networks.prepare(progress)

    # ------------------------------------------------------------------ one iteration

    def step(self) -> dict[str, Tensor]:
        """One image update of every class.

        Interrupted in the middle, it can be called again: groups that were through are not moved twice.

        Returns:
            The terms' unweighted values, mean over classes, still on the device.
        """
        number = self.iteration // self.settings.network_reuse
        with convolutions_in(self.settings.precision, self.device):
            self.networks.take(number)
            values = self._in_threads(number) if self.execution.parallel == "classes" else self._in_turn(number)
            self.networks.advance(number)
        self.iteration += 1
        totals: dict[str, Tensor] = {}
        for of_group in values:
            for name, value in of_group.items():
                totals[name] = totals.get(name, 0) + value.sum()
        return {name: total / len(self.real.classes) for name, total in totals.items()}

    def _in_turn(self, number: int) -> list[dict[str, Tensor]]:
        values, position = [], 0
        while position < len(self.groups):
            try:
                found = self._step_group(self.groups[position], number)
            except torch.OutOfMemoryError:
                if len(self.groups[position].labels) == 1 or self.settings.norm == "batch":
                    raise
                found = None
            if found is None:  # out of the handler, whose traceback would keep the tensors alive
                self._halve(position)
                continue
            values.append(found)
            position += 1
        return values

    def _in_threads(self, number: int) -> list[dict[str, Tensor]]:
        if self._threads is None:
            self._threads = ClassThreads()
        return self._threads.map(lambda group: self._step_group(group, number), self.groups)

    def _step_group(self, group: ClassGroup, number: int) -> dict[str, Tensor]:
        if group.done > self.iteration:
            return group.values  # moved before the iteration was interrupted
        synthetic, values = self.losses(group, number)
        loss = sum(term.weight * values[term.name].sum() for term in group.terms)
        (gradient,) = torch.autograd.grad(loss, synthetic)
        if self._pixels is not None:
            gradient = gradient * self._pixels.steepness
        rate = self.settings.lr_img * (synthetic.shape[1] if self.settings.lr_times_images else 1)
        # New tensors, put in place at once: whenever Ctrl-C comes, a group has moved or it has not.
        velocity = torch.add(gradient, group.velocity, alpha=self.settings.momentum_img)
        moved = torch.sub(synthetic.detach(), velocity, alpha=rate)
        if self._pixels is not None:
            moved = moved.clamp(self._pixels.low, self._pixels.high)
        values = {name: value.detach() for name, value in values.items()}
        group.move(moved, velocity, self.iteration + 1, values)
        return values

    def losses(self, group: ClassGroup, number: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The terms of a group under the network that is at hand.

        Args:
            group: one of :attr:`groups`.
            number: of the network, by which real images and augmentation are drawn.

        Returns:
            synthetic images (classes, n, c, h, w) that gradients flow into, and the unweighted losses by name,
            (classes,) each.
        """
        if group.block != number // BLOCK:
            group.prepare(number // BLOCK, self.seed, self.strategy, self._helper)
        within = number % BLOCK
        if group.drawn_for != number:
            with torch.no_grad():
                pixels = group.real[group.rows[within].flatten()].to(self.device, non_blocking=True)
                images = self.real.normalise(pixels)
                features = self._features(images.unflatten(0, (len(group.labels), -1)), group, within)
                group.statistics = [term.targets(features) for term in group.terms]
            group.drawn_for = number
        synthetic = group.synthetic.detach().requires_grad_()
        features = self._features(self.seen(synthetic), group, within)
        values = {
            term.name: term.loss(real, term.statistics(features), features)
            for term, real in zip(group.terms, group.statistics)
        }
        return synthetic, values

    def _halve(self, position: int) -> None:
        """Try again with less at once; nothing of the group has changed in the iteration that failed."""
        group = self.groups[position]
        if not self._halved:
            logger.warning("out of memory with %d classes at once; going on with half as many", len(group.labels))
        self._halved = True
        halves = group.halves()
        for half in halves:
            half.terms = self.terms(half.labels, half.synthetic.shape[1])
        self.groups[position : position + 1] = halves
        del group
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _features(self, images: Tensor, group: ClassGroup, within: int) -> Features:
        """Features of (classes, n, c, h, w) images after the group's augmentation."""
        images = augment_classes(images, group.draws[within], self.strategy)
        return self.forward(images, group.maps_at, group.moments_at)._replace(images=images)

    # ------------------------------------------------------------------ what a run tells

    def after_step(self, values: dict[str, Tensor]) -> None:
        """A row of the record, now and then."""
        self.add_row(values)

    def chosen(self) -> dict[str, Any]:
        """What was measured or fell back on the spot, beside the settings that say the same."""
        how = self.execution
        return {
            "kernels": how.kernels,
            "layout": how.layout,
            "parallel": how.parallel,
            "precision": self.settings.precision,
            "classes_at_once": max(len(group.labels) for group in self.groups),
            **self._about_encoders(),
        }

    def _about_encoders(self) -> dict[str, Any]:
        """What their training took, and how many of them had been trained before."""
        if not isinstance(self.networks, TrainedNetworks):
            return {}
        return {"encoder_seconds": round(self.networks.seconds, 3), "encoders_found": self.networks.found}

    def close(self) -> None:
        """Let the threads of the classes end; a further step starts new ones."""
        if self._threads is not None:
            self._threads.close()
            self._threads = None

    # ------------------------------------------------------------------ saving and going on

    def state_dict(self) -> dict[str, Any]:
        """Images, velocity, iteration and record: with the same inputs they continue an unbroken run.

        In the middle of an iteration it is the state before that iteration.
        """
        tensors = {}
        for group in self.groups:
            synthetic, velocity = group.at(self.iteration)
            for i, label in enumerate(group.labels):
                tensors[f"{label}.image"] = synthetic[i].detach().clone()
                tensors[f"{label}.velocity"] = velocity[i].clone()
        state = {"iteration": self.iteration, "record": list(self.record), "tensors": tensors}
        return {**state, "networks": self.networks.state_dict(self.iteration // self.settings.network_reuse)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was taken.

        Raises:
            ValueError: a class is missing or has another shape; nothing is changed then.
        """
        found = []
        for group in self.groups:
            pair = []
            for kind in ("image", "velocity"):
                parts = [state["tensors"].get(f"{label}.{kind}") for label in group.labels]
                for label, part, like in zip(group.labels, parts, group.synthetic):
                    if part is None or part.shape != like.shape:
                        shape = tuple(like.shape)
                        raise ValueError(f"the state does not fit: class {label} has no {kind} of {shape}")
                pair.append(torch.stack(parts).to(self.device))
            found.append(pair)
        self.networks.load_state_dict(state["networks"])
        for group, (synthetic, velocity) in zip(self.groups, found):
            group.move(synthetic, velocity, state["iteration"], {})
            group.drawn_for = -1
        self.iteration, self.record = state["iteration"], list(state["record"])

    # ------------------------------------------------------------------ setting up

    def _make_groups(self) -> list[ClassGroup]:
        s, groups = self.settings, []
        for alike in equal_groups(
            self.real, self.counts, s.real_batch, s.init, self.seed, self.device, self._resident(), s.tiles
        ):
            count, shown = alike.synthetic.shape[1], self.seen(alike.synthetic[:1]).shape[1]
            size = self._classes_at_once(alike.batch, shown, len(alike.labels))
            for start in range(0, len(alike.labels), size):
                group = alike.part(slice(start, start + size))
                group.terms = self.terms(group.labels, count)
                groups.append(group)
        return groups

    def _pixel_space(self) -> _PixelSpace:
        if self.real.normalization is None:
            raise ValueError(
                "image_space pixels needs to know the pixels: give uint8 images with their normalization, or take "
                "image_space normalised"
            )
        ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, self.real.shape[0], 1, 1)
        low, high = self.real.normalization.apply(ends).to(self.device)
        return _PixelSpace(low, high, (high - low).square())

    def _resident(self) -> bool:
        """Whether the real images have room on the device beside the work; ImageNet's 16 GB may not."""
        if self.device.type != "cuda":
            return self.device.type != "cpu"  # on a CPU they are where they are: nothing to copy
        free, _ = torch.cuda.mem_get_info(self.device)
        return self.real.images.numel() * self.real.images.element_size() < RESIDENT_SHARE * free

    def _classes_at_once(self, batch: int, count: int, classes: int) -> int:
        if self.settings.norm == "batch":
            return classes  # batch statistics mix the classes (DM's batch-norm path)
        if self.execution.classes_at_once is not None:
            return self.execution.classes_at_once
        if self.device.type != "cuda":
            return classes
        free, _ = torch.cuda.mem_get_info(self.device)
        # Maps saved for the backward pass: about eight for each block of the network, the first being the largest.
        map_bytes = 4 * self.settings.width * self.real.shape[1] ** 2
        return max(1, min(classes, int(0.5 * free / (map_bytes * (4 * batch + 12 * count)))))
