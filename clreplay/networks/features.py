"""Features that a network gives for the images of several classes, as every term of a matching loss reads them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Moments(NamedTuple):
    """Of every image and channel of a tap: mean and mean square over its ``pixels``, (..., n, channels) each."""

    first: Tensor
    second: Tensor
    pixels: int


class Features(NamedTuple):
    """Features of ``classes`` x ``n`` images.

    Attributes:
        embedding: (classes, n, d), the flattened pooled map of the last block.
        taps: one (classes, n, channels, h, w) map a block, post-activation and pre-pooling. Empty if no
            term reads maps and the forward pass did not write them.
        moments: of every tap, if the forward pass computed them; None otherwise.
    """

    embedding: Tensor
    taps: list[Tensor]
    moments: list[Moments] | None = None

    @classmethod
    def of(
        cls,
        classes: int,
        embedding: Tensor,
        taps: list[Tensor],
        moments: list[Moments] | None = None,
    ) -> Features:
        """Split the leading (classes * n) axis of a network's output into classes and images."""

        def split(tensor: Tensor) -> Tensor:
            return tensor.unflatten(0, (classes, -1))

        return cls(
            split(embedding),
            [split(tap) for tap in taps],
            None if moments is None else [Moments(split(m.first), split(m.second), m.pixels) for m in moments],
        )
