"""``settings.yaml`` of a run's folder: reading it, and what differs between two runs."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clreplay.runtime.yaml_text import read_yaml

INFORMATION = ("versions", "commit", "device_name", "created", "command", "chosen")
"""Settings that say where and when a run was made, not what it is: they may change when it goes on."""
FINGERPRINT, CLASS_NAMES = "data_fingerprint", "class_names"
"""Settings that say which data a run is made with; folders of before have none, and go on."""

_short = reprlib.Repr()
_short.maxdict = _short.maxlist = _short.maxtuple = 15
_short.maxstring = _short.maxother = 100


class SettingsMismatch(ValueError):
    """A folder holds a run with other settings."""


def load_settings(path: Path) -> dict[str, Any]:
    """The settings in a file.

    Raises:
        ValueError: it is empty, damaged or something else; it names the file and the cure.
    """
    try:
        found = read_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:  # UnicodeDecodeError is one
        raise ValueError(f"{path} is damaged ({error}); {_CURE}") from error
    if not isinstance(found, dict) or not found:
        what = "is empty" if found is None else "does not hold the settings of a run"
        raise ValueError(f"{path} {what}; {_CURE}")
    return found


_CURE = "restore it from a copy, or choose another --out"


def differing(before: Any, now: Any, where: str = "") -> list[str]:
    """What differs between two settings, one phrase each, leaving out :data:`INFORMATION`.

    What a folder of before does not say of its data is not compared.
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        found = []
        for key in dict.fromkeys([*before, *now]):
            if not where and (key in INFORMATION or (key in (FINGERPRINT, CLASS_NAMES) and key not in before)):
                continue
            name = f"{where}.{key}" if where else str(key)
            found += differing(before.get(key), now.get(key), name)
        return found
    if before == now:
        return []
    if where == FINGERPRINT:
        return [f"its images or labels are others ({where} is {before} there and {now} here)"]
    return [f"{where} is {_short.repr(before)} there and {_short.repr(now)} here"]
