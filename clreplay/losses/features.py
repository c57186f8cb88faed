"""What a network says about the images of several classes, as every term of a matching loss reads it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Features(NamedTuple):
    """Features of ``classes`` x ``n`` images.

    Attributes:
        embedding: (classes, n, d), the flattened pooled map of the last block.
        taps: one (classes, n, channels, h, w) map a block, post-activation and pre-pooling.
    """

    embedding: Tensor
    taps: list[Tensor]

    @classmethod
    def of(cls, classes: int, embedding: Tensor, taps: list[Tensor]) -> Features:
        """Split the leading (classes * n) axis of a network's output into classes and images."""
        return cls(embedding.unflatten(0, (classes, -1)), [tap.unflatten(0, (classes, -1)) for tap in taps])


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """A typo must not silently select another reading of a formula.

    Raises:
        ValueError: naming what is allowed.
    """
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
