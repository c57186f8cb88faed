"""Selections that store several small real images in one: the same bytes, more pictures to train on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clreplay.condensation.registry import Condensed
from clreplay.memory.decoders import joined

FACTORS = (1, 2, 3, 4)


@dataclass(frozen=True)
class TiledSettings:
    """What every selection can do with the images that it chooses.

    Attributes:
        tiles: store this many in a row and in a column of one image, each brought to that part of its height and
            width, and train on them enlarged again; 1 stores them as they are. IDC and IDM condense such images; with
            real ones it needs no condensing at all.
    """

    tiles: int = 1

    def __post_init__(self) -> None:
        if self.tiles not in FACTORS:
            raise ValueError(f"tiles must be one of {', '.join(map(str, FACTORS))}, got {self.tiles!r}")
        if hasattr(super(), "__post_init__"):
            super().__post_init__()


def decoding(settings: TiledSettings) -> str:
    """The decoder of what is stored under such settings."""
    return "none" if settings.tiles == 1 else f"tiles{settings.tiles}"


def check_tiles(settings: TiledSettings, counts: Mapping[int, int], shape: tuple[int, int, int]) -> None:
    """Images can be cut into so many tiles.

    Raises:
        ValueError: they cannot.
    """
    if shape[1] % settings.tiles or shape[2] % settings.tiles:
        raise ValueError(
            f"tiles must divide the height and width of the images, {shape[1]} x {shape[2]}, got {settings.tiles}"
        )


def wanted(counts: Mapping[int, int], settings: TiledSettings) -> dict[int, int]:
    """How many real images are to be chosen, by class, for so many stored ones."""
    return {label: count * settings.tiles**2 for label, count in counts.items()}


def stored(chosen: Mapping[int, Tensor], settings: TiledSettings, **more: Any) -> Condensed:
    """What is stored of the chosen images of every class, in their order."""
    images = {label: tile(some, settings.tiles) for label, some in chosen.items()}
    return Condensed(images, decoding=decoding(settings), **more)


def tile(images: Tensor, factor: int) -> Tensor:
    """Images in one another's place: ``factor * factor`` in each, row by row, every one the mean of its blocks.

    Args:
        images: (k * factor * factor, c, h, w), uint8 or float.
        factor: tiles in a row and in a column; it divides h and w.

    Returns:
        (k, c, h, w) of the same kind.
    """
    if factor == 1:
        return images
    small = F.avg_pool2d(images.to(torch.float32), factor)
    if images.dtype == torch.uint8:
        small = small.round().to(torch.uint8)
    return joined(small, factor)
