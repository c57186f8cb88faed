"""Pixel codes of fewer than 8 bits, packed into bytes."""

from __future__ import annotations

import torch
from torch import Tensor


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes below ``2 ** bits`` packed along the last axis, the first in the lowest bits of a byte.

    Args:
        codes: uint8 (..., n).
        bits: 2 or 4.

    Returns:
        uint8 (..., ceil(n * bits / 8)); what is left of the last byte is 0.
    """
    each = 8 // bits
    short = -codes.shape[-1] % each
    filled = torch.nn.functional.pad(codes, (0, short)).unflatten(-1, (-1, each))
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8)
    packed: Tensor = (filled << shifts).sum(-1, dtype=torch.int64).to(torch.uint8)
    return packed


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """The ``count`` codes of :func:`pack` along the last axis."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8)
    codes: Tensor = (packed.unsqueeze(-1) >> shifts) & (2**bits - 1)
    return codes.flatten(-2)[..., :count]
