"""Style matching: channel moments and channel correlation of feature maps (DDM, eqs. 4 to 7).

By default maps are post-activation and pre-pooling: right after an instance norm the moments of every image are
constants, and matching them would be vacuous; before it they are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clreplay.losses.layers import check_layers, check_named, chosen_taps, total
from clreplay.losses.term import Term, register_term, setting
from clreplay.networks.base import TAP_POINTS
from clreplay.networks.features import Features, Moments
from clreplay.runtime.checks import check_choice, check_not_negative

EPSILON = 1e-5
"""Added to the variance before the root, as in AdaIN."""
RELATIVE_EPSILON = 1e-8
"""Added to the mean square of a real statistic before it divides."""
SPREADS = ("std", "biased_std", "var")
OVER_LAYERS = ("sum", "mean")


def channel_moments(maps: Tensor, sigma_of: str = "image", spread: str = "std") -> tuple[Tensor, Tensor]:
    """Set-averaged channel mean and spread of feature maps (DDM, eq. 4).

    Args:
        maps: (classes, n, channels, h, w).
        sigma_of: ``image`` averages the spread of every image over the set (the paper's text);
            ``mean_map`` takes the spread of the set's mean map (the authors' code). The target of the
            latter depends on how many images are averaged.
        spread: ``std`` is sqrt(unbiased variance + 1e-5); ``biased_std`` the same of the biased variance (the
            authors' second release); ``var`` the unbiased variance.

    Returns:
        mean and spread, (classes, channels) each.
    """
    check_choice("sigma_of", sigma_of, ("image", "mean_map"))
    check_choice("spread", spread, SPREADS)
    # The mean of means is the mean of the mean map: the first moment is the same in both readings.
    source = maps if sigma_of == "image" else maps.mean(1, keepdim=True)
    return _set_moments(*map_moments(source), spread)


def map_moments(maps: Tensor) -> Moments:
    """Mean and mean square of every map (classes, n, channels, h, w) over its pixels."""
    pixels = maps.flatten(3)
    count = pixels.shape[3]
    # Sums of squares, as a norm: torch's CPU ``std`` is a scalar Welford loop, 30 times slower, and squaring
    # the maps first writes all of them once more.
    return Moments(pixels.mean(3), torch.linalg.vector_norm(pixels, dim=3).square() / count, count)


def image_moments(features: Features, layer: int) -> tuple[Tensor, Tensor]:
    """The style of every image in a layer: mean and sqrt(biased variance + 1e-5), (classes, n, channels) each."""
    found = map_moments(features.taps[layer]) if features.moments is None else features.moments[layer]
    return found.first, _spreads(*found, "biased_std")


def _set_moments(mean: Tensor, second: Tensor, count: int, spread: str) -> tuple[Tensor, Tensor]:
    """Set-averaged mean and spread from mean and mean square over ``count`` pixels, (classes, n, channels) each.

    The maps are of order one with spread comparable to their mean, so nothing is lost by cancellation.
    """
    sigma = _spreads(mean, second, count, spread)
    return mean.mean(1), sigma.mean(1)


def _spreads(mean: Tensor, second: Tensor, count: int, spread: str) -> Tensor:
    """The spread of every map over its ``count`` pixels, from its mean and mean square."""
    unbiased = 1.0 if spread == "biased_std" else count / max(count - 1, 1)
    variance = (second - mean.square()).clamp_min(0) * unbiased
    return variance if spread == "var" else (variance + EPSILON).sqrt()


def gram(maps: Tensor) -> Tensor:
    """Set-averaged Gram matrix of maps (classes, n, channels, h, w), over ``channels * h * w``.

    Returns:
        (classes, channels, channels).

    Source: DDM, eqs. 5 and 6. The average of the images' Gram matrices is one tall product where the maps lie
    side by side already (channels-last) or copying them there is cheap (a GPU).
    """
    if maps.stride(2) == 1 and maps.shape[2] > 1:
        tall: Tensor = _TallGram.apply(maps)
        return tall
    return _gram_by_image(maps) if maps.device.type == "cpu" else _gram_tall(maps)


class _TallGram(torch.autograd.Function):
    """Channels-last maps of a set are one tall matrix T: the Gram matrix is T'T, its gradient T(G + G')."""

    @staticmethod
    def forward(maps: Tensor) -> Tensor:
        classes, n, channels, h, w = maps.shape
        tall = maps.permute(0, 1, 3, 4, 2).reshape(classes, n * h * w, channels)
        return torch.bmm(tall.transpose(1, 2), tall) / (n * channels * h * w)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (maps,) = ctx.saved_tensors
        classes, n, channels, h, w = maps.shape
        tall = maps.permute(0, 1, 3, 4, 2).reshape(classes, n * h * w, channels)
        # Autograd of the product would multiply once for either factor; they are the same matrix.
        both = (gradient + gradient.transpose(1, 2)) / (n * channels * h * w)
        found: Tensor = torch.bmm(tall, both).view(classes, n, h, w, channels).permute(0, 1, 4, 2, 3)
        return found


def _gram_by_image(maps: Tensor) -> Tensor:
    """On a CPU copying the maps side by side costs more than one tall product saves."""
    classes, n, channels, h, w = maps.shape
    flat = maps.flatten(3).flatten(0, 1)
    found: Tensor = torch.bmm(flat, flat.transpose(1, 2)).unflatten(0, (classes, n)).mean(1)
    return found / (channels * h * w)


def _gram_tall(maps: Tensor) -> Tensor:
    classes, n, channels, h, w = maps.shape
    tall = maps.transpose(1, 2).reshape(classes, channels, n * h * w)
    return torch.bmm(tall, tall.transpose(1, 2)) / (n * channels * h * w)


@dataclass(frozen=True)
class MomentMatching(Term):
    """Half the squared difference of channel means plus half that of spreads, over layers (DDM, eq. 4).

    Args:
        weight: lambda * alpha in the DDM objective.
        sigma_of, spread: see :func:`channel_moments`.
        channels: ``mean`` over channels (the authors' code) or ``sum`` (eq. 4 read literally).
        layers: indices of the taps used; ``None`` takes all (Table 8 chooses among them).
        relative: divide every layer's squared difference by the mean square of the real statistic, plus 1e-8 (the
            second release): its scale then depends neither on the network's draw nor on the depth.
        over_layers: ``sum`` (eq. 4) or ``mean`` (the second release).
        tap: where the maps are read, one of :data:`clreplay.networks.base.TAP_POINTS`.
    """

    weight: float = 0.0
    sigma_of: str = "image"
    spread: str = "std"
    channels: str = "mean"
    layers: tuple[int, ...] | None = None
    relative: bool = False
    over_layers: str = "sum"
    tap: str = "act"
    name = "moment_matching"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("sigma_of", self.sigma_of, ("image", "mean_map"))
        check_choice("spread", self.spread, SPREADS)
        check_choice("channels", self.channels, ("mean", "sum"))
        check_choice("over_layers", self.over_layers, OVER_LAYERS)
        check_choice("tap", self.tap, TAP_POINTS)
        check_named(self.layers)

    def statistics(self, features: Features) -> tuple[Tensor, ...]:
        """Mean and spread of every layer, flattened: (mean_1, sigma_1, mean_2, ...), (classes, channels) each."""
        given = features.at(self.tap).moments
        if given is not None and not self.reads_maps:
            moments = [_set_moments(*given[i], self.spread) for i in check_layers(self.layers, len(given))]
        else:
            taps = chosen_taps(features, self.layers, self.tap)
            moments = [channel_moments(tap, self.sigma_of, self.spread) for tap in taps]
        return tuple(tensor for pair in moments for tensor in pair)

    @property
    def reads_maps(self) -> bool:  # type: ignore[override]
        """Whether the taps themselves are needed: moments an image are enough for their mean."""
        return self.sigma_of != "image"

    def loss(self, real: tuple[Tensor, ...], synthetic: tuple[Tensor, ...], features: Features) -> Tensor:
        """Unweighted loss, (classes,)."""
        layers = []
        for target, value in zip(real, synthetic):
            squared = (target - value).square()
            difference = squared.mean(1) if self.channels == "mean" else squared.sum(1)
            if self.relative:
                difference = difference / (target.square().mean(1) + RELATIVE_EPSILON)
            layers.append(0.5 * difference)
        return total(layers) / _layers_counted(self.over_layers, len(real) // 2)


@dataclass(frozen=True)
class CorrelationMatching(Term):
    """Squared Frobenius distance of set-averaged Gram matrices, summed over layers (DDM, eq. 6).

    Args:
        weight: lambda in the DDM objective.
        quarter: ``True`` keeps eq. 6's factor 1/4; the authors' code drops it (and lambda = 5000 goes with that).
        layers: indices of the taps used; ``None`` takes all.
        over_layers: ``sum`` (eq. 6) or ``mean`` (the second release).
        tap: where the maps are read, one of :data:`clreplay.networks.base.TAP_POINTS`.
    """

    weight: float = 0.0
    quarter: bool = False
    layers: tuple[int, ...] | None = None
    over_layers: str = "sum"
    tap: str = "act"
    name = "correlation_matching"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("over_layers", self.over_layers, OVER_LAYERS)
        check_choice("tap", self.tap, TAP_POINTS)
        check_named(self.layers)

    def statistics(self, features: Features) -> tuple[Tensor, ...]:
        """The Gram matrix of every layer, (classes, channels, channels) each."""
        return tuple(gram(tap) for tap in chosen_taps(features, self.layers, self.tap))

    def loss(self, real: tuple[Tensor, ...], synthetic: tuple[Tensor, ...], features: Features) -> Tensor:
        """Unweighted loss, (classes,)."""
        found = total((target - value).square().sum((1, 2)) for target, value in zip(real, synthetic))
        return (found / 4 if self.quarter else found) / _layers_counted(self.over_layers, len(real))


def _layers_counted(over_layers: str, count: int) -> int:
    return count if over_layers == "mean" else 1


@register_term("style")
@dataclass(frozen=True)
class StyleMatching(Term):
    """``weight`` times (``moments`` times moment matching plus ``correlation`` times correlation matching).

    Args:
        weight: lambda in the DDM objective, 5000 there.
        moments: alpha, the share of :class:`MomentMatching`.
        correlation: the share of :class:`CorrelationMatching`, 1 in the paper.
        sigma_of, spread, channels: see :class:`MomentMatching`.
        quarter: see :class:`CorrelationMatching`.
        layers: indices of the taps used by both; ``None`` takes all.
        relative: see :class:`MomentMatching`.
        over_layers: ``sum`` or ``mean``, for both.
        tap: where the maps are read: after the convolution (``conv``, the second release), the ``norm``, the
            activation (``act``, the paper's text and the first release) or the ``pool``. Right after an instance
            norm the moments of an image are constants.

    Source: DDM, eq. 7; the second release of its authors' code.
    """

    weight: float = 0.0
    moments: float = setting(1.0, "alpha")
    correlation: float = setting(1.0, "correlation")
    sigma_of: str = setting("image", "sigma_of")
    spread: str = setting("std", "spread")
    channels: str = setting("mean", "moment_channels")
    quarter: bool = setting(False, "gram_quarter")
    layers: tuple[int, ...] | None = None
    relative: bool = False
    over_layers: str = "sum"
    tap: str = "act"
    place = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(self, "moments", "correlation")
        self.parts(1)  # they check the rest

    def parts(self, images_per_class: int) -> list[Term]:
        """Moment matching and correlation matching."""
        return [
            MomentMatching(
                self.weight * self.moments,
                self.sigma_of,
                self.spread,
                self.channels,
                self.layers,
                self.relative,
                self.over_layers,
                self.tap,
            ),
            CorrelationMatching(self.weight * self.correlation, self.quarter, self.layers, self.over_layers, self.tap),
        ]
