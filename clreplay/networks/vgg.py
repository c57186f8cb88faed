"""VGG-11 for small images, with one linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from clreplay.networks.base import ImageSize, Network, Tap, digits_padding, in_pixels, norm_layer
from clreplay.networks.table import register_network

# Width, and whether a 2x2 max pooling follows the activation.
_LAYERS = ((64, True), (128, True), (256, False), (256, True), (512, False), (512, True), (512, False), (512, True))


@register_network("VGG11BN", norm="batch")
@register_network("VGG11")
class VGG11(Network):
    """Eight 3x3 convolutions with norm and ReLU, five 2x2 max poolings, one linear layer.

    Source: Simonyan & Zisserman 2015, in the version of DC, DSA, DM and DDM: 32-pixel images give 512 values,
    28-pixel digits are padded to 32 by the first convolution. Larger images, which their fixed linear layer
    refuses, get the linear layer that fits. The taps are the eight post-ReLU, pre-pooling maps.

    Args:
        num_classes, channels, image_size: see :class:`Network`.
        norm: ``instance`` (affine) or ``batch``.

    Raises:
        ValueError: an option is unknown, or nothing is left of the images after five poolings.
    """

    NORMS = ("instance", "batch")

    def __init__(self, num_classes: int, channels: int = 3, image_size: ImageSize = 32, norm: str = "instance") -> None:
        super().__init__(num_classes, channels, image_size)
        self.check({"norm": norm})
        extra = digits_padding(image_size)
        high, wide = ((side + 2 * extra) // 2**5 for side in self.sides)
        if min(high, wide) < 1:
            got = in_pixels(self.sides)
            raise ValueError(f"VGG11 needs images of at least 32 pixels, or of 28, which are padded to 32; got {got}")
        blocks, width = [], channels
        for index, (out, pooled) in enumerate(_LAYERS):
            conv = nn.Conv2d(width, out, 3, padding=1 + (extra if index == 0 else 0))
            pool = nn.MaxPool2d(2) if pooled else nn.Identity()
            blocks.append(nn.ModuleList([nn.Sequential(conv, norm_layer(norm, out), nn.ReLU()), pool]))
            width = out
        self.blocks = nn.ModuleList(blocks)
        self.embedding_size = width * high * wide
        self.classifier = nn.Linear(self.embedding_size, num_classes)

    def _embed(self, images: Tensor, tap: Tap) -> Tensor:
        maps = images
        for (conv, norm, activation), pool in self.blocks:
            maps = conv(maps)
            tap(maps, "conv")
            maps = norm(maps)
            tap(maps, "norm")
            maps = activation(maps)
            tap(maps)
            maps = pool(maps)
            tap(maps, "pool")
        return maps.flatten(1)
