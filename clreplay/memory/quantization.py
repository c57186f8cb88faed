"""One class of a memory as it is stored: images coded in uint8 without clipping; its bytes are counted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clreplay.memory.decoders import decoder


@dataclass(frozen=True)
class Slot:
    """One class of the memory.

    Attributes:
        codes: (k, c, h, w), uint8; float32 in a memory that stores floats.
        scale, offset: (k, c) float32 for condensed images; ``None`` for real ones, which keep the plain pixel code.
        task_label: the task label the class came with.
        key: hash of the class's real images.
        decoding: name of the decoder that makes images to train on of the stored ones (:mod:`.decoders`).
    """

    codes: Tensor
    scale: Tensor | None
    offset: Tensor | None
    task_label: int = 0
    key: str = ""
    decoding: str = "none"

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def decoded(self) -> int:
        """Images that the stored ones decode to."""
        return len(self) * decoder(self.decoding).images_each

    def first(self, count: int) -> Slot:
        """The first ``count`` stored images; cloned, so that what is dropped is freed."""
        if count >= len(self):
            return self
        parts = {
            name: getattr(self, name)[:count].clone()
            for name in ("codes", "scale", "offset")
            if getattr(self, name) is not None
        }
        return replace(self, **parts)

    @property
    def bytes(self) -> int:
        """Bytes stored: the codes, and 8 bytes an image and channel where they are scaled."""
        tensors = [t for t in (self.codes, self.scale, self.offset) if t is not None]
        return sum(t.numel() * t.element_size() for t in tensors)


def encode(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Code float images with one scale and offset an image and channel; nothing is clipped.

    Args:
        images: (n, c, h, w) float, any range (condensed images live beyond the pixel range).

    Returns:
        codes uint8 (n, c, h, w), scale and offset float32 (n, c); :func:`decode` errs by at most half a
        step (``scale / 2``) up to float32 rounding.
    """
    images = images.detach().to("cpu", torch.float32)
    low, high = images.amin((2, 3)), images.amax((2, 3))
    scale = (high - low) / 255
    step = torch.where(scale > 0, scale, torch.ones_like(scale))  # a constant channel has one code: 0
    codes = ((images - low[:, :, None, None]) / step[:, :, None, None]).round().clamp(0, 255).to(torch.uint8)
    return codes, scale, low


def decode(codes: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """The float images of :func:`encode`'s codes, (n, c, h, w)."""
    return codes.to(torch.float32) * scale[:, :, None, None] + offset[:, :, None, None]
