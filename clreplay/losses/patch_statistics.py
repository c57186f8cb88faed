"""Statistics of the pixels themselves: mean and second moment of a class's 3 x 3 patches, without a network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clreplay.losses.term import Term, register_term
from clreplay.networks.features import Features

SIDE = 3


def patch_moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and uncentred second moment of all 3 x 3 patches of a class, zero-padded at the border by one pixel.

    A 3 x 3 convolution with padding 1 is linear in these patches, so over random filters its map's mean and mean
    square are fixed by the two.

    Args:
        images: (classes, n, channels, h, w).

    Returns:
        mean (classes, p) and second moment (classes, p, p), p = 9 * channels, each averaged over patches and images.
    """
    classes, n = images.shape[:2]
    patches = F.unfold(images.flatten(0, 1), SIDE, padding=SIDE // 2).unflatten(0, (classes, n))  # classes, n, p, h * w
    tall = patches.transpose(2, 3).flatten(1, 2)  # classes, n * h * w, p
    return tall.mean(1), torch.bmm(tall.transpose(1, 2), tall) / tall.shape[1]


@register_term("patch")
@dataclass(frozen=True)
class PatchMatching(Term):
    """``weight`` times half the sum of two relative squared differences: of patch means, and of second moments.

    ``1/2 * [ ||mean - mean'||^2 / trace(M') + ||M - M'||^2 / ||M'||^2 ]``, the primed of real images. Means are
    compared with the patches' mean square, which no class has near zero, where its mean colour may be.

    Args:
        weight: relative to mean matching.

    Source: ours. To first order it is what style matching before the first norm compares (see
    ``results/README.md``), in closed form.
    """

    weight: float = 0.0
    name = "patch_matching"
    reads_maps = False

    def statistics(self, features: Features) -> tuple[Tensor, ...]:
        """See :func:`patch_moments`."""
        assert features.images is not None, "they are there wherever there are features of images"
        return patch_moments(features.images)

    def loss(self, real: tuple[Tensor, ...], synthetic: tuple[Tensor, ...], features: Features) -> Tensor:
        """Unweighted loss, (classes,)."""
        (target_mean, target), (mean, second) = real, synthetic
        power = target.diagonal(dim1=1, dim2=2).sum(1)
        means = (mean - target_mean).square().sum(1) / power
        return 0.5 * (means + (second - target).square().sum((1, 2)) / target.square().sum((1, 2)))
