"""A planned class-incremental experiment: what comes when, what is asked of the memory, what is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from clreplay.condensation import RealImages
from clreplay.condensation.configured import ConfiguredMethod
from clreplay.data import Dataset, ImageSet
from clreplay.incremental.class_steps import step_sizes
from clreplay.incremental.settings import ContinualSettings
from clreplay.incremental.settings_file import CLASS_NAMES, FINGERPRINT
from clreplay.memory.class_cache import ClassCache
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.networks import ConvNet
from clreplay.recipes.recipe import Recipe
from clreplay.runtime.seeding import key_seed
from clreplay.training.settings import TrainingSettings

SAMPLE = 64
"""Images from which the bytes of a coded one are estimated."""


@dataclass(frozen=True, eq=False)
class ExperimentPlan:
    """An experiment with every choice made and every input checked; see :func:`.plan.plan_experiment`."""

    settings: ContinualSettings
    data: Dataset
    recipes: list[Recipe]
    methods: dict[str, ConfiguredMethod]
    learner: TrainingSettings
    device: torch.device

    kind = "class-incremental"
    returning = "refuse"
    """What becomes of classes that come again, see :data:`clreplay.condensation.intake.RETURNING`."""

    def classes(self, order: int) -> list[list[int]]:
        """The classes of every step under one class order."""
        if self.settings.class_order is None:
            permutation = np.random.RandomState(order).permutation(self.data.num_classes).tolist()
        else:
            permutation = list(self.settings.class_order)
        ends = accumulate(self.sizes)
        return [permutation[end - size : end] for size, end in zip(self.sizes, ends)]

    @property
    def sizes(self) -> list[int]:
        """Classes of every step."""
        return step_sizes(self.data.num_classes, self.settings.steps, self.settings.first_step, self.data.name)

    def seen_at(self, step: int) -> int:
        """Classes seen after a step (0-based)."""
        return sum(self.sizes[: step + 1])

    def images_at(self, step: int) -> int:
        """Images stored after a step (0-based) of the first class order; a class keeps no more than it has."""
        there = torch.bincount(self.data.train.labels, minlength=self.data.num_classes).tolist()
        arrived = [label for classes in self.classes(0)[: step + 1] for label in classes]
        return sum(min(quota, there[label]) for label, quota in zip(arrived, self.quotas(len(arrived))))

    def counts_at(self, step: int) -> dict[int, int]:
        """Stored images to make of every class that comes at a step (0-based) of the first class order."""
        classes = self.classes(0)[step]
        return dict(zip(sorted(classes), self.quotas(self.seen_at(step))[-len(classes) :]))

    def tested_at(self, step: int) -> float:
        """Test images after a step (0-based), about."""
        return len(self.data.test) / self.data.num_classes * self.seen_at(step)

    def test_sets(self, classes: list[int], step: int) -> list[ImageSet]:
        """What networks are tested on after a step (0-based): of classes seen, one set; of domains, one each."""
        return [self.data.test.of_classes(classes)]

    @property
    def train_images(self) -> int:
        """Real images of all steps."""
        return len(self.data.train)

    def holds(self, memory: ReplayMemory, order: int, step: int) -> bool:
        """Whether a memory has what a step (0-based) brought."""
        return all(label in memory.slots for label in self.classes(order)[step])

    @property
    def shrinks(self) -> bool:
        """Whether what is stored shrinks as steps come, so that no earlier step can be repeated."""
        return self.settings.budget.mem_size is not None or self.settings.budget.mem_bytes is not None

    def quotas(self, classes: int) -> list[int]:
        """Stored images of every class when so many are in memory; of a budget in bytes, about so many."""
        budget = self.settings.budget
        if not budget.in_bytes:
            return budget.quotas(classes)
        return [self._expected[classes]] * classes

    @cached_property
    def _expected(self) -> dict[int, int]:
        """Of a budget in bytes, by the number of classes after a step, about how many images each of them has.

        Estimated once, from some training images: to code them takes a while.
        """
        s, images = self.settings, self.data.train.images
        sample = images[torch.linspace(0, len(images) - 1, min(SAMPLE, len(images))).long()]
        memory, fewest = s.memory(self.data.normalization), int(torch.bincount(self.data.train.labels).min())
        seen = [self.seen_at(step) for step in range(s.steps)]
        return {n: min(memory.expected_images(s.budget.share(n), sample), fewest) for n in seen}

    def new_memory(self, recipe: Recipe, order: int) -> ReplayMemory:
        """An empty memory of a recipe under one class order."""
        memory = self.settings.memory(self.data.normalization, self.data.num_classes)
        memory.info = {
            "dataset": self.data.name,
            FINGERPRINT: self.data.fingerprint,
            CLASS_NAMES: list(self.data.class_names),
            "method": recipe.name,
            "class_order": order,
            "condense_seconds": [],
        }
        return memory

    def real_images(self, classes: list[int], step: int = 0) -> RealImages:
        """The training images of some classes that come at a step (0-based), as condensers take them."""
        part = self.data.train.of_classes(classes)
        return RealImages(part.images, part.labels, self.data.normalization)

    def network(self) -> torch.nn.Module:
        """A learner with an output for every class of the data set."""
        network = self.learner.build_for(self.data.num_classes, self.data.train.images.shape[1:])
        return network.fuse() if isinstance(network, ConvNet) and self.device.type == "cpu" else network

    def cache(self) -> ClassCache | None:
        """The store of condensed classes, to find them again."""
        return None if self.settings.cache is None else ClassCache(self.settings.cache)

    def seed_of(self, recipe: Recipe, order: int) -> int:
        """Seed of a memory: apart from the class order, except for memories that draw anew with each."""
        redraw = getattr(self.methods[recipe.name].settings, "redraw_per_order", False)
        return key_seed(self.settings.seed, "order", order) if redraw else self.settings.seed

    def training_seed(self, order: int, network: int) -> int:
        """Seed of one network's weights, shuffling and augmentation."""
        return key_seed(self.settings.seed, "learner", order, network)

    def with_execution(self, before: Mapping[str, Mapping[str, Any]]) -> ExperimentPlan:
        """The same with everything measured that settings leave to the machine.

        Args:
            before: what was chosen before, by memory; a run that goes on keeps to it.
        """

        def first_step() -> tuple[RealImages, dict[int, int]]:
            real = self.real_images(self.classes(0)[0])
            quotas = zip(real.classes, self.quotas(len(real.classes)))
            return real, {label: min(quota, real.count(label)) for label, quota in quotas}

        methods = {
            name: method.resume(before.get(name, {}), self.device).with_execution(first_step, self.device)
            for name, method in self.methods.items()
        }
        return replace(self, methods=methods)

    def chosen(self, fixed: ExperimentPlan) -> dict[str, dict[str, Any]]:
        """What :meth:`with_execution` chose, by memory."""
        chosen = {name: fixed.methods[name].chosen_since(method) for name, method in self.methods.items()}
        return {name: values for name, values in chosen.items() if values}

    def as_settings(self) -> dict[str, Any]:
        """What ``settings.yaml`` records."""
        s = self.settings
        return {
            "experiment": self.kind,
            "dataset": s.dataset,
            **({"channels": s.channels} if s.channels else {}),
            "steps": s.steps,
            **({} if s.first_step is None else {"first_step": s.first_step}),
            **({} if s.class_order is None else {"class_order": list(s.class_order)}),
            "images_per_class": s.images_per_class,
            "mem_size": s.mem_size,
            **{name: getattr(s, name) for name in ("bytes_per_class", "mem_bytes") if getattr(s, name) is not None},
            "store": s.store,
            **{name: getattr(s, name) for name in ("quality", "pixels") if getattr(s, name) is not None},
            "class_orders": s.class_orders,
            "networks": s.networks,
            "seed": s.seed,
            "preset": s.preset,
            "host": s.host,
            **({} if s.protocol == "common" else {"protocol": s.protocol}),
            "device": self.device.type,
            "memories": {r.name: self._memory_as_settings(r) for r in self.recipes},
            "training": asdict(self.learner),
            FINGERPRINT: self.data.fingerprint,
            CLASS_NAMES: list(self.data.class_names),
        }

    def _memory_as_settings(self, recipe: Recipe) -> dict[str, Any]:
        code = {"code": recipe.method.code} if recipe.method.code else {}  # a hash: the user's own code may change
        settings = self.methods[recipe.name].values()
        return {"label": recipe.label, "method": recipe.method.name, **code, "settings": settings}
