"""Checks that settings of every room share."""

from __future__ import annotations


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """A typo must not silently select another reading of a formula.

    Raises:
        ValueError: naming what is allowed.
    """
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
