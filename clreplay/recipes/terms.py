"""Terms of a loss as recipes write them, ``terms: {style: {weight: 5000}}``, and as flat names, ``style_weight``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clreplay.condensation.registry import Method
from clreplay.losses.term import TERMS as REGISTERED
from clreplay.losses.term import Term, flat_names
from clreplay.recipes.typed_settings import RecipeError, did_you_mean

TERMS = "terms"
Known = Mapping[str, type[Term]]


def known_terms(method: Method) -> Known:
    """The terms that a recipe of the method may name: all that are registered, and those of its own Python file."""
    return {**REGISTERED, **getattr(method.settings, "term_classes", {})}


def flattened(values: Mapping[str, Any], where: str, known: Known) -> dict[str, Any]:
    """Settings whose ``terms`` are written out under their flat names, in place.

    A value of ``terms`` that is no mapping stays: it may be a setting of that name of somebody's own method, and is
    an unknown key to every other method.

    Raises:
        RecipeError: naming ``where``, the term or its setting, and what is allowed.
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = key == TERMS and isinstance(value, Mapping)
        flat.update(_flat_terms(value, f"{where}: {TERMS}", known) if nested else {key: value})
    return flat


def flat_key(key: str, known: Known) -> str:
    """``terms.style.weight`` as ``style_weight``, also behind a memory's name; any other key as it is.

    Raises:
        RecipeError: there is no such term, or it has no such setting.
    """
    owner, dot, name = key.rpartition(f"{TERMS}.")
    if not dot or (owner and not owner.endswith(".")):
        return key
    term, _, setting = name.partition(".")
    (flat,) = _flat_terms({term: {setting: None}}, f"--set {key}", known)
    return owner + flat


def _flat_terms(terms: Mapping[str, Any], where: str, known: Known) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for term, settings in terms.items():
        if term not in known:
            raise RecipeError(f"{where}: unknown term {term!r}{did_you_mean(term, known)} Known: {', '.join(known)}")
        if not isinstance(settings, Mapping):
            raise RecipeError(f"{where}: {term} must be a mapping of keys to values, got {settings!r}")
        names = flat_names(term, known[term])
        for name, value in settings.items():
            if name not in names:
                raise RecipeError(
                    f"{where}: {term}: unknown key {name!r}{did_you_mean(name, names)} Allowed: {', '.join(names)}"
                )
            flat[names[name]] = value
    return flat
