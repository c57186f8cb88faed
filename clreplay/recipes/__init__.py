"""Recipes: a method with its settings by preset, one YAML file each, read and checked."""

from clreplay.recipes.content import PRESETS
from clreplay.recipes.overrides import parse_set, split_overrides
from clreplay.recipes.recipe import Recipe, load_recipe, recipe_names, training_settings
from clreplay.recipes.typed_settings import RecipeError

__all__ = [
    "PRESETS",
    "Recipe",
    "RecipeError",
    "load_recipe",
    "parse_set",
    "recipe_names",
    "split_overrides",
    "training_settings",
]
