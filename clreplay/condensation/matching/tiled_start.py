"""The first synthetic images where every quadrant of a stored image acts as an image (decoder ``tiles2``)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clreplay.condensation.real_images import RealImages
from clreplay.memory.decoders import joined
from clreplay.runtime.seeding import generator


def tiled_images(real: RealImages, label: int, count: int, init: str, seed: int) -> Tensor:
    """Stored images of four small real ones each, (count, c, h, w), keyed by the class; fewer are a prefix of more.

    The small ones are random real images without repeats, brought to half their height and width bilinearly; in
    the order of the quadrants that ``tiles2`` gives back. A class with fewer than four real images a stored one has
    to go round again. Equal quadrants would get equal gradients and stay equal for ever, so in round r every image
    is the mean of itself and the r-th after it.

    Args:
        real: the experience; height and width are even.
        label: the class.
        count: stored images.
        init: ``real``, or ``noise`` for N(0, 1).
        seed: of all chance.

    Source: IDM (Zhao et al., CVPR 2023); what a second round starts from is this library's.
    """
    chance = generator(seed, real.keys[label], "init")
    c, h, w = real.shape
    if init == "noise":
        return torch.randn(count, c, h, w, generator=chance)
    order = torch.randperm(real.count(label), generator=chance)
    turn = torch.arange(4 * count)
    rounds, place = turn // len(order), turn % len(order)
    pixels = real.raw(label)
    one, other = (real.normalise(pixels[order[where % len(order)]]) for where in (place, place + rounds))
    small = F.interpolate((one + other) / 2, scale_factor=0.5, mode="bilinear", align_corners=False)
    return joined(small, 2)
