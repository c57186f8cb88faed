"""The table of condensers. A new method is one function under ``@register``, one recipe, one test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from clreplay.condensation.real import RealImages


@dataclass(frozen=True)
class Condensed:
    """What a condenser gives back.

    Attributes:
        images: of every class, exactly the asked number, (k, c, h, w): uint8 pixel codes of real images
            that were selected, or float images in normalised space.
        record: rows of numbers by iteration (losses, image statistics), empty for selections.
        chosen: what was chosen by measurement on the spot (classes worked on together, ...).
    """

    images: dict[int, Tensor]
    record: list[dict[str, Any]] = field(default_factory=list)
    chosen: dict[str, Any] = field(default_factory=dict)


class Progress(Protocol):
    """Called by a condenser as it goes: units done, units in all, what a unit is."""

    def __call__(self, done: int, total: int, unit: str) -> None: ...


class Condenser(Protocol):
    """Real images in, condensed images out; all chance comes from ``seed``, never from the global generator.

    ``keep`` names a file for work in progress: a condenser that takes long saves itself there now and then
    and goes on from it; others may ignore it. It is passed only when there is such a file to keep.
    """

    def __call__(
        self,
        real: RealImages,
        counts: dict[int, int],
        settings: Any,
        *,
        seed: int,
        device: torch.device,
        progress: Progress | None = None,
        keep: Path | None = None,
    ) -> Condensed: ...


@dataclass(frozen=True)
class Method:
    """A registered condenser and the dataclass that holds its settings.

    Attributes:
        separable: whether, under given settings, a class comes out the same whatever classes are beside
            it; only then can condensed classes be cached.
    """

    name: str
    settings: type
    condense: Condenser
    separable: Callable[[Any], bool] = lambda settings: False


METHODS: dict[str, Method] = {}


def register(
    name: str, settings: type, separable: Callable[[Any], bool] = lambda settings: False
) -> Callable[[Condenser], Condenser]:
    """Enter a condenser in the table, so that recipes can name it as their ``method``.

    Args:
        name: what a recipe's ``method:`` says.
        settings: a dataclass; its fields are the keys that recipes, ``--set`` and keywords accept.
        separable: see :class:`Method`; methods whose losses mix classes leave it out.
    """

    def enter(condenser: Condenser) -> Condenser:
        if name in METHODS:
            raise ValueError(f"method {name!r} is registered already")
        METHODS[name] = Method(name, settings, condenser, separable)
        return condenser

    return enter
