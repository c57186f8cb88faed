"""Mean matching: the loss of DM (Zhao & Bilen, WACV 2023), ``L_MMD`` of DDM (eq. 3)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from clreplay.losses.term import Term, register_term
from clreplay.networks.features import Features


def mean_matching(real_mean: Tensor, synthetic_mean: Tensor) -> Tensor:
    """Squared distance of class means, summed over the embedding: (classes, d) x 2 -> (classes,)."""
    return (real_mean - synthetic_mean).square().sum(1)


@register_term("mean")
@dataclass(frozen=True)
class MeanMatching(Term):
    """``weight`` times the squared distance of the mean embeddings, one value a class.

    Source: DM, eq. 4; a sum over the embedding entries, not a mean.
    """

    weight: float = 1.0
    name, place = "mean_matching", 0
    reads_maps = False

    def statistics(self, features: Features) -> tuple[Tensor, ...]:
        """The mean embedding of every class: ((classes, d),)."""
        return (features.embedding.mean(1),)

    def loss(self, real: tuple[Tensor, ...], synthetic: tuple[Tensor, ...], features: Features) -> Tensor:
        """Unweighted loss, (classes,)."""
        return mean_matching(real[0], synthetic[0])
