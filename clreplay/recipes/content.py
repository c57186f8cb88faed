"""Reading recipe files, with the files they build on, and bringing their settings to flat names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from clreplay.recipes.cases import read_cases
from clreplay.recipes.terms import TERMS, Known, flattened
from clreplay.recipes.typed_settings import RecipeError
from clreplay.runtime.yaml_text import read_yaml

PRESETS = ("paper", "cpu", "smoke")
_KEYS = {"base", "method", "code", "label", "summary", "cost", "source", "settings", TERMS, "cases", "presets"}
TRAINING_FILE = "training"
"""Recipe of the learner; it is in the folder of the memories' recipes and is not one of them."""


def with_bases(path: Path, folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """What a recipe says, what its ``base`` says, and so on down, each with what messages call it.

    Args:
        path: of the recipe.
        folder: of the shipped ones; bases that are no recipes are in ``base`` below it.

    Raises:
        RecipeError: a file is malformed, or there is no such base, or one builds on itself.
    """
    files = {file.stem: file for file in (*folder.glob("*.yaml"), *folder.glob("base/*.yaml"))}
    files.pop(TRAINING_FILE, None)
    content = read(path, _KEYS)
    found, passed = [(str(path), content)], [path.stem]
    while "base" in content:
        name = content["base"]
        if name not in [*files]:
            raise RecipeError(f"{found[-1][0]}: base must be one of {', '.join(sorted(files))}, got {name!r}")
        if name in passed[1:]:
            raise RecipeError(f"{path}: base: {' builds on '.join([*passed[1:], name])}, in a circle")
        content = read(files[name], _KEYS - {"code"})
        found.append((f"{path}: base {name}", content))
        passed.append(name)
    return found


def flat(content: Mapping[str, Any], where: str, known: Known) -> dict[str, Any]:
    """What one file says: settings and presets with terms by their flat names, and cases read, each with its place.

    Raises:
        RecipeError: something of it has another form; terms and their settings that are not known.
    """
    settings = flattened(_mapping(content.get("settings"), f"{where}: settings"), where, known)
    settings.update(flattened({TERMS: _mapping(content.get(TERMS), f"{where}: {TERMS}")}, where, known))
    presets, cases = {}, []
    for preset, values in _mapping(content.get("presets"), f"{where}: presets").items():
        place = f"{where}: presets: {preset}"
        presets[preset] = flattened(_mapping(values, place), place, known)
    unknown = [str(name) for name in presets if name not in PRESETS]
    if unknown:
        raise RecipeError(f"{where}: presets must be among {', '.join(PRESETS)}, got {', '.join(sorted(unknown))}")
    for number, case in enumerate(read_cases(content.get("cases"), where), start=1):
        place = f"{where}: cases: entry {number}"
        cases.append((place, replace(case, settings=flattened(case.settings, place, known))))
    return {**content, "settings": settings, "presets": presets, "cases": cases}


def on_top(below: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe says on top of its base: settings and presets by key, the base's cases first."""
    presets = {preset: {**below["presets"].get(preset, {}), **content["presets"].get(preset, {})} for preset in PRESETS}
    settings = {**below["settings"], **content["settings"]}
    return {**content, "settings": settings, "presets": presets, "cases": [*below["cases"], *content["cases"]]}


def read(path: Path, allowed: set[str]) -> dict[str, Any]:
    """A YAML file.

    Raises:
        RecipeError: there is no such file, or it is no mapping with keys that are allowed.
    """
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"no recipe at {path}") from error
    except ValueError as error:  # UnicodeDecodeError is one
        raise RecipeError(f"{path} is not YAML that is read here: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} must hold a mapping with the keys {', '.join(sorted(allowed))}")
    for key in content:
        if key not in allowed:
            raise RecipeError(f"{path}: unknown key {key!r}. Allowed: {', '.join(sorted(allowed))}")
    return content


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise RecipeError(f"{where} must be a mapping of keys to values, got {value!r}")
    return value or {}
