"""Terms of a loss as recipes write them, ``terms: {style: {weight: 5000}}``, and as flat names, ``style_weight``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clreplay.condensation.matching.terms import FLAT_NAMES
from clreplay.recipes.typed_settings import RecipeError, did_you_mean

TERMS = "terms"


def flattened(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Settings whose ``terms`` are written out under their flat names, in place.

    A value of ``terms`` that is no mapping stays: it may be a setting of that name of somebody's own method, and is
    an unknown key to every other method.

    Raises:
        RecipeError: naming ``where``, the term or its setting, and what is allowed.
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = key == TERMS and isinstance(value, Mapping)
        flat.update(_flat_terms(value, f"{where}: {TERMS}") if nested else {key: value})
    return flat


def flat_key(key: str) -> str:
    """``terms.style.weight`` as ``style_weight``, also behind a memory's name; any other key as it is.

    Raises:
        RecipeError: there is no such term, or it has no such setting.
    """
    owner, dot, name = key.rpartition(f"{TERMS}.")
    if not dot or (owner and not owner.endswith(".")):
        return key
    term, _, setting = name.partition(".")
    (flat,) = _flat_terms({term: {setting: None}}, f"--set {key}")
    return owner + flat


def _flat_terms(terms: Any, where: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for term, settings in _mapping(terms, where).items():
        if term not in FLAT_NAMES:
            raise RecipeError(
                f"{where}: unknown term {term!r}{did_you_mean(term, FLAT_NAMES)} Known: {', '.join(FLAT_NAMES)}"
            )
        names = FLAT_NAMES[term]
        for name, value in _mapping(settings, f"{where}: {term}").items():
            if name not in names:
                raise RecipeError(
                    f"{where}: {term}: unknown key {name!r}{did_you_mean(name, names)} Allowed: {', '.join(names)}"
                )
            flat[names[name]] = value
    return flat


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where} must be a mapping of keys to values, got {value!r}")
    return value
