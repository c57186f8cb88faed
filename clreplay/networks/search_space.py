"""The 720 ConvNets among which condensed images are to find the best (DDM, supplement F; before it DC and DM)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

WIDTHS = (32, 64, 128, 256)
DEPTHS = (1, 2, 3, 4)
NORMS = ("none", "batch", "layer", "instance", "group")
ACTIVATIONS = ("sigmoid", "relu", "leakyrelu")
POOLINGS = ("none", "max", "avg")


def search_space() -> Iterator[dict[str, Any]]:
    """The options of every ConvNet of the space, 4 x 4 x 5 x 3 x 3, always in the same order.

    Each fits :class:`clreplay.networks.ConvNet`, :func:`clreplay.networks.build_network` and
    :class:`clreplay.training.settings.TrainingSettings` as keywords.

    Example:
        >>> networks = [ConvNet(10, **options) for options in search_space()]
    """
    for width, depth, norm, activation, pooling in product(WIDTHS, DEPTHS, NORMS, ACTIVATIONS, POOLINGS):
        yield {"width": width, "depth": depth, "norm": norm, "activation": activation, "pooling": pooling}
