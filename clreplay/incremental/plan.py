"""What a class-incremental experiment is, with every choice made and every input checked before any work."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clreplay.condensation import RealImages
from clreplay.condensation.configured import ConfiguredMethod
from clreplay.data import Dataset, load_dataset
from clreplay.incremental.class_steps import own_order, step_sizes
from clreplay.incremental.settings import HOSTS, PROTOCOLS, REPEATS, ContinualSettings
from clreplay.incremental.settings_file import CLASS_NAMES, FINGERPRINT
from clreplay.memory.budget import Budget
from clreplay.memory.class_cache import ClassCache
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.networks import ConvNet
from clreplay.recipes.overrides import split_overrides
from clreplay.recipes.presets import default_preset
from clreplay.recipes.recipe import (
    PRESETS,
    Recipe,
    RecipeError,
    idc_settings,
    load_recipe,
    training_settings,
)
from clreplay.runtime.device import default_device
from clreplay.runtime.seeding import key_seed
from clreplay.training.settings import TrainingSettings

SAMPLE = 64
"""Images from which the bytes of a coded one are estimated."""


@dataclass(frozen=True, eq=False)
class ExperimentPlan:
    """An experiment with every choice made and every input checked; see :func:`plan_experiment`."""

    settings: ContinualSettings
    data: Dataset
    recipes: list[Recipe]
    methods: dict[str, ConfiguredMethod]
    learner: TrainingSettings
    device: torch.device

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

    def real_images(self, classes: list[int]) -> RealImages:
        """The training images of some classes, as condensers take them."""
        part = self.data.train.of_classes(classes)
        return RealImages(part.images, part.labels, self.data.normalization)

    def network(self) -> torch.nn.Module:
        """A learner with an output for every class of the data set."""
        channels, size = self.data.train.images.shape[1:3]
        network = self.learner.build(self.data.num_classes, channels, size)
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
            "experiment": "class-incremental",
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


def plan_experiment(settings: ContinualSettings) -> ExperimentPlan:
    """Make every choice and check every input, before any work and before anything is written.

    Raises:
        ValueError: something does not fit; the message names the argument, its value and the cure.
        FileNotFoundError: the data set cannot be had.
    """
    device = default_device(settings.device)
    preset = settings.preset or default_preset(device)
    if preset not in PRESETS:
        raise RecipeError(f"preset must be auto, {', '.join(PRESETS)}, got {preset!r}")
    recipes = [load_recipe(name) for name in settings.memories]
    names = [recipe.name for recipe in recipes]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"memories must be one or more different names, got {', '.join(names) or 'none'}")
    learner, by_recipe = split_overrides(settings.overrides, recipes)
    orders, networks = REPEATS[preset]
    filled = replace(
        settings,
        preset=preset,
        host=_host(settings.host, settings.protocol),
        class_orders=_class_orders(settings, orders),
        networks=networks if settings.networks is None else settings.networks,
        images_per_class=settings.images_per_class if _budgets(settings) else 20,
    )
    for name in ("steps", "class_orders", "networks"):
        if getattr(filled, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(filled, name)}")
    memory = filled.memory()  # checked before the data is read
    where = (settings.dataset, filled.images_per_class)
    methods = {recipe.name: recipe.configured(preset, by_recipe[recipe.name], *where) for recipe in recipes}
    learned = (idc_settings if filled.protocol == "idc" else training_settings)(preset, learner, *where)
    data = load_dataset(settings.dataset, settings.data_root, channels=settings.channels)
    step_sizes(data.num_classes, filled.steps, filled.first_step, data.name)
    if filled.class_order is not None:
        filled = replace(filled, class_order=tuple(own_order(filled.class_order, data.class_names)))
    # By its name from here on: a folder's path says something on this machine only.
    filled = replace(filled, dataset=data.name)
    plan = ExperimentPlan(filled, data, recipes, methods, learned, device)
    _check_budget(plan)
    memory.check_channels(data.train.images.shape[1])
    _check_methods(plan)
    plan.network()  # a learner that does not fit the images is an error now
    return plan


def default_folder(plan: ExperimentPlan) -> Path:
    """``out/cifar100-5step-ddm-cpu``: one folder a line-up, data set, number of steps and preset."""
    s = plan.settings
    short = {"images_per_class": "ipc", "mem_size": "mem", "bytes_per_class": "bytes-a-class", "mem_bytes": "bytes"}
    name, value = s.budget.given
    budget = "" if (name, value) == ("images_per_class", 20) else f"-{short[name]}{value}"
    store = "" if s.store == "uint8" else f"-{s.store}{'' if s.quality is None else s.quality}"
    store += "" if s.pixels is None else f"-{s.pixels}px"
    names = "-".join(recipe.name for recipe in plan.recipes)
    protocol = "" if s.protocol == "common" else f"-{s.protocol}"
    steps = f"{s.steps}step{'' if s.first_step is None else f'-first{s.first_step}'}"
    if s.class_order is not None:
        steps += f"-order{key_seed(*s.class_order) % 16**6:06x}"
    return Path("out") / f"{s.dataset}-{steps}-{names}{budget}{store}{protocol}-{s.preset}"


def _class_orders(settings: ContinualSettings, usual: int) -> int:
    """How many; an order of one's own is one."""
    if settings.class_order is None:
        return usual if settings.class_orders is None else settings.class_orders
    if settings.class_orders not in (None, 1):
        raise ValueError(
            f"class_order is one order of your own and class_orders asks for {settings.class_orders}; give one of them"
        )
    return 1


