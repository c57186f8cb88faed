"""Training images as pixel codes of 8 bits, and back: what lies outside the range of a picture is kept, or cut."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clreplay.data import Normalization
from clreplay.memory.formats.pictures import Pictures

OUTSIDE = ("scale", "clip")
"""What may become of pixels outside [0, 1]: an image that has any keeps them by a scale and an offset of its own, or
they are cut."""
NOTHING = 0.01
"""Pixel codes: less is the rounding of float32."""
SLACK = 0.25 / 255  # of a pixel code: float rounding is not outside


@dataclass(frozen=True)
class Rounded:
    """Pictures of 8 bits, and what that did to them.

    Attributes:
        pictures: uint8, with scale and offset where they are needed.
        outside: values outside the range of a picture.
        images_outside: images that have any.
        error: the largest difference of any value from what it was, in pixel codes (of 255).
        clipped: whether the values outside were cut.
    """

    pictures: Pictures
    outside: int
    images_outside: int
    error: float
    clipped: bool

    def notice(self, where: str) -> str:
        """The line that says what became of values outside; empty if there are none.

        Args:
            where: scale and offset are kept.
        """
        if not self.outside:
            return ""
        images = self.pictures.images
        of = f"{self.outside:,} of {images.numel():,} pixel values ({100 * self.outside / images.numel():.3g} %), in "
        of += f"{self.images_outside} of {len(images)} images, lie outside [0, 1]: "
        if self.clipped:
            return of + f"cut to it, so what is read back differs by up to {self.error:.3g} pixel codes (of 255)"
        return of + f"kept by a scale and an offset an image in {where}, {read_back(self.error)}"


def read_back(error: float) -> str:
    """How exact what is read back is.

    Args:
        error: the largest difference of any value, in pixel codes.
    """
    if error == 0:
        return "read back exactly"
    return "read back to float rounding" if error < NOTHING else f"read back to {error:.2g} pixel codes (of 255)"


def to_eight_bits(pictures: Pictures, outside: str = "scale") -> Rounded:
    """Pixel codes of pictures.

    Args:
        outside: one of :data:`OUTSIDE`.

    Raises:
        ValueError: another.
    """
    if outside not in OUTSIDE:
        raise ValueError(f"outside must be one of {', '.join(OUTSIDE)}, got {outside!r}")
    if pictures.images.dtype == torch.uint8:
        return Rounded(pictures, 0, 0, 0.0, outside == "clip")
    pixels = to_pixels(pictures.images, pictures.normalization)
    beyond = (pixels < -SLACK) | (pixels > 1 + SLACK)
    wide = beyond.flatten(1).any(1)
    scale, offset = torch.ones(len(pixels)), torch.zeros(len(pixels))
    if outside == "scale" and wide.any():
        low, high = pixels.flatten(1).min(1).values, pixels.flatten(1).max(1).values
        scale, offset = torch.where(wide, high - low, scale), torch.where(wide, low, offset)
        scale = torch.where(scale > 0, scale, torch.ones(()))  # an image of one colour
    codes = ((pixels - _each(offset)) / _each(scale) * 255).round().clamp(0, 255).to(torch.uint8)
    kept = bool(wide.any()) and outside == "scale"
    rounded = replace(pictures, images=codes, scale=scale if kept else None, offset=offset if kept else None)
    back = codes.to(torch.float32) / 255 * _each(scale) + _each(offset)
    return Rounded(rounded, int(beyond.sum()), int(wide.sum()), 255 * float((back - pixels).abs().max()), not kept)


def to_pixels(images: Tensor, normalization: Normalization | None) -> Tensor:
    """Network input on the scale on which a picture lies in [0, 1], float32 (n, c, h, w), not cut.

    Args:
        normalization: None takes the images as they are.
    """
    if normalization is None:
        return images.to(torch.float32)
    mean, std = (torch.tensor(values, dtype=torch.float32).view(-1, 1, 1) for values in _constants(normalization))
    return images * std + mean


def channel_ranges(pictures: Pictures) -> tuple[Tensor, Tensor]:
    """Scale and offset of every image and channel by which codes become network input: ``code * scale + offset``.

    Returns:
        float32 (n, c) each.
    """
    n, channels = pictures.images.shape[:2]
    scale = torch.ones(n) if pictures.scale is None else pictures.scale
    offset = torch.zeros(n) if pictures.offset is None else pictures.offset
    mean, std = torch.zeros(channels), torch.ones(channels)
    if pictures.normalization is not None:
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in _constants(pictures.normalization))
    step = scale.double()[:, None] / 255 / std
    return step.float(), ((offset.double()[:, None] - mean) / std).float()


def _constants(normalization: Normalization) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return normalization.mean, normalization.std


def _each(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
