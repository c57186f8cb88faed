"""Where the network of an iteration comes from: a fresh draw each time."""

from __future__ import annotations

from typing import Any

from torch import nn

from clreplay.networks import FlatParameters
from clreplay.runtime.seeding import generator


class FreshNetworks:
    """A new random network whenever the number changes; the draw is keyed by (seed, "network", number).

    Another source of networks has the same four methods, and holds one ``network`` whose weights it changes in
    place: the engine looks at that object only.

    Args:
        network: on its device; its parameters become views of one flat buffer and need no gradient.
        seed: of all chance.
    """

    def __init__(self, network: nn.Module, seed: int) -> None:
        network.train()  # batch norm, where chosen, uses the batch's own statistics
        self.network, self.seed = network, seed
        self.parameters = FlatParameters(network)
        self._number: int | None = None

    def take(self, number: int) -> None:
        """Give ``network`` the weights of this number."""
        if number != self._number:
            device = self.parameters.buffer.device
            self.parameters.redraw(generator(self.seed, "network", number, device=device))
            self._number = number

    def advance(self, number: int) -> None:
        """All classes have moved with this network: the place to train networks that live on."""

    def state_dict(self, number: int) -> dict[str, Any]:
        """What the networks are beyond their draw, as it was before ``advance(number)``: nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was taken."""
        self._number = None
