"""The layers of a network that a term reads."""

from __future__ import annotations

from torch import Tensor

from clreplay.networks.features import Features


def check_named(layers: tuple[int, ...] | None) -> None:
    """A choice of layers must hold one.

    Raises:
        ValueError: it is empty.
    """
    if layers is not None and not layers:
        raise ValueError("layers must name at least one block (or be null for the default), got an empty list")


def check_layers(layers: tuple[int, ...] | None, count: int) -> list[int]:
    """Indices of layers of a network with ``count`` taps (all for ``None``).

    Raises:
        ValueError: the network has no such layer.
    """
    if layers is None:
        return list(range(count))
    for layer in layers:
        if not 0 <= layer < count:
            raise ValueError(f"layers must be within 0..{count - 1} for this network, got {layer}")
    return list(layers)


def chosen_taps(features: Features, layers: tuple[int, ...] | None) -> list[Tensor]:
    """The taps at ``layers`` (all for ``None``).

    Raises:
        ValueError: the network has no such layer.
    """
    return [features.taps[layer] for layer in check_layers(layers, len(features.taps))]
