"""Random: uniformly drawn real images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from clreplay.condensation.real_images import RealImages
from clreplay.condensation.registry import Condensed, register
from clreplay.condensation.selection.tiled import stored, wanted
from clreplay.condensation.tiles import TiledSettings, check_tiles, decoding
from clreplay.runtime.progress import Progress
from clreplay.runtime.seeding import generator


@dataclass(frozen=True)
class RandomSettings(TiledSettings):
    """Random selection.

    Attributes:
        redraw_per_order: every class order draws anew, as in DM's class-incremental script; otherwise
            a class keeps the same images in every order.
        tiles: see :class:`TiledSettings`.
    """

    redraw_per_order: bool = True


@register("random", RandomSettings, selects=True, cached=False, decoding=decoding, check=check_tiles)
def select_random(
    real: RealImages,
    counts: dict[int, int],
    settings: RandomSettings,
    *,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
    keep: Path | None = None,
) -> Condensed:
    """Uniform sampling without replacement inside every class; fewer images are a prefix of more."""
    counts = wanted(counts, settings)
    real.check_counts(counts)
    chosen = {}
    for label in real.classes:
        chance = generator(seed, real.keys[label], "random")
        chosen[label] = real.raw(label)[torch.randperm(real.count(label), generator=chance)[: counts[label]]]
    return stored(chosen, settings)
