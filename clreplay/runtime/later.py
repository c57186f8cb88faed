"""Settings that came later: what was computed before them keeps its name.

A key of a result is a hash of settings. A setting that is added must not make all older results strangers, as long as
its default does nothing new: it is left out of what identifies a computation while it has its default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field, fields, is_dataclass
from typing import Any


def later(default: Any) -> Any:
    """A field of a settings dataclass that came later; at its default everything is as it was before.

    Args:
        default: of the field; a subclass that declares the field anew with another one says what was so before.
    """
    return field(default=default, metadata={"later": True})


def identifying(settings: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that identify a computation: without later settings that have their default.

    Args:
        settings: a dataclass instance; anything else has no later settings.
        values: by name, of the settings and maybe others.
    """
    return {name: value for name, value in values.items() if name not in _silent(settings, values)}


def _silent(settings: Any, values: Mapping[str, Any]) -> Iterable[str]:
    if not is_dataclass(settings):
        return ()
    marked = (one for one in fields(settings) if one.metadata.get("later"))
    return {one.name for one in marked if values.get(one.name, one.default) == one.default}
