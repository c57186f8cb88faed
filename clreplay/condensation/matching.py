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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clreplay.augment import DSA_STRATEGY, Strategy, augment_classes, draw, parse_strategy
from clreplay.chance import BLOCK, generator
from clreplay.condensation.methods import Condensed, Progress, register
from clreplay.condensation.real import RealImages
from clreplay.losses import CorrelationMatching, IntraClassDiversity, MeanMatching, MomentMatching
from clreplay.losses.features import Features
from clreplay.networks import FlatParameters
from clreplay.training import NetworkSettings

logger = logging.getLogger(__name__)
RECORD_ROWS = 200
SECONDS_BETWEEN_SAVES = 180.0


@dataclass(frozen=True)
class MatchingSettings(NetworkSettings):
    """Settings of the matching engine. The defaults are DM's; a term of weight zero is not computed.

    Attributes:
        iterations: image updates, each with one network.
        lr_img, momentum_img: SGD on the images.
        real_batch: real images a class and iteration, without replacement; a smaller class is used whole.
        init: ``real`` starts from random real images of the class, ``noise`` from N(0, 1).
        siamese_augment: augmentation shared by real and synthetic images of a class, see :func:`clreplay.augment.parse_strategy`.
        network_reuse: iterations that share one network, its real batch and its augmentation; above 1 the
            statistics of the real side are computed once for all of them.
        mean_weight: of mean matching (L_MMD).
        style_weight: lambda, of style matching.
        alpha: share of moment matching within style matching (eq. 7).
        correlation: share of correlation matching within style matching, 1 in the paper.
        diversity_weight: beta, of intra-class diversity.
        sigma_of, spread, moment_channels: see :class:`clreplay.losses.MomentMatching`.
        gram_quarter: keep the factor 1/4 of eq. 6.
        style_layers: taps used by style matching; null takes all blocks.
        neighbours: k of the diversity term as a fraction of the images a class.
        diversity_reduction, detach_neighbours: see :func:`clreplay.losses.intra_class_diversity`.
        classes_at_once: classes worked on together; null chooses one on a CPU and many on a GPU. Results
            agree to float rounding.
    """

    iterations: int = 20_000
    lr_img: float = 1.0
    momentum_img: float = 0.5
    real_batch: int = 256
    init: str = "real"
    siamese_augment: str | None = DSA_STRATEGY
    network_reuse: int = 1
    mean_weight: float = 1.0
    style_weight: float = 0.0
    alpha: float = 1.0
    correlation: float = 1.0
    diversity_weight: float = 0.0
    sigma_of: str = "image"
    spread: str = "std"
    moment_channels: str = "mean"
    gram_quarter: bool = False
    style_layers: tuple[int, ...] | None = None
    neighbours: float = 0.2
    diversity_reduction: str = "mean"
    detach_neighbours: bool = False
    classes_at_once: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_strategy(self.siamese_augment, "siamese_augment")
        for name in ("iterations", "real_batch", "network_reuse", "classes_at_once"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.style_layers is not None and not self.style_layers:
            raise ValueError("style_layers must name at least one block (or be null for all), got an empty list")
        if self.lr_img <= 0:
            raise ValueError(f"lr_img must be positive, got {self.lr_img}")
        if not 0 <= self.momentum_img < 1:
            raise ValueError(f"momentum_img must be within [0, 1), got {self.momentum_img}")
        if not 0 < self.neighbours <= 1:
            raise ValueError(f"neighbours must be a fraction within (0, 1], got {self.neighbours}")
        for name in ("mean_weight", "style_weight", "alpha", "correlation", "diversity_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


_CHOICES = {
    "init": ("real", "noise"),
    "sigma_of": ("image", "mean_map"),
    "spread": ("std", "var"),
    "moment_channels": ("mean", "sum"),
    "diversity_reduction": ("mean", "sum"),
}


def terms_of(settings: MatchingSettings, images_per_class: int) -> list[Any]:
    """The terms that settings compose: L_MMD + lambda (alpha L_MM + L_CM) + beta L_ICD (DDM, eq. 11).

    Diversity does not apply at one image a class and is left out there (DDM, section 4.2).

    Raises:
        ValueError: no term is left.
    """
    s = settings
    style = (s.style_weight * s.alpha, s.style_weight * s.correlation)
    terms = [
        MeanMatching(s.mean_weight),
        MomentMatching(style[0], s.sigma_of, s.spread, s.moment_channels, s.style_layers),
        CorrelationMatching(style[1], s.gram_quarter, s.style_layers),
        IntraClassDiversity(s.diversity_weight, s.neighbours, s.diversity_reduction, s.detach_neighbours),
    ]
    kept = [term for term in terms if term.weight > 0 and not (term.name == "diversity" and images_per_class == 1)]
    if not kept:
        raise ValueError("every term has weight zero; give mean_weight, style_weight or diversity_weight")
    return kept


@dataclass
class _Group:
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
        for group in self.groups:
            for name, value in self._step_group(group, number).items():
                totals[name] = totals.get(name, 0) + value.sum()
        self.iteration += 1
        return {name: total / len(self.real.classes) for name, total in totals.items()}

    def _step_group(self, group: _Group, number: int) -> dict[str, Tensor]:
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

    def _features(self, images: Tensor, group: _Group, within: int) -> Features:
        """Features of (classes, n, c, h, w) images after the group's augmentation."""
        images = augment_classes(images, group.draws[within], self.strategy)
        return Features.of(len(images), *self.network.features(images.flatten(0, 1)))

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
                f"condensation diverged at iteration {self.iteration} ({row}); lower lr_img (now {self.settings.lr_img})"
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
        partial = path.with_name(path.name + ".partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.save({"what": self._identity(), **self.state_dict()}, partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _resume(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} is truncated or not a condensation in progress; delete it to start anew") from error
        if state.get("what") == self._identity():
            self.load_state_dict(state)
        else:
            logger.warning("%s is of another condensation; starting anew", path)

    def _identity(self) -> str:
        """Names this condensation: classes, counts, settings, seed and kind of device."""
        classes = [[self.real.keys[label], count] for label, count in self.counts.items()]
        return json.dumps([classes, asdict(self.settings), self.seed, self.device.type])

    # ------------------------------------------------------------------ setting up

    def _make_groups(self, counts: dict[int, int]) -> list[_Group]:
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

    def _group(self, labels: list[int], batch: int, count: int) -> _Group:
        sizes = [self.real.count(label) for label in labels]
        starts = torch.tensor([0, *sizes[:-1]]).cumsum(0)[:, None]
        synthetic = torch.stack([self._initial(label, count) for label in labels]).to(self.device)
        return _Group(
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
