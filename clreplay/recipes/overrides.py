"""``--set KEY=VALUE``: read as YAML, and sent to the recipe or the learner that has the key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from clreplay.losses.term import TERMS
from clreplay.recipes.recipe import Recipe
from clreplay.recipes.terms import flat_key
from clreplay.recipes.typed_settings import RecipeError, did_you_mean
from clreplay.runtime.yaml_text import read_yaml


def parse_set(texts: Iterable[str]) -> dict[str, Any]:
    """``["lr_img=0.5", "train.updates=100"]`` as a dictionary; values are read as YAML.

    Raises:
        RecipeError: an entry is not of the form key=value.
    """
    overrides = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise RecipeError(f"--set takes key=value, got {text!r}")
        try:
            overrides[key.strip()] = _number(read_yaml(value))
        except ValueError as error:
            raise RecipeError(f"--set {key.strip()}: {value[:100]!r} is not YAML: {error}") from error
    return overrides


def split_overrides(
    overrides: Mapping[str, Any], recipes: Iterable[Recipe]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Send each override where it belongs.

    ``train.KEY`` goes to the learner, ``NAME.KEY`` to the recipe of that name, a bare ``KEY`` to every
    recipe that has it.

    Returns:
        the learner's overrides, and those of each recipe by name.

    Raises:
        RecipeError: no one has the key.
    """
    recipes = list(recipes)
    learner: dict[str, Any] = {}
    by_recipe: dict[str, dict[str, Any]] = {recipe.name: {} for recipe in recipes}
    known = dict(TERMS)
    for recipe in recipes:
        known.update(recipe.terms)
    overrides = {flat_key(key, known): value for key, value in overrides.items()}
    bare = {key: value for key, value in overrides.items() if "." not in key}
    for key, value in bare.items():
        takers = [recipe for recipe in recipes if key in recipe.keys()]
        if not takers:
            names = sorted({k for recipe in recipes for k in recipe.keys()})
            raise RecipeError(
                f"no chosen memory has a setting {key!r}{did_you_mean(key, names)} Allowed: {', '.join(names)}; "
                "the learner's settings are train.KEY"
            )
        for recipe in takers:
            by_recipe[recipe.name][key] = value
    for dotted, value in overrides.items():
        if dotted in bare:
            continue
        owner, key = dotted.split(".", 1)
        if owner == "train":
            learner[key] = value
        elif owner in by_recipe:
            by_recipe[owner][key] = value
        else:
            raise RecipeError(
                f"--set {dotted}: {owner!r} is neither 'train' nor a chosen memory ({', '.join(by_recipe)})"
            )
    return learner, by_recipe


def _number(value: Any) -> Any:
    """YAML 1.1 reads ``1e-3`` as text; a person means the number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
