"""Recipes: one YAML file a compared memory strategy, the single home of its settings.

A recipe names the registered method it uses, the paper's settings, and smaller presets beside them::

    method: matching
    settings: {iterations: 20000, lr_img: 1.0}
    presets:
      paper: {}
      cpu: {iterations: 300}
      smoke: {iterations: 5}

``base`` names a file of ``strategies/base`` whose method, settings, cases and presets a recipe builds on; ``terms``
are the terms of a matching loss with their weights (:mod:`.terms`); ``cases`` are settings for some data sets or
numbers of images a class only (:mod:`.cases`); ``code`` names a Python file, beside the recipe, that registers a
method in the user's own file (:mod:`.own_code`).

Unknown keys and wrong types are errors that name the file, the key and what is allowed.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from clreplay.condensation import METHODS
from clreplay.condensation.configured import ConfiguredMethod
from clreplay.condensation.engine.execution import Execution
from clreplay.condensation.registry import Method
from clreplay.recipes.cases import Case, read_cases
from clreplay.recipes.own_code import own_methods
from clreplay.recipes.terms import TERMS, flattened
from clreplay.recipes.typed_settings import RecipeError, build, checked_values
from clreplay.training.settings import TrainingSettings

PRESETS = ("paper", "cpu", "smoke")
_MERGED = ("settings", TERMS, "cases", "presets")
_INHERITED = "inherited cases"  # how many of the cases are the base's; no key of a recipe has this name
TRAINING_FILE = "training"
"""Recipe of the learner; it is in the folder of the memories' recipes and is not one of them."""


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

    @property
    def cases(self) -> list[Case]:
        """Settings for some data sets or numbers of images a class only."""
        return read_cases(self.content.get("cases"), str(self.path))

    def settings(
        self,
        preset: str = "paper",
        overrides: Mapping[str, Any] | None = None,
        dataset: str | None = None,
        images_per_class: int | None = None,
    ) -> Any:
        """The method's settings: the recipe's, then the cases that apply, the preset, and overrides last.

        Args:
            preset: ``paper``, ``cpu`` or ``smoke``.
            overrides: single settings.
            dataset: name of the data set; None where it is not known.
            images_per_class: images stored a class; None where they change as classes arrive.

        Raises:
            RecipeError: unknown preset or key, or a value of the wrong type.
        """
        return self.configured(preset, overrides, dataset, images_per_class).settings

    def configured(
        self,
        preset: str = "paper",
        overrides: Mapping[str, Any] | None = None,
        dataset: str | None = None,
        images_per_class: int | None = None,
    ) -> ConfiguredMethod:
        """The method with its settings and how to compute; arguments and errors are those of :meth:`settings`."""
        cases = _applying(self.cases, dataset, images_per_class)
        values = _merged(self.content, preset, overrides or {}, str(self.path), cases)
        return _configured(self.method, values, str(self.path), self.name)

    def rebuilt(self, values: Mapping[str, Any]) -> ConfiguredMethod:
        """The method with the values that :meth:`ConfiguredMethod.values` gave, whatever the recipe says by now."""
        return _configured(self.method, values, str(self.path), self.name)

    def keys(self) -> list[str]:
        """Every setting the recipe accepts."""
        return [*(field.name for field in fields(self.method.settings)), *self.method.execution]

    def check(self) -> None:
        """Try every preset, and every case where it applies.

        Raises:
            RecipeError: naming the file, the entry, the key and what is allowed.
        """
        _check(partial(_configured, self.method), partial(_typed, self.method), self.content, str(self.path))


def strategies_dir() -> Path:
    """Where the shipped recipes are: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    for place in (package / "strategies", package.parent / "strategies"):
        if (place / f"{TRAINING_FILE}.yaml").is_file():
            return place
    raise FileNotFoundError(f"no recipes beside {package}; reinstall clreplay")


def recipe_names() -> list[str]:
    """Names of the shipped memories, sorted."""
    return sorted(path.stem for path in strategies_dir().glob("*.yaml") if path.stem != TRAINING_FILE)


def load_recipe(name: str | Path) -> Recipe:
    """A shipped recipe by name, or the user's own recipe by the path of its ``.yaml`` file.

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
    content = _with_base(_read(path, {"base", "method", "code", "label", "source", *_MERGED}), path)
    recipe = Recipe(path.stem, content.get("label", path.stem), _method(content, path), path, content)
    recipe.check()
    return recipe


def training_settings(
    preset: str = "paper",
    overrides: Mapping[str, Any] | None = None,
    dataset: str | None = None,
    images_per_class: int | None = None,
) -> TrainingSettings:
    """The learner's settings; arguments and order of precedence are those of :meth:`Recipe.settings`.

    Raises:
        RecipeError: unknown preset or key, or a value of the wrong type.
    """
    path = strategies_dir() / f"{TRAINING_FILE}.yaml"
    content = _read(path, {"source", "settings", "cases", "presets"})
    _check(partial(build, TrainingSettings), partial(checked_values, TrainingSettings), content, str(path))
    cases = _applying(read_cases(content.get("cases"), str(path)), dataset, images_per_class)
    return build(TrainingSettings, _merged(content, preset, overrides or {}, str(path), cases), str(path))


