"""A multilayer perceptron on pixels."""

from __future__ import annotations

from torch import Tensor, nn

from clreplay.networks.base import ImageSize, Network, Tap
from clreplay.networks.table import register_network


@register_network("MLP")
class MLP(Network):
    """Two hidden linear layers of 128 with ReLU, one linear layer; images of any size.

    Source: DC's comparison across architectures. The taps are the hidden activations as maps of one pixel,
    (n, 128, 1, 1): their channel means and correlations can be matched, and their spread is always zero.

    Args:
        num_classes, channels, image_size: see :class:`Network`.

    Raises:
        ValueError: one of them is less than 1.
    """

    WIDTH = 128

    def __init__(self, num_classes: int, channels: int = 3, image_size: ImageSize = 32) -> None:
        super().__init__(num_classes, channels, image_size)
        sizes = (channels * self.sides[0] * self.sides[1], self.WIDTH, self.WIDTH)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in zip(sizes, sizes[1:]))
        self.embedding_size = self.WIDTH
        self.classifier = nn.Linear(self.WIDTH, num_classes)

    def _embed(self, images: Tensor, tap: Tap) -> Tensor:
        values = images.flatten(1)
        for linear, activation in self.layers:
            values = linear(values)
            for point in ("conv", "norm"):
                tap(values[:, :, None, None], point)
            values = activation(values)
            for point in ("act", "pool"):
                tap(values[:, :, None, None], point)
        return values
