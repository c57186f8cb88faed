"""The network that DD calls AlexNet on CIFAR-10; not the AlexNet of the methods after it."""

from __future__ import annotations

from torch import Tensor, nn

from clreplay.networks.base import ImageSize, Network, Tap, digits_padding
from clreplay.networks.table import register_network


@register_network("AlexCifarNet")
class AlexCifarNet(Network):
    """Two 5x5 convolutions of 64 with ReLU, local response norm and 3x3 max pooling of stride 2, then linear
    layers of 384, 192 and classes.

    Source: Wang et al. 2018 (DD), for 32-pixel images, where 4096 values leave the second convolution; 28-pixel
    digits are padded to 32 by the first, other sizes get the first linear layer that fits. The embedding is what
    the last linear layer reads (192 values); the taps are the two post-ReLU maps, before norm and pooling.

    Drawn anew it has PyTorch's default weights like every other network; DD's own are Xavier's, which a method
    draws itself (:mod:`clreplay.networks.flat_function`).

    Args:
        num_classes, channels, image_size: see :class:`Network`.

    Raises:
        ValueError: one of them is less than 1.
    """

    def __init__(self, num_classes: int, channels: int = 3, image_size: ImageSize = 32) -> None:
        super().__init__(num_classes, channels, image_size)
        extra = digits_padding(image_size)
        # A pooling keeps the larger half of odd maps.
        high, wide = (((side + 2 * extra + 1) // 2 + 1) // 2 for side in self.sides)
        self.convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, 64, 5, padding=padding), nn.ReLU())
            for before, padding in ((channels, 2 + extra), (64, 2))
        )
        pools, norms = ([make() for _ in range(2)] for make in (_pool, _response_norm))
        # DD pools before the first norm and after the second.
        self.after = nn.ModuleList([nn.Sequential(pools[0], norms[0]), nn.Sequential(norms[1], pools[1])])
        self.hidden = nn.Sequential(nn.Linear(64 * high * wide, 384), nn.ReLU(), nn.Linear(384, 192), nn.ReLU())
        self.embedding_size = 192
        self.classifier = nn.Linear(192, num_classes)

    def _embed(self, images: Tensor, tap: Tap) -> Tensor:
        maps = images
        for (conv, activation), after in zip(self.convs, self.after):
            maps = conv(maps)
            tap(maps, "conv")
            tap(maps, "norm")  # its norms come after the activation
            maps = activation(maps)
            tap(maps)
            maps = after(maps)
            tap(maps, "pool")
        return self.hidden(maps.flatten(1))


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, padding=1)


def _response_norm() -> nn.LocalResponseNorm:
    return nn.LocalResponseNorm(4, alpha=0.001 / 9, beta=0.75, k=1)
