"""From images to features: one forward pass, by PyTorch's own layers or by blocks that fuse all layers between
two convolutions.

The kernels differ in speed and in float rounding, not in what they compute:

- ``eager`` runs the network's own layers, for every network and device.
- ``native`` runs :mod:`clreplay.networks.kernels` on a CPU: instance norm, ReLU, moments and pooling in one pass over a
  channels-last map, compiled once a machine by its C compiler.
- ``compiled`` has ``torch.compile`` fuse the same block, on GPUs above all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clreplay.networks.convnet import ConvNet, suits_network
from clreplay.networks.features import Features, Moments
from clreplay.networks.kernels import build
from clreplay.networks.kernels.block import Block, norm_relu_pool
from clreplay.runtime.precision import forward_in

KERNELS = ("auto", "eager", "native", "compiled")
LAYOUTS = ("auto", "contiguous", "channels_last")

_Block = Callable[[Tensor, nn.GroupNorm, bool, torch.dtype], Block]


def fusible(network: nn.Module, kernels: str, device: torch.device) -> str | None:
    """Why blocks of this network cannot be fused on this device; None if they can."""
    if kernels == "eager":
        return None
    if not isinstance(network, ConvNet):
        return f"{type(network).__name__} is not a ConvNet"
    if kernels == "native":
        if device.type != "cpu":
            return f"native kernels run on a CPU, not on {device.type}"
        if (failure := build.failure()) is not None:
            return failure
    if not suits_network(network):
        return "it needs instance norm, relu, avg pooling, a width that is a multiple of 16 and even maps"
    return None


class Forward:
    """A way to run a network forward; the weights are constants, the images may want a gradient.

    Args:
        network: on its device.
        kernels: ``eager``, ``native`` or ``compiled``.
        layout: of maps under ``eager`` and ``compiled``: ``contiguous`` or ``channels_last``.
        precision: ``float32`` or ``bfloat16`` of the convolutions; statistics are always single precision.

    Raises:
        ValueError: these kernels cannot run this network here.
    """

    def __init__(self, network: nn.Module, kernels: str, layout: str, precision: str) -> None:
        self.network, self.layout = network, layout
        self.precision, self.low = precision, precision == "bfloat16"
        device = next(network.parameters()).device
        if (why := fusible(network, kernels, device)) is not None:
            raise ValueError(f"kernels={kernels!r} cannot run this network: {why}; use kernels='auto'")
        self._block: _Block | None = {"eager": None, "native": norm_relu_pool, "compiled": _compiled_block}[kernels]

    def __call__(self, images: Tensor, maps: Collection[str] = ("act",), moments: Collection[str] = ()) -> Features:
        """Features of (classes, n, c, h, w) images.

        Args:
            images: normalised and augmented already.
            maps: points (:data:`clreplay.networks.base.TAP_POINTS`) at which terms read the maps themselves; fused
                blocks do not write out others.
            moments: points at which terms read mean and mean square of the maps only; where a forward pass does not
                come by them anyway, it gives the maps.
        """
        flat = images.flatten(0, 1)
        if self.layout == "channels_last" or self._block is norm_relu_pool:
            flat = flat.contiguous(memory_format=torch.channels_last)
        if self._block is None:
            return self._by_layers(len(images), flat, {*maps, *moments})
        return self._by_blocks(len(images), flat, self._block, {*maps}, {*moments})

    def _by_layers(self, classes: int, images: Tensor, points: set[str]) -> Features:
        with forward_in(self.precision, images.device):
            embedding, taps = self.network.features_at(images, points)
        if self.low:
            embedding = embedding.float()
            taps = {point: [tap.float() for tap in found] for point, found in taps.items()}
        others = {point: (found, None) for point, found in taps.items() if point != "act"}
        return Features.of(classes, embedding, taps.get("act", []), elsewhere=others)

    def _by_blocks(
        self, classes: int, images: Tensor, fused: _Block, maps_at: set[str], moments_at: set[str]
    ) -> Features:
        dtype = torch.bfloat16 if self.low else torch.float32
        others = {point for point in (*maps_at, *moments_at) if point != "act"}
        maps, taps, moments = images.to(dtype), [], []
        elsewhere: dict[str, tuple[list[Tensor], list[Moments] | None]] = {
            point: ([], [] if point == "conv" else None) for point in others
        }
        for block in self.network.blocks:
            conv = block.conv
            out = F.conv2d(maps, conv.weight.to(dtype), conv.bias.to(dtype), padding=conv.padding)
            last, pixels = block is self.network.blocks[-1], out.shape[2] * out.shape[3]
            found = fused(out, block.norm, "act" in maps_at, torch.float32 if last else dtype)
            maps = found.pooled
            taps.append(found.rectified)
            moments.append(Moments(found.first, found.second, pixels))
            if "conv" in others:
                if "conv" in maps_at:
                    elsewhere["conv"][0].append(out.float())
                elsewhere["conv"][1].append(Moments(found.mean, found.mean_square, pixels))
            if "norm" in others:  # no fused block writes it out: once more, by PyTorch's own layer
                elsewhere["norm"][0].append(block.norm(out.float()))
            if "pool" in others:
                elsewhere["pool"][0].append(maps.float())
        return Features.of(classes, maps.flatten(1), taps if "act" in maps_at else [], moments, elsewhere)


def plain_block(
    out: Tensor, scale: Tensor, shift: Tensor, eps: float, keep_map: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor, Tensor]:
    """Instance norm, ReLU, 2x2 average pooling and moments, in elementary operations a compiler can fuse.

    Args:
        out: (n, c, h, w), the convolution's output; everything is computed in single precision.
        scale, shift, eps: of the norm, (c,).
        keep_map: whether to return the rectified map.
        dtype: of the pooled map.

    Returns:
        the fields of :class:`clreplay.networks.kernels.block.Block`.
    """
    out = out.float()
    mean = out.mean((2, 3), keepdim=True)
    centred = out - mean
    variance = centred.square().mean((2, 3), keepdim=True)
    tap = (centred * (variance + eps).rsqrt() * scale[:, None, None] + shift[:, None, None]).relu()
    pooled = F.avg_pool2d(tap, 2).to(dtype)
    before = (mean[..., 0, 0], (variance + mean.square())[..., 0, 0])
    return pooled, tap if keep_map else None, tap.mean((2, 3)), tap.square().mean((2, 3)), *before


@functools.cache
def _compiler() -> Callable[..., tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor, Tensor]]:
    # Sizes are static: every layer is its own graph, one with and one without gradient. Sixteen graphs are
    # more than any depth needs, and past the limit PyTorch would fall back to eager in silence.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    return torch.compile(plain_block, dynamic=False)


def _compiled_block(out: Tensor, norm: nn.GroupNorm, keep_map: bool, dtype: torch.dtype) -> Block:
    return Block(*_compiler()(out, norm.weight, norm.bias, norm.eps, keep_map, dtype))
