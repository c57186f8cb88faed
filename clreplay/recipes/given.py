"""What a user may give a plugin or a buffer in several ways, made into one thing, or refused."""

from __future__ import annotations

import logging
import numbers
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from clreplay.condensation import ConfiguredMethod
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.recipes.presets import Unasked
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


def loaded_method(method: Any, settings: Mapping[str, Any], function: Callable[..., Any]) -> Any:
    """A method as it was given, but the recipe in place of its name or path.

    Args:
        method: whatever a person gave.
        settings: keywords that came with it; of a recipe's, misspelt arguments are told from settings.
        function: whose arguments those are.

    Raises:
        RecipeError: there is no such recipe, or a keyword is no setting and nearly an argument.
    """
    if isinstance(method, (str, Path)):
        method = load_recipe(method)
    if isinstance(method, Recipe):
        method.check_keywords(settings, function)
    return method


def given_method(
    method: Any, asked: str | None, chosen: str, settings: dict[str, Any], where: tuple[str | None, int | None]
) -> tuple[ConfiguredMethod, Unasked | None]:
    """A configured method, and the preset if nobody asked for it, of what :func:`loaded_method` gave.

    Args:
        method: a configured method, a recipe, or a callable.
        asked, chosen: presets of a recipe.
        settings: of a recipe; a callable takes them as they are.
        where: the data set and the number of images a class, as far as they are known.

    Raises:
        ValueError: it is something else, there is no such setting, or a configured method comes with settings.
    """
    if isinstance(method, ConfiguredMethod):
        if settings:
            raise ValueError(f"a configured method brings its settings; leave {', '.join(settings)} out")
        return method, None
    if isinstance(method, Recipe):
        unasked = Unasked.of(asked, chosen, method, settings, *where)
        return method.configured(chosen, settings, *where), unasked
    if callable(method):
        return ConfiguredMethod.of_callable(method, settings), None
    raise ValueError(
        "the method must be a memory's name, a recipe or its path, a configured method or a callable, "
        f"got {type(method).__name__}"
    )


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
