"""Checks that settings of every room share."""

from __future__ import annotations

from typing import Any


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """A typo must not silently select another reading of a formula.

    Raises:
        ValueError: naming what is allowed.
    """
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def check_counts(settings: Any, *names: str) -> None:
    """Attributes that count something must be at least 1, or None where that means something.

    Raises:
        ValueError: naming the attribute and its value.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def check_positive(settings: Any, *names: str) -> None:
    """Attributes must be above zero.

    Raises:
        ValueError: naming the attribute and its value.
    """
    for name in names:
        if getattr(settings, name) <= 0:
            raise ValueError(f"{name} must be positive, got {getattr(settings, name)}")


def check_not_negative(settings: Any, *names: str) -> None:
    """Attributes must be zero or more.

    Raises:
        ValueError: naming the attribute and its value.
    """
    for name in names:
        if getattr(settings, name) < 0:
            raise ValueError(f"{name} must not be negative, got {getattr(settings, name)}")


def check_share(settings: Any, name: str) -> None:
    """An attribute must be a share or a probability.

    Raises:
        ValueError: naming the attribute and its value.
    """
    if not 0 <= getattr(settings, name) <= 1:
        raise ValueError(f"{name} must be within [0, 1], got {getattr(settings, name)}")


def check_momentum(settings: Any, name: str) -> None:
    """An attribute must be a momentum of SGD.

    Raises:
        ValueError: naming the attribute and its value.
    """
    if not 0 <= getattr(settings, name) < 1:
        raise ValueError(f"{name} must be within [0, 1), got {getattr(settings, name)}")
