"""Style diversity: how the images of a class differ in the means and spreads of their feature maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clreplay.losses.layers import check_layers, check_named
from clreplay.losses.style import RELATIVE_EPSILON, image_moments
from clreplay.losses.term import Term, register_term
from clreplay.networks.base import TAP_POINTS
from clreplay.networks.features import Features
from clreplay.runtime.checks import check_choice


@register_term("style_diversity")
@dataclass(frozen=True)
class StyleDiversity(Term):
    """``weight`` times the relative squared difference of how styles vary over the images of a class.

    The style of an image in a layer is the mean and the standard deviation of every channel; their standard
    deviation over the images (unbiased) is matched to that of the real images: half the mean over channels of the
    squared difference, over the mean square of the real one plus 1e-8, for the means and for the deviations,
    averaged over the layers.

    Args:
        weight: relative to mean matching.
        layers: indices of the taps used; ``None`` takes all.
        tap: where the maps are read, one of :data:`clreplay.networks.base.TAP_POINTS`.

    Source: the second release of the DDM authors' code, where it is off by default.
    """

    weight: float = 0.0
    layers: tuple[int, ...] | None = None
    tap: str = "conv"
    reads_maps = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_named(self.layers)
        check_choice("tap", self.tap, TAP_POINTS)

    def parts(self, images_per_class: int) -> list[Term]:
        """None at one image a class, which has no spread."""
        return [] if images_per_class == 1 else [self]

    def statistics(self, features: Features) -> tuple[Tensor, ...]:
        """Of every layer, how means and how deviations vary: (classes, channels) each; none of a single image."""
        if features.embedding.shape[1] == 1:
            return ()
        features = features.at(self.tap)
        layers = check_layers(self.layers, len(features.moments or features.taps))
        styles = [style for layer in layers for style in image_moments(features, layer)]
        return tuple(_deviation(style) for style in styles)

    def loss(self, real: tuple[Tensor, ...], synthetic: tuple[Tensor, ...], features: Features) -> Tensor:
        """Unweighted loss, (classes,); zero where either side is a single image."""
        total = features.embedding.new_zeros(len(features.embedding))
        for target, value in zip(real, synthetic):
            relative = (target - value).square().mean(1) / (target.square().mean(1) + RELATIVE_EPSILON)
            total = total + 0.5 * relative
        return total / max(1, len(synthetic) // 2)


def _deviation(values: Tensor) -> Tensor:
    """Over the images, (classes, n, channels) to (classes, channels); the root has no gradient at zero."""
    return torch.var(values, dim=1).clamp_min(1e-12).sqrt()
