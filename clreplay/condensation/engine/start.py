"""How a condensation starts: which classes can share a batch, and the first synthetic images."""

from __future__ import annotations

import torch
from torch import Tensor

from clreplay.condensation.engine.class_group import ClassGroup
from clreplay.condensation.engine.tiled_start import tiled_images
from clreplay.condensation.real_images import RealImages
from clreplay.runtime.seeding import generator

INITS = ("real", "noise")


def initial_images(real: RealImages, label: int, count: int, init: str, seed: int) -> Tensor:
    """The first synthetic images of a class, (count, c, h, w), keyed by the class; fewer real ones are a prefix.

    Args:
        real: the experience.
        label: the class.
        count: images.
        init: ``real`` takes random real images without repeats, ``noise`` N(0, 1).
        seed: of all chance.
    """
    chance = generator(seed, real.keys[label], "init")
    if init == "noise":
        return torch.randn(count, *real.shape, generator=chance)
    rows = torch.randperm(real.count(label), generator=chance)[:count]
    return real.normalise(real.raw(label)[rows])


def first_images(real: RealImages, label: int, count: int, init: str, seed: int, tiles: int = 1) -> Tensor:
    """Where the stored images of a class start: :func:`initial_images`, or with tiles :func:`.tiled_images`."""
    if tiles == 1:
        return initial_images(real, label, count, init, seed)
    return tiled_images(real, label, count, init, seed, tiles)


def equal_groups(
    real: RealImages,
    counts: dict[int, int],
    real_batch: int,
    init: str,
    seed: int,
    device: torch.device,
    resident: bool = True,
    tiles: int = 1,
) -> list[ClassGroup]:
    """The classes in groups whose batches are of one size, real and synthetic; without terms.

    Args:
        real: the experience.
        counts: synthetic images of every class.
        real_batch: real images a class and step; smaller classes are used whole.
        init, seed: see :func:`initial_images`.
        device: where the groups' images lie.
        resident: whether the real images do too. If not, the groups look at those of ``real`` where they are,
            uncopied, and whoever takes a batch brings it to the device.
        tiles: see :class:`clreplay.condensation.tiles.TiledSettings`.
    """
    alike: dict[tuple[int, int], list[int]] = {}
    for label in real.classes:
        alike.setdefault((min(real_batch, real.count(label)), counts[label]), []).append(label)
    groups = []
    for (batch, count), labels in alike.items():
        sizes = [real.count(label) for label in labels]
        first = torch.stack([first_images(real, label, count, init, seed, tiles) for label in labels]).to(device)
        groups.append(
            ClassGroup(
                labels=labels,
                keys=[real.keys[label] for label in labels],
                real=torch.cat([real.raw(label) for label in labels]).to(device) if resident else real.images,
                positions=None if resident else [real.rows(label) for label in labels],
                starts=torch.tensor([0, *sizes[:-1]]).cumsum(0)[:, None],
                sizes=sizes,
                batch=batch,
                synthetic=first,
                velocity=torch.zeros_like(first),
                terms=[],
            )
        )
    return groups
