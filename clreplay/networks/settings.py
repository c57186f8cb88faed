"""Settings of a network: its name and its options, as recipes and the command line give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from clreplay.networks.base import ImageSize, Network, size_of
from clreplay.networks.table import build_network, find_network, network_options

_OPTIONS = ("width", "depth", "norm", "activation", "pooling")


@dataclass(frozen=True)
class NetworkSettings:
    """A network: its name and its options.

    Attributes:
        network: any name of :func:`clreplay.networks.network_names`, in any case. What the name stands for
            (``convnetbn``: ``norm`` batch) is written into the option's field.
        width, depth, norm, activation, pooling: see :class:`clreplay.networks.ConvNet`; ``depth`` None follows
            the resolution. At its default, an option is left to the network, so those that it does not have
            must stay there.

    Raises:
        ValueError: a name or an option is unknown or wrong, or the network has no such option.
    """

    network: str = "convnet"
    width: int = 128
    depth: int | None = None
    norm: str = "instance"
    activation: str = "relu"
    pooling: str = "avg"

    def __post_init__(self) -> None:
        entry, given = find_network(self.network), self._given()
        for option, value in given.items():
            if option not in entry.options():
                default = NetworkSettings.__dataclass_fields__[option].default
                raise ValueError(
                    f"{option} must stay at {default!r} with network {entry.name}, which has no {option}; got {value!r}"
                )
        chosen = network_options(entry.name, given)
        # One spelling of the name; and a name that stands for batch norm must set ``norm``, which other code reads.
        object.__setattr__(self, "network", entry.name.lower())
        for option in _OPTIONS:
            object.__setattr__(self, option, chosen.get(option, getattr(self, option)))

    def _given(self) -> dict[str, Any]:
        """The options that are not at their default."""
        defaults = {option: NetworkSettings.__dataclass_fields__[option].default for option in _OPTIONS}
        return {option: getattr(self, option) for option in _OPTIONS if getattr(self, option) != defaults[option]}

    @property
    def network_is_traced(self) -> bool:
        """Whether a change of the network's code would be noticed."""
        return find_network(self.network).network.TRACED

    def summary(self) -> str:
        """The network in words: its name, and its width where that is an option."""
        entry = find_network(self.network)
        return f"{entry.name} of width {self.width}" if "width" in entry.options() else entry.name

    def build_for(self, num_classes: int, shape: Sequence[int]) -> Network:
        """:meth:`build` for images of a shape (channels, height, width)."""
        return self.build(num_classes, shape[0], size_of(shape[1:]))

    def build(self, num_classes: int, channels: int, image_size: ImageSize) -> Network:
        """A network for images of this shape, whose weights are still to be drawn from a keyed chance.

        The global generator is left as it was, so weights that are not redrawn are the same in every network.
        """
        with torch.random.fork_rng(devices=[]):
            return build_network(self.network, num_classes, channels, image_size, **self._given())


def network_settings(network: str) -> dict[str, Any]:
    """The settings that choose a network; those without a width want it left at its default by small presets."""
    entry = find_network(network)
    return {"network": entry.name.lower(), **({} if "width" in entry.options() else {"width": NetworkSettings.width})}
