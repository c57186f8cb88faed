"""The table of data sets: names, each with the function that loads the set."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from clreplay.data.dataset import Dataset


class Loader(Protocol):
    """Loads one data set; what `register_dataset` takes."""

    def __call__(self, name: str, root: Path, *, download: bool, channels: int | None) -> Dataset:
        """
        Args:
            name: the registered name that the caller asked for.
            root: folder with the user's data.
            download: whether the set may be downloaded when no copy is found.
            channels: number of colour channels; None takes the data set's own number.
        """
        ...


DATASETS: dict[str, Loader] = {}
"""Loaders by name, in alphabetical order."""


def register_dataset(*names: str) -> Callable[[Loader], Loader]:
    """Register a loader under one name or several; used as a decorator.

    Args:
        names: lower-case letters and digits only, so that `CIFAR-10` and `cifar_10` are recognised as `cifar10`.

    Raises:
        ValueError: a name is written otherwise or taken.

    Example:
        >>> @register_dataset("flowers")
        ... def load_flowers(name, root, *, download, channels): ...
    """
    for name in names:
        if plain(name) != name or not name:
            raise ValueError(f"name must be lower-case letters and digits, got {name!r}; write {plain(name)!r}")
        if name in DATASETS:
            raise ValueError(f"name {name!r} is taken by {DATASETS[name].__module__}; choose another")

    def register(loader: Loader) -> Loader:
        DATASETS.update(dict.fromkeys(names, loader))
        for name in sorted(DATASETS):
            DATASETS[name] = DATASETS.pop(name)
        return loader

    return register


def plain(name: object) -> str:
    """A name in lower case, without blanks and punctuation."""
    return "".join(letter for letter in str(name).lower() if letter.isascii() and letter.isalnum())


def suggestion(name: object) -> str:
    """`; did you mean 'cifar10'?` if a known name is similar, else an empty text."""
    close = difflib.get_close_matches(plain(name), DATASETS, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def check_channels(name: str, channels: int | None, allowed: tuple[int, ...]) -> int:
    """The number of channels to load.

    Args:
        allowed: numbers of channels that the data set can be loaded with, its own number first.

    Raises:
        ValueError: `channels` is not among them.
    """
    if channels is None or channels in allowed:
        return channels or allowed[0]
    hint = "; leave it out" if len(allowed) == 1 else ""
    raise ValueError(f"channels must be {' or '.join(map(str, allowed))} for {name}, got {channels}{hint}")
