"""The layers of a network that a term reads."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from functools import reduce

from torch import Tensor

from clreplay.networks.features import Features


def check_named(layers: tuple[int, ...] | None) -> None:
    """A choice of layers must hold one.

    Raises:
        ValueError: it is empty.
    """
    if layers is not None and not layers:
        raise ValueError("layers must name at least one block (or be null for the default), got an empty list")


def total(values: Iterable[Tensor]) -> Tensor:
    """Of several tensors, in their order; there is at least one."""
    return reduce(operator.add, values)


def check_layers(layers: tuple[int, ...] | None, count: int) -> list[int]:
    """Indices of layers of a network with ``count`` taps (all for ``None``).

    Raises:
        ValueError: the network has no such layer, or none at all.
    """
    if not count:
        raise ValueError(
            "this network gives no maps for a term to read; name the modules that give them, as style=[...] of "
            "register_module, or leave the term out"
        )
    if layers is None:
        return list(range(count))
    for layer in layers:
        if not 0 <= layer < count:
            raise ValueError(f"layers must be within 0..{count - 1} for this network, got {layer}")
    return list(layers)


def chosen_taps(features: Features, layers: tuple[int, ...] | None, tap: str = "act") -> list[Tensor]:
    """The taps of ``layers`` (all for ``None``) at one of :data:`clreplay.networks.base.TAP_POINTS`.

    Raises:
        ValueError: the network has no such layer.
    """
    taps = features.at(tap).taps
    return [taps[layer] for layer in check_layers(layers, len(taps))]
