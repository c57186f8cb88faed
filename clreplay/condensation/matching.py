"""The distribution-matching engine: DM, DDM and every composition of their terms.

Each iteration draws a random network, takes a real batch of every class, augments it and the class's
synthetic images with one shared draw, and moves the synthetic images down the gradient of the terms.
The losses separate over classes, so classes are worked on in groups of any size with the same outcome
(to float rounding): one at a time suits a CPU's cache, many at a time fill a GPU.
"""

from __future__ import annotations

import json
import logging
import pickle
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clreplay.allocator import keep_freed_memory
from clreplay.augment import augment_classes, parse_strategy
from clreplay.chance import BLOCK, generator
from clreplay.condensation.group import Group
from clreplay.condensation.matching_settings import MatchingSettings, terms_of
from clreplay.condensation.methods import Condensed, Progress, register
from clreplay.condensation.real import RealImages
from clreplay.files import replacing
from clreplay.losses.features import Features
from clreplay.networks import FlatParameters

logger = logging.getLogger(__name__)
RECORD_ROWS = 200
SECONDS_BETWEEN_SAVES = 180.0


class Matching:
    """One condensation in progress: all that it is, and how it goes one step further.

    The chance of iteration i is a function of (seed, class key, i), so the state is only the synthetic
    images, their velocity, the iteration and the record.

    Args:
        real: the experience.
        counts: synthetic images of every class.
        settings: see :class:`MatchingSettings`.
        seed: seed of all chance.
        device: where the work is done.

    Raises:
        ValueError: a class has fewer real images than are asked of it.
    """

    def __init__(
        self,
        real: RealImages,
        counts: dict[int, int],
        settings: MatchingSettings,
        seed: int,
        device: torch.device,
    ) -> None:
        real.check_counts(counts)
        self.real, self.settings, self.seed, self.device = real, settings, seed, torch.device(device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.strategy = parse_strategy(settings.siamese_augment)
        # One output, whatever the number of classes: only the features are used, and the size of the buffer
        # decides which number of a GPU's draw goes to which weight.
        self.network = settings.build(1, real.shape[0], real.shape[1]).to(self.device)
        self.network.train()  # batch norm, where chosen, uses the batch's own statistics
        self.parameters = FlatParameters(self.network)
        self.counts = {label: counts[label] for label in real.classes}
        self.iteration = 0
        self.record: list[dict[str, Any]] = []
        self.groups = self._make_groups(counts)
        self._halved = False

    # ------------------------------------------------------------------ one iteration

    def step(self) -> dict[str, Tensor]:
        """One image update of every class.

        Returns:
            The terms' unweighted values, mean over classes, still on the device.
        """
        number = self.iteration // self.settings.network_reuse
        chance = generator(self.seed, "network", number, device=self.device)
        if self.groups[0].drawn_for != number:
            self.parameters.redraw(chance)
        totals: dict[str, Tensor] = {}
        position = 0
        while position < len(self.groups):
            try:
                values = self._step_group(self.groups[position], number)
            except torch.OutOfMemoryError:
                if len(self.groups[position].labels) == 1 or self.settings.norm == "batch":
                    raise
                values = None
            if values is None:  # out of the handler, whose traceback would keep the tensors alive
                self._halve(position)
                continue
            for name, value in values.items():
                totals[name] = totals.get(name, 0) + value.sum()
            position += 1
        self.iteration += 1
        return {name: total / len(self.real.classes) for name, total in totals.items()}

    def _step_group(self, group: Group, number: int) -> dict[str, Tensor]:
        if group.block != number // BLOCK:
            group.prepare(number // BLOCK, self.seed, self.strategy)
        within = number % BLOCK
        if group.drawn_for != number:
            with torch.no_grad():
                images = self.real.normalise(group.real[group.rows[within].flatten()])
                features = self._features(images.unflatten(0, (len(group.labels), -1)), group, within)
                group.statistics = [term.statistics(features) for term in group.terms]
            group.drawn_for = number
        synthetic = group.synthetic.requires_grad_()
        features = self._features(synthetic, group, within)
        values = {
            term.name: term.loss(real, term.statistics(features), features)
            for term, real in zip(group.terms, group.statistics)
        }
        loss = sum(term.weight * values[term.name].sum() for term in group.terms)
        (gradient,) = torch.autograd.grad(loss, synthetic)
        group.synthetic = synthetic.detach()
        group.velocity.mul_(self.settings.momentum_img).add_(gradient)
        group.synthetic.sub_(group.velocity, alpha=self.settings.lr_img)
        return {name: value.detach() for name, value in values.items()}

    def _halve(self, position: int) -> None:
        """Try again with less at once; nothing of the group has changed in the iteration that failed."""
        group = self.groups[position]
        if not self._halved:
            logger.warning("out of memory with %d classes at once; going on with half as many", len(group.labels))
        self._halved = True
        self.groups[position : position + 1] = group.halves()
        del group
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _features(self, images: Tensor, group: Group, within: int) -> Features:
        """Features of (classes, n, c, h, w) images after the group's augmentation."""
        images = augment_classes(images, group.draws[within], self.strategy)
        low = self.settings.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            embedding, taps = self.network.features(images.flatten(0, 1))
        if low:  # statistics and losses stay in single precision
            embedding, taps = embedding.float(), [tap.float() for tap in taps]
        return Features.of(len(images), embedding, taps)

    # ------------------------------------------------------------------ the whole way

    def run(self, progress: Progress | None = None, keep: Path | None = None) -> Condensed:
        """Go on to the last iteration.

        Args:
            progress: told after every iteration.
            keep: file to save the state in every few minutes and when interrupted. If it is there already
                and holds a state of this very condensation, that is where the run goes on from. It is
                removed at the end.

        Raises:
            FloatingPointError: a loss is no longer finite.
        """
        if keep is not None and keep.is_file():
            self._resume(keep)
        total = self.settings.iterations
        every = max(1, total // RECORD_ROWS)
        saved = time.monotonic()
        try:
            while self.iteration < total:
                values = self.step()
                # Reading a loss makes the host wait for the device: only now and then.
                if self.iteration % every == 0 or self.iteration in (1, total):
                    self._note(values)
                if progress is not None:
                    progress(self.iteration, total, "iterations")
                if keep is not None and time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                    self.save(keep)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            if keep is not None:
                self.save(keep)
            raise
        if keep is not None:
            keep.unlink(missing_ok=True)
        return Condensed(self.images(), self.record, {"classes_at_once": max(len(g.labels) for g in self.groups)})

    def images(self) -> dict[int, Tensor]:
        """The synthetic images of every class as they are now, (k, c, h, w)."""
        by_label = {label: group.synthetic[i] for group in self.groups for i, label in enumerate(group.labels)}
        return {label: by_label[label].detach().clone() for label in self.real.classes}

    def _note(self, values: dict[str, Tensor]) -> None:
        flat = torch.cat([group.synthetic.flatten() for group in self.groups])
        image_statistics = {"image_std": flat.std(), "image_min": flat.min(), "image_max": flat.max()}
        row = {name: float(value) for name, value in {**values, **image_statistics}.items()}
        if not all(abs(value) < float("inf") for value in row.values()):
            raise FloatingPointError(
                f"condensation diverged at iteration {self.iteration} ({row}); "
                f"lower lr_img (now {self.settings.lr_img})"
            )
        self.record.append({"iteration": self.iteration, **row})

    # ------------------------------------------------------------------ saving and going on

    def state_dict(self) -> dict[str, Any]:
        """Images, velocity, iteration and record: with the same inputs they continue an unbroken run."""
        velocity = {label: g.velocity[i] for g in self.groups for i, label in enumerate(g.labels)}
        tensors = {f"{label}.image": images for label, images in self.images().items()}
        tensors.update({f"{label}.velocity": v.clone() for label, v in velocity.items()})
        return {"iteration": self.iteration, "record": list(self.record), "tensors": tensors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was taken.

        Raises:
            ValueError: a class is missing or has another shape; nothing is changed then.
        """
        places = {}
        for group in self.groups:
            for name, target in (("image", group.synthetic), ("velocity", group.velocity)):
                places.update({f"{label}.{name}": target[i] for i, label in enumerate(group.labels)})
        for name, place in places.items():
            saved = state["tensors"].get(name)
            if saved is None or saved.shape != place.shape:
                label, kind = name.split(".")
                raise ValueError(f"the state does not fit: class {label} has no {kind} of {tuple(place.shape)}")
        with torch.no_grad():
            for name, place in places.items():
                place.copy_(state["tensors"][name])
        for group in self.groups:
            group.drawn_for = -1
        self.iteration, self.record = state["iteration"], list(state["record"])

    def save(self, path: Path) -> None:
        """Write the state; a file that was there is replaced only once the new one is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            torch.save({"what": self._identity(), **self.state_dict()}, partial)

    def _resume(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"{path} is truncated or not a condensation in progress; delete it to start anew"
            ) from error
        if state.get("what") == self._identity():
            self.load_state_dict(state)
        else:
            logger.warning("%s is of another condensation; starting anew", path)

    def _identity(self) -> str:
        """Names this condensation: classes, counts, settings, seed and kind of device."""
        classes = [[self.real.keys[label], count] for label, count in self.counts.items()]
        return json.dumps([classes, asdict(self.settings), self.seed, self.device.type])

    # ------------------------------------------------------------------ setting up

    def _make_groups(self, counts: dict[int, int]) -> list[Group]:
        alike: dict[tuple[int, int], list[int]] = {}
        for label in self.real.classes:
            batch = min(self.settings.real_batch, self.real.count(label))
            alike.setdefault((batch, counts[label]), []).append(label)
        groups = []
        for (batch, count), labels in alike.items():
            size = self._classes_at_once(batch, count, len(labels))
            groups += [self._group(labels[i : i + size], batch, count) for i in range(0, len(labels), size)]
        return groups

    def _classes_at_once(self, batch: int, count: int, classes: int) -> int:
        if self.settings.norm == "batch":
            return classes  # batch statistics mix the classes (DM's batch-norm path)
        if self.settings.classes_at_once is not None:
            return self.settings.classes_at_once
        if self.device.type == "cpu":
            return 1  # a class at a time stays in the cache
        if self.device.type != "cuda":
            return classes
        free, _ = torch.cuda.mem_get_info(self.device)
        # Maps kept for the backward pass: about eight a block of the network, the first being the largest.
        map_bytes = 4 * self.settings.width * self.real.shape[1] ** 2
        return max(1, min(classes, int(0.5 * free / (map_bytes * (4 * batch + 12 * count)))))

    def _group(self, labels: list[int], batch: int, count: int) -> Group:
        sizes = [self.real.count(label) for label in labels]
        starts = torch.tensor([0, *sizes[:-1]]).cumsum(0)[:, None]
        synthetic = torch.stack([self._initial(label, count) for label in labels]).to(self.device)
        return Group(
            labels=labels,
            keys=[self.real.keys[label] for label in labels],
            real=torch.cat([self.real.raw(label) for label in labels]).to(self.device),
            starts=starts,
            sizes=sizes,
            batch=batch,
            synthetic=synthetic,
            velocity=torch.zeros_like(synthetic),
            terms=terms_of(self.settings, count),
        )

    def _initial(self, label: int, count: int) -> Tensor:
        chance = generator(self.seed, self.real.keys[label], "init")
        if self.settings.init == "noise":
            return torch.randn(count, *self.real.shape, generator=chance)
        rows = torch.randperm(self.real.count(label), generator=chance)[:count]
        return self.real.normalise(self.real.raw(label)[rows])


# Batch statistics mix the classes; everything else of a matching loss separates over them.
@register("matching", MatchingSettings, separable=lambda settings: settings.norm != "batch")
def condense_by_matching(
    real: RealImages,
    counts: dict[int, int],
    settings: MatchingSettings,
    *,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
    keep: Path | None = None,
) -> Condensed:
    """Distribution matching with the terms that the settings compose."""
    return Matching(real, counts, settings, seed, device).run(progress, keep)
