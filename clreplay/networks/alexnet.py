"""AlexNet for small images, as the condensation literature cuts it down."""

from __future__ import annotations

from torch import Tensor, nn

from clreplay.networks.base import ImageSize, Network, Tap, digits_padding, in_pixels, norm_layer
from clreplay.networks.table import register_network

# Width, kernel size, and whether a 2x2 max pooling follows the activation.
_LAYERS = ((128, 5, True), (192, 5, True), (256, 3, False), (192, 3, False), (192, 3, True))


@register_network("AlexNetBN", norm="batch")
@register_network("AlexNet")
class AlexNet(Network):
    """Five convolutions with ReLU, three 2x2 max poolings, one linear layer; no norm layers by default.

    Source: Krizhevsky et al. 2012, in the version of DC, DSA, DM and DDM: 32-pixel images give 3072 values,
    28-pixel digits are padded to 32 by the first convolution. Other sizes, which their fixed linear layer
    refuses, get the linear layer that fits.

    The taps are the outputs of the first two max poolings, the style layers of the DDM authors' code: the one
    network there whose taps are pooled.

    Args:
        num_classes, channels, image_size: see :class:`Network`.
        norm: ``none`` or ``batch``, after every convolution.

    Raises:
        ValueError: an option is unknown, or the images are smaller than 8 pixels.
    """

    NORMS = ("none", "batch")

    def __init__(self, num_classes: int, channels: int = 3, image_size: ImageSize = 32, norm: str = "none") -> None:
        super().__init__(num_classes, channels, image_size)
        self.check({"norm": norm})
        if min(self.sides) < 8:
            raise ValueError(f"AlexNet needs images of at least 8 pixels, got {in_pixels(self.sides)}")
        blocks, extra, width = [], digits_padding(image_size), channels
        height, wide = (side + 2 * extra for side in self.sides)
        for index, (out, kernel, pooled) in enumerate(_LAYERS):
            conv = nn.Conv2d(width, out, kernel, padding=kernel // 2 + (extra if index == 0 else 0))
            parts = [conv, norm_layer(norm, out), nn.ReLU(), nn.MaxPool2d(2) if pooled else nn.Identity()]
            blocks.append(nn.Sequential(*parts))
            width, height, wide = out, height // (1 + pooled), wide // (1 + pooled)
        self.blocks = nn.ModuleList(blocks)
        self.embedding_size = width * height * wide
        self.classifier = nn.Linear(self.embedding_size, num_classes)

    def _embed(self, images: Tensor, tap: Tap) -> Tensor:
        maps = images
        for index, (conv, norm, activation, pool) in enumerate(self.blocks):
            convolved = conv(maps)
            normed = norm(convolved)
            maps = pool(activation(normed))
            if index < 2:
                tap(convolved, "conv")
                tap(normed, "norm")
                tap(maps)
                tap(maps, "pool")
        return maps.flatten(1)
