"""The arithmetic of convolutions and matrix products: single precision, TF32 on NVIDIA GPUs, or bfloat16."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

PRECISIONS = ("float32", "tf32", "bfloat16")
"""``tf32`` is what PyTorch does by default on NVIDIA GPUs, elsewhere the same as ``float32``."""


@contextlib.contextmanager
def convolutions_in(precision: str, device: torch.device) -> Iterator[None]:
    """Whether single-precision convolutions on an NVIDIA GPU round to TF32, forward and backward, within the block."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def forward_in(precision: str, device: torch.device) -> torch.autocast:
    """A context for one forward pass, whose convolutions and matrix products are in bfloat16 if that is asked for.

    PyTorch keeps the weights' bfloat16 copies as long as the context is open, so it must end before they change.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def logits_in(precision: str, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """A network's logits for images, computed by :func:`forward_in`; single precision where that is bfloat16."""
    with forward_in(precision, images.device):
        logits = network(images)
    return logits.float() if logits.dtype == torch.bfloat16 else logits
