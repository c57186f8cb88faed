"""What an experiment is, with every choice made and every input checked before any work."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import fields, replace
from pathlib import Path

import torch

from clreplay.data import load_dataset
from clreplay.data.domains import load_domains
from clreplay.incremental.class_steps import own_order, step_sizes
from clreplay.incremental.domain_plan import DomainPlan, check_steps_of_domains
from clreplay.incremental.experiment_plan import ExperimentPlan
from clreplay.incremental.settings import HOSTS, PROTOCOLS, REPEATS, ContinualSettings
from clreplay.memory.budget import Budget
from clreplay.recipes.overrides import split_overrides
from clreplay.recipes.presets import default_preset
from clreplay.recipes.recipe import PRESETS, RecipeError, idc_settings, load_recipe, training_settings
from clreplay.runtime.device import default_device
from clreplay.runtime.seeding import key_seed

__all__ = ["DomainPlan", "ExperimentPlan", "default_folder", "plan_experiment"]


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
    domains = None if settings.domains is None else check_steps_of_domains(settings)
    filled = replace(
        settings,
        **({} if domains is None else {"domains": tuple(domains), "steps": len(domains)}),
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
    where = (settings.dataset or (domains or [""])[0], filled.images_per_class)
    methods = {recipe.name: recipe.configured(preset, by_recipe[recipe.name], *where) for recipe in recipes}
    learned = (idc_settings if filled.protocol == "idc" else training_settings)(preset, learner, *where)
    if domains is None:
        data = load_dataset(settings.dataset, settings.data_root, channels=settings.channels)
        step_sizes(data.num_classes, filled.steps, filled.first_step, data.name)
    else:
        data = load_domains(domains, settings.dataset or None, settings.data_root, channels=settings.channels)
        filled = replace(filled, domains=data.domain_names)
    if filled.class_order is not None:
        filled = replace(filled, class_order=tuple(own_order(filled.class_order, data.class_names)))
    # By its name from here on: a folder's path says something on this machine only.
    filled = replace(filled, dataset=data.name)
    kind = ExperimentPlan if domains is None else DomainPlan
    plan = kind(filled, data, recipes, methods, learned, device)
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
    if s.domains is not None:
        steps = f"{s.steps}domains-{key_seed(*s.domains) % 16**6:06x}"
        return Path("out") / f"{s.dataset}-{steps}-{names}{budget}{store}{protocol}-{s.preset}"
    steps = f"{s.steps}step{'' if s.first_step is None else f'-first{s.first_step}'}"
    if s.class_order is not None:
        steps += f"-order{key_seed(*s.class_order) % 16**6:06x}"
    return Path("out") / f"{s.dataset}-{steps}-{names}{budget}{store}{protocol}-{s.preset}"


def _class_orders(settings: ContinualSettings, usual: int) -> int:
    """How many; an order of one's own is one, and domains come as they are given."""
    if settings.domains is not None:
        return 1
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
    if isinstance(plan, DomainPlan):
        plan.check_shares()


def _check_methods(plan: ExperimentPlan) -> None:
    """Every memory must be able to make what every step asks of it; steps differ under a total budget."""
    s, shape = plan.settings, tuple(plan.data.train.images.shape[1:])
    for step in range(s.steps):
        counts = plan.counts_at(step)
        for recipe in plan.recipes:
            who = f"memory {recipe.name} at step {step + 1} of {s.steps}"
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
