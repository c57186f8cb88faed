"""Features that a network gives for the images of several classes, as every term of a matching loss reads them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

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
        elsewhere: the same two at other points than after the activation, by point, see :meth:`at`.
        images: (classes, n, c, h, w), what the network was shown: normalised and augmented.
    """

    embedding: Tensor
    taps: list[Tensor]
    moments: list[Moments] | None = None
    images: Tensor | None = None
    elsewhere: Mapping[str, tuple[list[Tensor], list[Moments] | None]] = MappingProxyType({})

    def at(self, point: str) -> Features:
        """The same with taps and moments at one of :data:`clreplay.networks.base.TAP_POINTS`.

        Raises:
            KeyError: the forward pass did not keep them.
        """
        if point == "act":
            return self
        taps, moments = self.elsewhere[point]
        return self._replace(taps=taps, moments=moments)

    @classmethod
    def of(
        cls,
        classes: int,
        embedding: Tensor,
        taps: list[Tensor],
        moments: list[Moments] | None = None,
        elsewhere: Mapping[str, tuple[list[Tensor], list[Moments] | None]] | None = None,
    ) -> Features:
        """Split the leading (classes * n) axis of a network's output into classes and images."""

        def split(tensor: Tensor) -> Tensor:
            return tensor.unflatten(0, (classes, -1))

        def at_point(taps: list[Tensor], moments: list[Moments] | None) -> tuple[Any, Any]:
            found = None if moments is None else [Moments(split(m.first), split(m.second), m.pixels) for m in moments]
            return [split(tap) for tap in taps], found

        others = {point: at_point(*pair) for point, pair in (elsewhere or {}).items()}
        return cls(split(embedding), *at_point(taps, moments), elsewhere=others)
