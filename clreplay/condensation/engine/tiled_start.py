"""The first synthetic images where every tile of a stored image acts as an image (decoders ``tiles2`` and so on)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clreplay.condensation.real_images import RealImages
from clreplay.memory.decoders import joined
from clreplay.runtime.seeding import generator


def tiled_images(real: RealImages, label: int, count: int, init: str, seed: int, factor: int = 2) -> Tensor:
    """Stored images of several small real ones each, (count, c, h, w), keyed by the class; fewer are a prefix of more.

    The small ones are random real images without repeats, brought to a part of their height and width bilinearly; in
    the order of the tiles that the decoder gives back. A class with fewer real images than tiles has to go round
    again. Equal tiles would get equal gradients and stay equal for ever, so in round r every image is the mean of
    itself and the r-th after it.

    Args:
        real: the experience; ``factor`` divides height and width.
        label: the class.
        count: stored images.
        init: ``real``, or ``noise`` for N(0, 1).
        seed: of all chance.
        factor: tiles in a row and in a column.

    Source: IDM (Zhao et al., CVPR 2023), and ``mix`` of IDC (Kim et al., ICML 2022); what a second round starts from
    is this library's.
    """
    chance = generator(seed, real.keys[label], "init")
    c, h, w = real.shape
    if init == "noise":
        return torch.randn(count, c, h, w, generator=chance)
    order = torch.randperm(real.count(label), generator=chance)
    turn = torch.arange(factor * factor * count)
    rounds, place = turn // len(order), turn % len(order)
    pixels = real.raw(label)
    one, other = (real.normalise(pixels[order[where % len(order)]]) for where in (place, place + rounds))
    # Antialiased where bilinear sampling would skip pixels; at factor 2 it is the mean of four either way.
    small = F.interpolate(
        (one + other) / 2, (h // factor, w // factor), mode="bilinear", align_corners=False, antialias=factor > 2
    )
    return joined(small, factor)
