"""What a host measures of one network after a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from clreplay.data import ImageSet


class Measured(NamedTuple):
    """Of one network.

    Attributes:
        accuracy: percent of all test images.
        seconds: of training.
        parts: percent of every part of the test images, where there are several: domains.
    """

    accuracy: float
    seconds: float
    parts: tuple[float, ...]


def measured(values: Sequence[float], test: Sequence[ImageSet], seconds: float) -> Measured:
    """From the accuracy on every part of the test images, in percent; the whole is that on all images."""
    if len(values) == 1:
        return Measured(values[0], seconds, (values[0],))
    right = sum(round(value * len(part) / 100) for value, part in zip(values, test))
    return Measured(100.0 * right / sum(map(len, test)), seconds, tuple(values))