def _budgets(settings: ContinualSettings) -> dict[str, int]:
    """Those that are given."""
    return {one.name: value for one in fields(Budget) if (value := getattr(settings, one.name)) is not None}


def _check_budget(plan: ExperimentPlan) -> None:
    """Of a number of images a class, some class must have as many; a budget in bytes must do for something.

    Classes that have fewer are kept whole, and so is everything while a total budget is larger than what has come.
    """
    s, sizes = plan.settings, torch.bincount(plan.data.train.labels, minlength=plan.data.num_classes)
    if s.budget.in_bytes:
        plan.settings.memory(plan.data.normalization).check_share(
            plan.data.num_classes, plan.quotas(plan.data.num_classes)
        )
    elif s.images_per_class is not None:
        each = max(method.real_images_each() for method in plan.methods.values())
        most, asked = int(sizes.max()), s.images_per_class * each
        if asked > most:
            raise ValueError(
                f"images_per_class is {s.images_per_class}, so a class needs {asked} images, but no class of "
                f"{plan.data.name} has more than {most}; take at most {most // each}"
            )


def _check_methods(plan: ExperimentPlan) -> None:
    """Every memory must be able to make what every step asks of it; steps differ under a total budget."""
    s, shape = plan.settings, tuple(plan.data.train.images.shape[1:])
    for step, classes in enumerate(plan.classes(0), start=1):
        quotas = plan.quotas(plan.seen_at(step - 1))[-len(classes) :]
        counts = dict(zip(sorted(classes), quotas))
        for recipe in plan.recipes:
            who = f"memory {recipe.name} at step {step} of {s.steps}"
            plan.methods[recipe.name].check(counts, shape, who)


def _host(wanted: str | None, protocol: str) -> str:
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    installed = importlib.util.find_spec("avalanche") is not None
    if wanted is None:
        return "avalanche" if installed and not _no_room_for_avalanche() and protocol == "common" else "none"
    if wanted == "avalanche" and protocol != "common":
        raise ValueError(
            f"protocol {protocol!r} mixes the labels of two images, which no Avalanche criterion takes; use --host none"
        )
    if wanted not in HOSTS:
        raise ValueError(f"host must be one of {', '.join(HOSTS)}, got {wanted!r}")
    if wanted == "avalanche" and not installed:
        raise ValueError("host 'avalanche' needs Avalanche: pip install avalanche-lib, or use --host none")
    if wanted == "avalanche" and (why := _no_room_for_avalanche()):
        raise ValueError(f"host 'avalanche': {why}; set HOME to a folder of yours, or use --host none")
    return wanted


def _no_room_for_avalanche() -> str | None:
    """Why Avalanche could not be imported here: it writes a file of settings into the home folder; None if it could."""
    home = os.path.expanduser("~")
    if not os.path.isabs(home):  # Avalanche would make a folder of the name ~ wherever it is
        return "Avalanche keeps its settings in the home folder, and there is none"
    own = os.path.join(home, ".avalanche")
    if os.path.isfile(os.path.join(own, "config.json")):
        return None
    place = own if os.path.isdir(own) else home
    return None if os.access(place, os.W_OK) else f"Avalanche keeps its settings in {own}, which cannot be written"
