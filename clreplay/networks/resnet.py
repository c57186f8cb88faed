"""ResNet-18 with the stem for small images, with instance norm by default."""

from __future__ import annotations

from torch import Tensor, nn

from clreplay.networks.base import ImageSize, Network, Tap, in_pixels, norm_layer
from clreplay.networks.convnet import AveragePool2
from clreplay.networks.table import register_network

_WIDTHS = (64, 128, 256, 512)
_FINAL_POOL = 4


@register_network("ResNet18BN_AP", norm="batch", average_pooling=True)
@register_network("ResNet18_AP", average_pooling=True)
@register_network("ResNet18BN", norm="batch")
@register_network("ResNet18")
class ResNet18(Network):
    """A 3x3 stem without pooling, four stages of two basic blocks, 4x4 average pooling, one linear layer.

    Source: He et al. 2016, in the version of DC, DSA, DM and DDM: no convolution has a bias, and 32-pixel
    images give 512 values. Larger ones leave more than one position after the fixed 4x4 pooling (2048 values at
    64 pixels) and get the linear layer that fits, as in the DDM authors' code.

    The taps are post-ReLU maps: of the stem, then of the first stages (the last block's, after the addition). Taps
    before are those of the last convolution of a stage and of its norm, before the addition.
    The DDM authors' code reads two stages.

    Args:
        num_classes, channels, image_size: see :class:`Network`.
        norm: ``instance`` (affine) or ``batch``.
        average_pooling: replace every stride of 2 by 2x2 average pooling, and leave out the final pooling
            (8192 values at 32 pixels): the literature's ``_AP``.
        tapped_stages: stages that give a tap, 0 to 4.

    Raises:
        ValueError: an option is unknown, or the images are too small: the final pooling needs 4x4 maps, and
            instance norm more than one position.
    """

    NORMS = ("instance", "batch")

    def __init__(
        self,
        num_classes: int,
        channels: int = 3,
        image_size: ImageSize = 32,
        norm: str = "instance",
        average_pooling: bool = False,
        tapped_stages: int = 2,
    ) -> None:
        super().__init__(num_classes, channels, image_size)
        self.check({"norm": norm})
        if not 0 <= tapped_stages <= len(_WIDTHS):
            raise ValueError(f"tapped_stages must be within 0..{len(_WIDTHS)}, got {tapped_stages}")
        smallest = 25 if not average_pooling else 16 if norm == "instance" else 8
        if min(self.sides) < smallest:
            kind = f"ResNet18 with {norm} norm{' and average pooling' if average_pooling else ''}"
            raise ValueError(f"{kind} needs images of at least {smallest} pixels, got {in_pixels(self.sides)}")
        self.tapped_stages = tapped_stages
        self.stem = nn.Sequential(_conv3(channels, _WIDTHS[0]), norm_layer(norm, _WIDTHS[0]), nn.ReLU())
        stages, sides, before = [], list(self.sides), _WIDTHS[0]
        for index, width in enumerate(_WIDTHS):
            stride = 1 if index == 0 else 2
            first = _BasicBlock(before, width, stride, norm, average_pooling)
            stages.append(nn.Sequential(first, _BasicBlock(width, width, 1, norm, average_pooling)))
            sides = [side // stride if average_pooling else -(-side // stride) for side in sides]
            before = width
        self.stages = nn.ModuleList(stages)
        self.pool = nn.Identity() if average_pooling else nn.AvgPool2d(_FINAL_POOL)
        sides = sides if average_pooling else [side // _FINAL_POOL for side in sides]
        self.embedding_size = before * sides[0] * sides[1]
        self.classifier = nn.Linear(self.embedding_size, num_classes)

    def _embed(self, images: Tensor, tap: Tap) -> Tensor:
        conv, norm, activation = self.stem
        convolved = conv(images)
        normed = norm(convolved)
        maps = activation(normed)
        _tap_all(tap, convolved, normed, maps)
        for index, (first, last) in enumerate(self.stages):
            convolved, normed, maps = last.steps(first(maps))
            if index < self.tapped_stages:
                _tap_all(tap, convolved, normed, maps)
        return self.pool(maps).flatten(1)


def _tap_all(tap: Tap, convolved: Tensor, normed: Tensor, maps: Tensor) -> None:
    """No pooling follows at once, so what is tapped after it is the activated map."""
    for tapped, point in ((convolved, "conv"), (normed, "norm"), (maps, "act"), (maps, "pool")):
        tap(tapped, point)


class _BasicBlock(nn.Module):
    def __init__(self, before: int, width: int, stride: int, norm: str, average_pooling: bool) -> None:
        super().__init__()
        shrinks = stride != 1
        stride = 1 if average_pooling else stride

        def pool() -> nn.Module:
            return AveragePool2() if shrinks and average_pooling else nn.Identity()

        self.body = nn.Sequential(
            _conv3(before, width, stride),
            norm_layer(norm, width),
            nn.ReLU(),
            pool(),
            _conv3(width, width),
            norm_layer(norm, width),
        )
        self.shortcut = nn.Sequential()
        if shrinks or before != width:
            conv = nn.Conv2d(before, width, 1, stride=stride, bias=False)
            # Pooled first, a 1x1 convolution has a quarter of the work and the same outcome.
            self.shortcut = nn.Sequential(pool(), conv, norm_layer(norm, width))
        self.activation = nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        return self.steps(maps)[2]

    def steps(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The last convolution's output, the same after its norm, and the block's output."""
        convolved = self.body[:-1](maps)
        normed = self.body[-1](convolved)
        return convolved, normed, self.activation(normed + self.shortcut(maps))


def _conv3(before: int, width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)
