"""Pictures that are kept smaller than they are trained on: each by itself, or several in the place of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clreplay.data import Normalization
from clreplay.memory.decoders import joined

Parts = Mapping[str, Tensor]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class SmallerStore:
    """A store whose pictures are brought to ``pixels`` x ``pixels`` first, and enlarged bilinearly when trained on.

    Codes, ranges and bytes are those of the small pictures. It cannot be undone, and pictures that are as small
    already, or smaller, are kept as they are.

    Attributes:
        inner: the :class:`clreplay.memory.stores.Store` of the small pictures.
        pixels: height and width.
    """

    inner: Any
    pixels: int

    def shape(self, shape: Shape) -> Shape:
        """Of what is kept of an image (c, h, w)."""
        channels, height, width = shape
        return channels, min(height, self.pixels), min(width, self.pixels)

    def _small(self, images: Tensor) -> Tensor:
        _, *shape = images.shape
        _, height, width = self.shape((shape[0], shape[1], shape[2]))
        return shrink(images, height, width)

    def encode(self, images: Tensor, normalization: Normalization | None) -> dict[str, Tensor]:
        """See :class:`clreplay.memory.stores.Store`, as for all that follows."""
        found: dict[str, Tensor] = self.inner.encode(self._small(images), normalization)
        return found

    def decode(self, parts: Parts, count: int, shape: Shape, normalization: Normalization | None) -> Tensor:
        """Enlarged."""
        small: Tensor = self.inner.decode(parts, count, self.shape(shape), normalization)
        if small.shape[1:] == shape:
            return small
        return F.interpolate(small, size=shape[1:], mode="bilinear", align_corners=False)

    def check_channels(self, channels: int) -> None:
        """Those of the inner store."""
        self.inner.check_channels(channels)

    def first(self, parts: Parts, count: int) -> dict[str, Tensor]:
        """Those of the inner store."""
        found: dict[str, Tensor] = self.inner.first(parts, count)
        return found

    def count_for(self, size: int, sample: Tensor, condensed: bool, normalization: Normalization | None) -> int:
        """Of small pictures."""
        found: int = self.inner.count_for(size, self._small(sample), condensed, normalization)
        return found

    def encode_within(
        self, images: Tensor, sizes: Sequence[int], normalization: Normalization | None
    ) -> tuple[dict[str, Tensor], int]:
        """Of small pictures."""
        found: tuple[dict[str, Tensor], int] = self.inner.encode_within(self._small(images), sizes, normalization)
        return found

    def count_within(self, parts: Parts, count: int, size: int) -> int:
        """Those of the inner store."""
        found: int = self.inner.count_within(parts, count, size)
        return found

    def names(self) -> tuple[tuple[str, ...], ...]:
        """Those of the inner store."""
        found: tuple[tuple[str, ...], ...] = self.inner.names()
        return found

    def check(self, parts: Parts, count: int, shape: Shape, what: str) -> None:
        """Of small pictures."""
        self.inner.check(parts, count, self.shape(shape), what)


def shrink(images: Tensor, height: int, width: int) -> Tensor:
    """Images at another, smaller size: every pixel the weighted mean of those it covers.

    Args:
        images: (k, c, h, w), uint8 or float32.
        height, width: at most h and w.

    Returns:
        (k, c, height, width) of the same kind.
    """
    h, w = images.shape[2:]
    if (h, w) == (height, width):
        return images
    values = images.to(torch.float32)
    if h % height == w % width == 0:
        small = F.avg_pool2d(values, (h // height, w // width))
    else:
        small = F.interpolate(values, (height, width), mode="bilinear", align_corners=False, antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8) if images.dtype == torch.uint8 else small


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
    return joined(shrink(images, *(side // factor for side in images.shape[2:])), factor)
