"""What a user may give a plugin or a buffer in several ways, made into one thing, or refused."""

from __future__ import annotations

import logging
import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from clreplay.condensation import ConfiguredMethod
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.recipes.recipe import Recipe, load_recipe

logger = logging.getLogger(__name__)
LONG_ON_A_CPU = 5_000


def given_memory(
    memory: Any, budget: Mapping[str, int | None], store: str | None, quality: int | str | None, pixels: int | None
) -> ReplayMemory:
    """A memory, the path of its file, or None with a budget and a store for a new one.

    Raises:
        ValueError: it is something else, or a memory comes with a budget or a store of its own.
    """
    if memory is None:
        given: dict[str, Any] = dict(budget)
        return ReplayMemory(**given, store=store or "uint8", quality=quality, pixels=pixels)
    if not isinstance(memory, (ReplayMemory, str, Path)):
        raise ValueError(f"memory must be a ReplayMemory or the path of its file, got {type(memory).__name__}")
    if any(given is not None for given in (*budget.values(), store, quality, pixels)):
        raise ValueError(
            f"memory brings its own budget and store; leave {', '.join(budget)}, store, quality and pixels out"
        )
    return memory if isinstance(memory, ReplayMemory) else ReplayMemory.load(memory)


def given_method(
    condenser: Any, preset: str, settings: dict[str, Any], where: tuple[str | None, int | None]
) -> ConfiguredMethod:
    """A configured method, a callable, a recipe, its name or its path.

    Args:
        condenser: one of these.
        preset, settings: of a recipe; a callable takes the settings as they are.
        where: the data set and the number of images a class, as far as they are known.

    Raises:
        ValueError: there is no such recipe or setting, or a configured method comes with settings.
    """
    if isinstance(condenser, ConfiguredMethod):
        if settings:
            raise ValueError(f"a configured method brings its settings; leave {', '.join(settings)} out")
        return condenser
    if callable(condenser):
        return ConfiguredMethod.of_callable(condenser, settings)
    recipe = condenser if isinstance(condenser, Recipe) else load_recipe(condenser)
    return recipe.configured(preset, settings, *where)


def checked_seed(name: str, seed: Any) -> int:
    """A seed as an int.

    Raises:
        ValueError: it is no integer.
    """
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool):
        raise ValueError(f"{name} must be an integer, got {seed!r}")
    return int(seed)


def checked_reinitialize(reinitialize: Any) -> None:
    """A function, or nothing.

    Raises:
        ValueError: it is something else.
    """
    if reinitialize is not None and not callable(reinitialize):
        raise ValueError(
            f"reinitialize must be a function that redraws the model it is given, got {reinitialize!r}; leave it "
            "out for every module's reset_parameters, or pass lambda model: None to go on with the same weights"
        )


def warn_of_long_work(configured: ConfiguredMethod, device: torch.device) -> None:
    """Say so where a CPU is asked for what is meant for a GPU."""
    iterations = getattr(configured.settings, "iterations", 0)
    if device.type == "cpu" and iterations > LONG_ON_A_CPU:
        logger.warning(
            "%s with %d iterations is meant for a GPU and takes very long on a CPU; "
            "pass preset='cpu' or fewer iterations=",
            configured.name,
            iterations,
        )
