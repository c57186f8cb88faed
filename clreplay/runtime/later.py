"""Settings that came later: what was computed before them keeps its name.

A key of a result is a hash of settings. A setting that is added must not make all older results strangers, as long as
its default does nothing new: it is left out of what identifies a computation while it has its default.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    defaults = {}
    if is_dataclass(settings):
        defaults = {one.name: one.default for one in fields(settings) if one.metadata.get("later")}
    return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}
