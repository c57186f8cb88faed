"""Float images as codes of a few bits, without clipping."""

from __future__ import annotations

import torch
from torch import Tensor


def encode(images: Tensor, levels: int = 256) -> tuple[Tensor, Tensor, Tensor]:
    """Code float images with one scale and offset an image and channel; nothing is clipped.

    Args:
        images: (n, c, h, w) float, any range (condensed images live beyond the pixel range).
        levels: how many codes there are, 2 to 256.

    Returns:
        codes uint8 (n, c, h, w), scale and offset float32 (n, c); :func:`decode` errs by at most half a
        step (``scale / 2``) up to float32 rounding.
    """
    images = images.detach().to("cpu", torch.float32)
    low, high = images.amin((2, 3)), images.amax((2, 3))
    scale = (high - low) / (levels - 1)
    step = torch.where(scale > 0, scale, torch.ones_like(scale))  # a constant channel has one code: 0
    codes = ((images - low[:, :, None, None]) / step[:, :, None, None]).round().clamp(0, levels - 1).to(torch.uint8)
    return codes, scale, low


def decode(codes: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """The float images of :func:`encode`'s codes, (n, c, h, w)."""
    return codes.to(torch.float32) * scale[:, :, None, None] + offset[:, :, None, None]
