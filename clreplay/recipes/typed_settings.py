"""Plain values, as YAML and the command line give them, made into a settings dataclass; each type is checked."""

from __future__ import annotations

import difflib
import math
import reprlib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar

import numpy as np

Settings = TypeVar("Settings")


class RecipeError(ValueError):
    """A recipe or an override is wrong; the message names the file, the key and what is allowed."""


def build(cls: type[Settings], values: Mapping[str, Any], where: str) -> Settings:
    """A settings dataclass from plain values, each checked against its field's type.

    Raises:
        RecipeError: naming ``where``, the key and what is allowed.
    """
    checked = checked_values(cls, values, where)
    try:
        return cls(**checked)
    except (TypeError, ValueError) as error:  # TypeError: a setting without a default that nobody gives
        raise RecipeError(f"{where}: {error}") from error


def checked_values(cls: type, values: Mapping[str, Any], where: str, more: Iterable[str] = ()) -> dict[str, Any]:
    """Values whose keys are fields of a settings dataclass, each as its field's type.

    ``more`` are keys that are read elsewhere: an error's message names them among those that are allowed.
    """
    types_of = _types_of(cls)
    labels = {field.name: field.metadata.get("label", field.name) for field in fields(cls)}
    checked = {}
    for key, value in values.items():
        if key not in labels:
            allowed = [*labels, *more]
            raise RecipeError(f"{where}: unknown key {key!r}{did_you_mean(key, allowed)} Allowed: {', '.join(allowed)}")
        checked[key] = _typed(value, types_of[key], f"{where}: {labels[key]}")
    return checked


@cache
def _types_of(cls: type) -> dict[str, Any]:
    # Annotations are text that is compiled anew each time; a plan makes settings by the thousand.
    return typing.get_type_hints(cls)


def _typed(value: Any, wanted: Any, where: str) -> Any:
    """``value`` as the annotated type; whole floats become ints and lists tuples, nothing else is bent."""
    if isinstance(value, np.generic):
        value = value.item()
    options = typing.get_args(wanted) if typing.get_origin(wanted) in (typing.Union, types.UnionType) else (wanted,)
    for option in options:
        if option is type(None) and value is None:
            return None
        if option is bool and isinstance(value, bool):
            return value
        if option is int and _whole(value):
            return int(value)
        if option is float and _finite(value):
            return float(value)
        if option is str and isinstance(value, str):
            return value
        if typing.get_origin(option) is tuple and isinstance(value, (list, tuple)):
            return tuple(_typed(item, typing.get_args(option)[0], where) for item in value)
    names = " or ".join("null" if o is type(None) else getattr(o, "__name__", str(o)) for o in options)
    raise RecipeError(f"{where} must be {names}, got {_short.repr(value)}")


def _finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 200


def _whole(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def did_you_mean(key: str, allowed: Iterable[str]) -> str:
    """``, did you mean 'iterations'?``, or a full stop where nothing allowed is close."""
    close = difflib.get_close_matches(str(key), list(allowed), n=1)
    return f", did you mean {close[0]!r}?" if close else "."
