"""ConvNet: the reference network of the condensation literature ("ConvNet-3", "ConvNetD3")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from clreplay.networks.base import (
    ImageSize,
    Network,
    Tap,
    digits_padding,
    in_pixels,
    norm_layer,
    sides_of,
    size_of,
)
from clreplay.networks.kernels import build
from clreplay.networks.kernels.block import LANES, norm_relu_pool
from clreplay.networks.table import register_network


class AveragePool2(nn.Module):
    """2x2 average pooling with stride 2; an odd last row or column is dropped, as ``nn.AvgPool2d(2)`` does.

    PyTorch's CPU kernel for contiguous maps is slow: row sums, then pair sums are about eight times faster.
    """

    def forward(self, maps: Tensor) -> Tensor:
        even = maps.shape[-1] % 2 == 0 and maps.shape[-2] % 2 == 0
        if maps.device.type == "cpu" and even and maps.is_contiguous():
            return _PairwisePool.apply(maps)
        return nn.functional.avg_pool2d(maps, 2)


class _PairwisePool(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(maps: Tensor) -> Tensor:
        rows = maps[..., 0::2, :] + maps[..., 1::2, :]
        return (rows[..., 0::2] + rows[..., 1::2]) * 0.25

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass  # linear: its gradient needs nothing of the forward pass

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        *outer, h, w = gradient.shape
        spread = (gradient * 0.25)[..., :, None, :, None].expand(*outer, h, 2, w, 2)
        return spread.reshape(*outer, 2 * h, 2 * w)


NORMS = ("instance", "batch", "layer", "group", "none")
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    # Never in place: the activation's output is a style tap and must not alias the norm's output.
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "leakyrelu": lambda: nn.LeakyReLU(0.01),
    "swish": nn.SiLU,
}
POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "avg": lambda: AveragePool2(),
    "max": lambda: nn.MaxPool2d(2),
    "none": nn.Identity,
}


def default_depth(image_size: ImageSize) -> int:
    """Blocks for a resolution: 3 up to 32 pixels, 4 up to 64, 5 above (DDM paper, section 4.2).

    Of images that are not square, their area counts, and the shorter side must outlast all poolings.
    """
    height, width = sides_of(image_size)
    depth = 3 if height * width <= 32**2 else 4 if height * width <= 64**2 else 5
    while height != width and min(height, width) < 2**depth and depth > 1:
        depth -= 1
    return depth


class ConvNet(Network):
    """``depth`` blocks of 3x3 convolution, norm, activation, 2x2 pooling, then one linear layer.

    Source: Gidaris & Komodakis 2018, as used by DC, DSA, DM and DDM. With the defaults it has 320,010
    parameters for 10 classes and 504,420 for 100. The embedding is the flattened, pooled map of the last block
    (2048 values at width 128 and the default depth); the taps are the post-activation, pre-pooling maps of all
    blocks, (n, width, h, w) each.

    The first convolution pads images of 28 pixels by 3, so that they become 32 wide, and all others by 1. DC's code,
    which the others copied, decides by channels instead: it pads every grey image by 3. The two agree on all sets of
    the papers, where grey images are MNIST's 28 pixels; of a grey set of another size we keep the size.

    Args:
        num_classes: outputs of the classifier.
        channels: channels of the images.
        image_size: height and width of the images in pixels; one number where they are alike.
        width: channels of every block.
        depth: number of blocks; ``None`` takes :func:`default_depth`.
        norm: ``instance`` (group norm with one group a channel, affine), ``batch``, ``layer``,
            ``group`` (4 groups) or ``none``.
        activation: ``relu``, ``sigmoid``, ``leakyrelu`` (slope 0.01) or ``swish``.
        pooling: ``avg``, ``max`` or ``none``.

    Raises:
        ValueError: an option is unknown, or the images are too small for the depth.

    Example:
        >>> net = ConvNet(10)
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    fused = False

    def __init__(
        self,
        num_classes: int,
        channels: int = 3,
        image_size: ImageSize = 32,
        width: int = 128,
        depth: int | None = None,
        norm: str = "instance",
        activation: str = "relu",
        pooling: str = "avg",
    ) -> None:
        super().__init__(num_classes, channels, image_size)
        depth = default_depth(image_size) if depth is None else depth
        check_options(width, depth, norm, activation, pooling)
        self.width, self.depth, self.norm = width, depth, norm

        blocks, sides, channels_in = [], list(self.sides), channels
        for index in range(depth):
            padding = 1 + (digits_padding(image_size) if index == 0 else 0)
            sides = [side + 2 * (padding - 1) for side in sides]
            blocks.append(_Block(channels_in, width, size_of(sides), padding, norm, activation, pooling))
            sides = sides if pooling == "none" else [side // 2 for side in sides]
            channels_in = width
            if min(sides) < 1:
                raise ValueError(
                    f"depth {depth} needs images of at least {2**depth} pixels, got {in_pixels(self.sides)}; "
                    "lower depth or use larger images"
                )
        self.blocks = nn.ModuleList(blocks)
        self.embedding_size = width * sides[0] * sides[1]
        self.classifier = nn.Linear(self.embedding_size, num_classes)

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> None:
        """See :func:`check_options`."""
        check_options(**options)

    def fuse(self) -> ConvNet:
        """From now on compute embedding and logits on a CPU by compiled kernels, where they suit this network.

        The same values to float rounding, in about half of the time, and gradients of first order only (no
        ``torch.func`` transforms, no gradients of gradients). Under ``torch.autocast`` convolutions and the maps
        between them are in its precision, the norms' statistics and the embedding in single precision.

        Returns:
            the network itself.
        """
        self.fused = suits_network(self) and build.failure() is None
        return self

    def embedding(self, images: Tensor) -> Tensor:
        """What the classifier reads: (n, embedding_size)."""
        if not (self.fused and images.device.type == "cpu" and images.dtype == torch.float32):
            return super().embedding(images)
        maps = images.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            low = block is not self.blocks[-1]
            maps = norm_relu_pool(block.conv(maps), block.norm, False, None if low else torch.float32).pooled
        return maps.flatten(1)

    def _embed(self, images: Tensor, tap: Tap) -> Tensor:
        maps = images
        for block in self.blocks:
            maps = block.conv(maps)
            tap(maps, "conv")
            maps = block.norm(maps)
            tap(maps, "norm")
            maps = block.activation(maps)
            tap(maps)
            maps = block.pool(maps)
            tap(maps, "pool")
        return maps.flatten(1)


class _Block(nn.Module):
    def __init__(
        self, channels_in: int, width: int, size: ImageSize, padding: int, norm: str, activation: str, pooling: str
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, width, kernel_size=3, padding=padding)
        self.norm = norm_layer(norm, width, size)
        self.activation = ACTIVATIONS[activation]()
        self.pool = POOLINGS[pooling]()


def check_options(
    width: int = 128, depth: int | None = None, norm: str = "instance", activation: str = "relu", pooling: str = "avg"
) -> None:
    """What can be said about the options of a :class:`ConvNet` before the images are known.

    Raises:
        ValueError: naming the option, its value and what is allowed.
    """
    for name, value in {"width": width, "depth": depth}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    choices = {"norm": (norm, NORMS), "activation": (activation, ACTIVATIONS), "pooling": (pooling, POOLINGS)}
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    if norm == "group" and width % 4:
        raise ValueError(f"width must be a multiple of 4 with norm='group', got {width}")


_VARIANTS: dict[str, dict[str, Any]] = {
    "ConvNet": {},
    **{f"ConvNetD{depth}": {"depth": depth} for depth in range(1, 6)},
    **{f"ConvNetW{width}": {"width": width} for width in (32, 64, 128, 256)},
    "ConvNetAS": {"activation": "sigmoid"},
    "ConvNetAR": {"activation": "relu"},
    "ConvNetAL": {"activation": "leakyrelu"},
    "ConvNetASwish": {"activation": "swish"},
    "ConvNetASwishBN": {"activation": "swish", "norm": "batch"},
    "ConvNetNN": {"norm": "none"},
    "ConvNetBN": {"norm": "batch"},
    "ConvNetLN": {"norm": "layer"},
    "ConvNetIN": {"norm": "instance"},
    "ConvNetGN": {"norm": "group"},
    "ConvNetNP": {"pooling": "none"},
    "ConvNetMP": {"pooling": "max"},
    "ConvNetAP": {"pooling": "avg"},
}
for _name, _fixed in _VARIANTS.items():
    register_network(_name, **_fixed)(ConvNet)


def suits_network(network: nn.Module) -> bool:
    """Whether every block of a ConvNet suits; see :func:`suits`."""
    height, width = network.sides
    for block in network.blocks:
        extra = 2 * (block.conv.padding[0] - 1)
        height, width = height + extra, width + extra
        if not suits(block.norm, block.activation, block.pool, (block.conv.out_channels, height, width)):
            return False
        height, width = height // 2, width // 2
    return True


def suits(norm: nn.Module, activation: nn.Module, pool: nn.Module, shape: tuple[int, int, int]) -> bool:
    """Whether the compiled block computes what these layers do to maps of ``shape`` (c, h, w)."""
    channels, height, width = shape
    return (
        isinstance(norm, nn.GroupNorm)
        and norm.num_groups == norm.num_channels == channels
        and norm.affine
        and type(activation) is nn.ReLU
        and type(pool) is AveragePool2
        and channels % LANES == 0
        and height % 2 == width % 2 == 0
    )
