"""Layer-wise feature alignment: the matching term of CAFE (Wang et al., CVPR 2022)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from clreplay.losses.layers import total
from clreplay.losses.term import Term
from clreplay.networks.features import Features


def layer_alignment(real: Tensor, synthetic: Tensor) -> Tensor:
    """Squared distance of class-mean maps, summed over channels and positions: (classes, ...) x 2 -> (classes,)."""
    return (real - synthetic).square().flatten(1).sum(1)


@dataclass(frozen=True)
class LayerAlignment(Term):
    """Class-mean maps of every layer and the mean embedding, aligned with weights a layer.

    Args:
        weight: of the term.
        earlier: weight of every tap but the last.
        last: weight of the last tap.
        embedding: weight of the pooled map of the last block; the authors' code counts it once as a map and
            once more as a vector.

    Source: CAFE; weights of the authors' code.
    """

    weight: float = 1.0
    earlier: float = 0.1
    last: float = 1.0
    embedding: float = 2.0
    name = "layer_alignment"

    def statistics(self, features: Features) -> tuple[Tensor, ...]:
        """The mean map of every tap, (classes, channels, h, w), then the mean embedding, (classes, d)."""
        return (*(tap.mean(1) for tap in features.taps), features.embedding.mean(1))

    def loss(self, real: tuple[Tensor, ...], synthetic: tuple[Tensor, ...], features: Features | None = None) -> Tensor:
        """Sum over layers without ``weight``, (classes,)."""
        taps = len(real) - 1
        weights = [self.earlier] * (taps - 1) + [self.last] * (taps > 0) + [self.embedding]
        return total(weight * layer_alignment(*means) for weight, *means in zip(weights, real, synthetic))
