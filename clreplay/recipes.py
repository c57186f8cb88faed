"""Recipes: one YAML file a compared memory strategy, the single home of its settings.

A recipe names the registered method it uses, the paper's settings, and smaller presets beside them::

    method: matching
    settings: {iterations: 20000, lr_img: 1.0}
    presets:
      paper: {}
      cpu: {iterations: 300}
      smoke: {iterations: 5}

Unknown keys and wrong types are errors that name the file, the key and what is allowed.
"""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from clreplay.condensation import METHODS
from clreplay.condensation.methods import Method
from clreplay.training import TrainingSettings

PRESETS = ("paper", "cpu", "smoke")
TRAINING_FILE = "training"
"""Recipe of the learner; it stands beside the memories' recipes and is not one of them."""

Settings = TypeVar("Settings")


class RecipeError(ValueError):
    """A recipe or an override is wrong; the message names the file, the key and what is allowed."""


@dataclass(frozen=True)
class Recipe:
    """One memory strategy: a method and its settings by preset.

    Attributes:
        name: what ``--memory`` calls it.
        label: what pictures call it.
        method: the registered condenser.
        path: the file.
    """

    name: str
    label: str
    method: Method
    path: Path
    content: Mapping[str, Any]

    def settings(self, preset: str = "paper", overrides: Mapping[str, Any] | None = None) -> Any:
        """The method's settings under a preset, overrides last.

        Raises:
            RecipeError: unknown preset or key, or a value of the wrong type.
        """
        return _resolve(self.method.settings, self.content, preset, overrides or {}, str(self.path))

    def keys(self) -> list[str]:
        """Every setting the recipe accepts."""
        return [field.name for field in fields(self.method.settings)]


def strategies_dir() -> Path:
    """Where the shipped recipes are: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent
    for place in (package / "strategies", package.parent / "strategies"):
        if (place / f"{TRAINING_FILE}.yaml").is_file():
            return place
    raise FileNotFoundError(f"no recipes beside {package}; reinstall clreplay")


def recipe_names() -> list[str]:
    """Names of the shipped memories, sorted."""
    return sorted(path.stem for path in strategies_dir().glob("*.yaml") if path.stem != TRAINING_FILE)


def load_recipe(name: str | Path) -> Recipe:
    """A shipped recipe by name, or a recipe of one's own by the path of its ``.yaml`` file.

    Raises:
        RecipeError: there is no such recipe, or the file is malformed.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = strategies_dir() / f"{name}.yaml"
        if str(name) == TRAINING_FILE or not path.is_file():
            close = difflib.get_close_matches(str(name).lower(), recipe_names(), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise RecipeError(
                f"unknown memory {str(name)!r}{hint} Known: {', '.join(recipe_names())}; "
                "or give the path of a .yaml recipe"
            )
    content = _read(path, {"method", "label", "source", "settings", "presets"})
    method = content.get("method")
    if not isinstance(method, str) or method not in METHODS:
        raise RecipeError(f"{path}: method must be one of {', '.join(sorted(METHODS))}, got {method!r}")
    recipe = Recipe(path.stem, content.get("label", path.stem), METHODS[method], path, content)
    for preset in PRESETS:
        recipe.settings(preset)
    return recipe


def training_settings(preset: str = "paper", overrides: Mapping[str, Any] | None = None) -> TrainingSettings:
    """The learner's settings under a preset, overrides last."""
    path = strategies_dir() / f"{TRAINING_FILE}.yaml"
    return _resolve(
        TrainingSettings, _read(path, {"source", "settings", "presets"}), preset, overrides or {}, str(path)
    )


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
            overrides[key.strip()] = _number(yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise RecipeError(f"--set {key.strip()}: {value!r} is not YAML: {error}") from error
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
    bare = {key: value for key, value in overrides.items() if "." not in key}
    for key, value in bare.items():
        takers = [recipe for recipe in recipes if key in recipe.keys()]
        if not takers:
            names = sorted({k for recipe in recipes for k in recipe.keys()})
            raise RecipeError(
                f"no chosen memory has a setting {key!r}{_did_you_mean(key, names)} Allowed: {', '.join(names)}; "
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


def build(cls: type[Settings], values: Mapping[str, Any], where: str) -> Settings:
    """A settings dataclass from plain values, each checked against its field's type.

    Raises:
        RecipeError: naming ``where``, the key and what is allowed.
    """
    types_of = typing.get_type_hints(cls)
    allowed = [field.name for field in fields(cls)]
    checked = {}
    for key, value in values.items():
        if key not in allowed:
            raise RecipeError(
                f"{where}: unknown key {key!r}{_did_you_mean(key, allowed)} Allowed: {', '.join(allowed)}"
            )
        checked[key] = _typed(value, types_of[key], f"{where}: {key}")
    try:
        return cls(**checked)
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from error


def _resolve(
    cls: type[Settings], content: Mapping[str, Any], preset: str, overrides: Mapping[str, Any], where: str
) -> Settings:
    if preset not in PRESETS:
        raise RecipeError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    presets = _mapping(content.get("presets"), f"{where}: presets")
    unknown = [str(name) for name in presets if name not in PRESETS]
    if unknown:
        raise RecipeError(f"{where}: presets must be among {', '.join(PRESETS)}, got {', '.join(sorted(unknown))}")
    settings = _mapping(content.get("settings"), f"{where}: settings")
    values = {**settings, **_mapping(presets.get(preset), f"{where}: presets: {preset}"), **overrides}
    return build(cls, values, where)


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise RecipeError(f"{where} must be a mapping of keys to values, got {value!r}")
    return value or {}


def _read(path: Path, allowed: set[str]) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"no recipe at {path}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} must hold a mapping with the keys {', '.join(sorted(allowed))}")
    for key in content:
        if key not in allowed:
            raise RecipeError(f"{path}: unknown key {key!r}. Allowed: {', '.join(sorted(allowed))}")
    return content


def _typed(value: Any, wanted: Any, where: str) -> Any:
    """``value`` as the annotated type; whole floats become ints and lists tuples, nothing else is bent."""
    options = typing.get_args(wanted) if typing.get_origin(wanted) in (typing.Union, types.UnionType) else (wanted,)
    for option in options:
        if option is type(None) and value is None:
            return None
        if option is bool and isinstance(value, bool):
            return value
        if option is int and _whole(value):
            return int(value)
        if option is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        if option is str and isinstance(value, str):
            return value
        if typing.get_origin(option) is tuple and isinstance(value, (list, tuple)):
            return tuple(_typed(item, typing.get_args(option)[0], where) for item in value)
    names = " or ".join("null" if o is type(None) else getattr(o, "__name__", str(o)) for o in options)
    raise RecipeError(f"{where} must be {names}, got {value!r}")


def _whole(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and float(value).is_integer()


def _number(value: Any) -> Any:
    """YAML 1.1 reads ``1e-3`` as text; a person means the number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _did_you_mean(key: str, allowed: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(key), list(allowed), n=1)
    return f", did you mean {close[0]!r}?" if close else "."
