"""Several small images in every stored one: the same bytes, more pictures to train on.

IDC (Kim et al., ICML 2022) calls it multi-formation, IDM (Zhao et al., CVPR 2023) partition and expansion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clreplay.runtime.later import later

FACTORS = (1, 2, 3, 4)


@dataclass(frozen=True)
class TiledSettings:
    """What every method can do with the images that it makes or chooses.

    Attributes:
        tiles: store this many in a row and in a column of one image, each brought to that part of its height and
            width, and train on them enlarged again; 1 stores them as they are. Whatever condenses shows its networks
            the enlarged images; with real ones it needs no condensing at all.
    """

    tiles: int = later(1)

    def __post_init__(self) -> None:
        check_factor(self)
        if hasattr(super(), "__post_init__"):
            super().__post_init__()


def check_factor(settings: Any) -> None:
    """There is a decoder for so many tiles.

    Raises:
        ValueError: there is none.
    """
    if settings.tiles not in FACTORS:
        raise ValueError(f"tiles must be one of {', '.join(map(str, FACTORS))}, got {settings.tiles!r}")


def decoding(settings: Any) -> str:
    """The decoder of what is stored under settings with ``tiles``."""
    return "none" if settings.tiles == 1 else f"tiles{settings.tiles}"


def check_tiles(settings: Any, counts: Mapping[int, int], shape: tuple[int, int, int]) -> None:
    """Images can be cut into so many tiles.

    Raises:
        ValueError: they cannot.
    """
    if shape[1] % settings.tiles or shape[2] % settings.tiles:
        raise ValueError(
            f"tiles must divide the height and width of the images, {shape[1]} x {shape[2]}, got {settings.tiles}; "
            "choose another number, or pad or resize the images"
        )