def _with_base(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """A recipe on top of what its ``base`` shares out: settings, terms and presets by key, the base's cases first."""
    if "base" not in content:
        return content
    folder, name = strategies_dir() / "base", content["base"]
    known = sorted(file.stem for file in folder.glob("*.yaml"))
    if name not in known:
        raise RecipeError(f"{path}: base must be one of {', '.join(known)}, got {name!r}")
    below = _read(folder / f"{name}.yaml", {"method", *_MERGED})
    merged = {**below, **content}
    # By flat names, so that a term's single settings are merged, in whichever spelling either file has them.
    merged["settings"] = {**_own_settings(below, str(path)), **_own_settings(content, str(path))}
    merged[TERMS] = {}
    read_cases(content.get("cases"), str(path))  # before the base's entries shift the numbers in messages
    merged["cases"] = [*below.get("cases", []), *(content.get("cases") or [])]
    merged[_INHERITED] = len(below.get("cases", []))
    presets = [_mapping(one.get("presets"), f"{path}: presets") for one in (below, content)]
    merged["presets"] = {
        preset: {
            key: value
            for part in presets
            for key, value in flattened(_mapping(part.get(preset), f"{path}: presets"), f"{path}: presets").items()
        }
        for preset in dict.fromkeys([*presets[0], *presets[1]])
    }
    return merged


def _own_settings(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings of one file with its terms, by flat names."""
    terms = _mapping(content.get(TERMS), f"{where}: {TERMS}")
    settings = _mapping(content.get("settings"), f"{where}: settings")
    return {**flattened(settings, where), **flattened({TERMS: terms}, where)}


def _method(content: Mapping[str, Any], path: Path) -> Method:
    """The method a recipe names: one of the table, or one that its own code registers."""
    method, code, known = content.get("method"), content.get("code"), METHODS
    if "code" in content:
        if not isinstance(code, str) or not code.endswith(".py"):
            raise RecipeError(f"{path}: code must be the path of a .py file, relative to the recipe, got {code!r}")
        try:
            known = own_methods(path.parent / code)
        except ValueError as error:
            raise RecipeError(f"{path}: code: {error}") from error
        if not known or (isinstance(method, str) and method not in known):
            does = f"registers {', '.join(sorted(known))}" if known else "registers no method"
            raise RecipeError(
                f"{path}: {code} does not register the method {method!r}, it {does}; "
                f"put @register({method!r}, Settings) above its function"
            )
    if not isinstance(method, str) or method not in known:
        raise RecipeError(f"{path}: method must be one of {', '.join(sorted(known))}, got {method!r}")
    return known[method]


def _applying(cases: Iterable[Case], dataset: str | None, images_per_class: int | None) -> list[Mapping[str, Any]]:
    """What the cases that apply change, in order."""
    return [case.settings for case in cases if case.applies(dataset, images_per_class)]


_Reading = Callable[[Mapping[str, Any], str], Any]


def _check(make: _Reading, check: _Reading, content: Mapping[str, Any], path: str) -> None:
    """Make something of every preset, and of every case where it applies; check the types of a case alone."""
    for preset in PRESETS:
        make(_merged(content, preset, {}, path), path)
    cases, inherited = read_cases(content.get("cases"), path), content.get(_INHERITED, 0)
    places = [f"{path}: base: cases: entry {number + 1}" for number in range(inherited)]
    places += [f"{path}: cases: entry {number + 1}" for number in range(len(cases) - inherited)]
    for where, case in zip(places, cases, strict=True):  # alone first: together, a wrong entry is blamed on another
        check(case.settings, where)
    for where, case in zip(places, cases, strict=True):
        for preset, example in itertools.product(PRESETS, case.examples()):
            make(_merged(content, preset, {}, where, _applying(cases, *example)), where)


def _merged(
    content: Mapping[str, Any],
    preset: str,
    overrides: Mapping[str, Any],
    where: str,
    cases: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Values by key: the settings, then cases, the preset, and overrides last."""
    if preset not in PRESETS:
        raise RecipeError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    presets = _mapping(content.get("presets"), f"{where}: presets")
    unknown = [str(name) for name in presets if name not in PRESETS]
    if unknown:
        raise RecipeError(f"{where}: presets must be among {', '.join(PRESETS)}, got {', '.join(sorted(unknown))}")
    values = _own_settings(content, where)
    for part in (*cases, _mapping(presets.get(preset), f"{where}: presets: {preset}"), overrides):
        values.update(flattened(part, where))
    return values


def _typed(method: Method, values: Mapping[str, Any], where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values sorted by name into two groups, each with its type: settings of the method, and how to compute."""
    values = flattened(values, where)
    how = {key: value for key, value in values.items() if key in method.execution}
    rest = {key: value for key, value in values.items() if key not in how}
    return checked_values(method.settings, rest, where, method.execution), checked_values(Execution, how, where)


def _configured(method: Method, values: Mapping[str, Any], where: str, name: str = "") -> ConfiguredMethod:
    settings, how = _typed(method, values, where)
    try:
        return ConfiguredMethod(method, method.settings(**settings), Execution(**how), name)
    except (TypeError, ValueError) as error:  # TypeError: a setting without a default that nobody gives
        raise RecipeError(f"{where}: {error}") from error


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
