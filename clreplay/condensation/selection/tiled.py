"""Selections that store several small real images in one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from clreplay.condensation.registry import Condensed
from clreplay.condensation.tiles import TiledSettings, decoding
from clreplay.memory.smaller import tile


def wanted(counts: Mapping[int, int], settings: TiledSettings) -> dict[int, int]:
    """How many real images are to be chosen, by class, for so many stored ones."""
    return {label: count * settings.tiles**2 for label, count in counts.items()}


def stored(chosen: Mapping[int, Tensor], settings: TiledSettings, **more: Any) -> Condensed:
    """What is stored of the chosen images of every class, in their order."""
    images = {label: tile(some, settings.tiles) for label, some in chosen.items()}
    return Condensed(images, decoding=decoding(settings), **more)
