"""LeNet with ReLU and max pooling."""

from __future__ import annotations

from torch import Tensor, nn

from clreplay.networks.base import ImageSize, Network, Tap, digits_padding, in_pixels
from clreplay.networks.table import register_network


@register_network("LeNet")
class LeNet(Network):
    """Two 5x5 convolutions of 6 and 16 with ReLU and 2x2 max pooling, then linear layers of 120, 84 and classes.

    Source: LeCun et al. 1998, in the version of DD and DC: 28-pixel digits are padded to 32 by the first
    convolution, and 400 values leave the second. Other sizes get the first linear layer that fits. The embedding
    is what the last linear layer reads (84 values); the taps are the two post-ReLU, pre-pooling maps.

    Args:
        num_classes, channels, image_size: see :class:`Network`.

    Raises:
        ValueError: the images are smaller than 16 pixels.
    """

    def __init__(self, num_classes: int, channels: int = 3, image_size: ImageSize = 32) -> None:
        super().__init__(num_classes, channels, image_size)
        if min(self.sides) < 16:
            raise ValueError(f"LeNet needs images of at least 16 pixels, got {in_pixels(self.sides)}")
        extra = digits_padding(image_size)
        high, wide = (((side + 2 * extra - 4) // 2 - 4) // 2 for side in self.sides)
        self.convs = nn.ModuleList([_conv(channels, 6, extra), _conv(6, 16)])
        self.pool = nn.MaxPool2d(2)
        self.hidden = nn.Sequential(nn.Linear(16 * high * wide, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU())
        self.embedding_size = 84
        self.classifier = nn.Linear(84, num_classes)

    def _embed(self, images: Tensor, tap: Tap) -> Tensor:
        maps = images
        for conv, activation in self.convs:
            maps = conv(maps)
            tap(maps, "conv")
            tap(maps, "norm")
            maps = activation(maps)
            tap(maps)
            maps = self.pool(maps)
            tap(maps, "pool")
        return self.hidden(maps.flatten(1))


def _conv(before: int, width: int, padding: int = 0) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, width, 5, padding=padding), nn.ReLU())
