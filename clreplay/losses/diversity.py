"""Intra-class diversity (DDM, eq. 8): push every synthetic image away from its nearest neighbours' mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clreplay.losses.term import Term, register_term, setting
from clreplay.networks.features import Features
from clreplay.runtime.checks import check_choice


def neighbour_count(images_per_class: int, fraction: float) -> int:
    """k = max(1, round(fraction * IPC)), at most IPC - 1; 0 at IPC 1, where the term does not apply.

    Source: DDM, section 4.2 (k = 0.2 IPC); halves are rounded up.
    """
    return min(max(1, int(fraction * images_per_class + 0.5)), images_per_class - 1)


def intra_class_diversity(
    embedding: Tensor, neighbours: int, reduction: str = "mean", detach_neighbours: bool = False
) -> Tensor:
    """Minus KL(softmax f || softmax of the mean of f's k nearest neighbours), one value a class.

    Args:
        embedding: (classes, n, d) of the synthetic images; softmax at temperature 1 over d.
        neighbours: k, between 1 and n - 1; an image is never its own neighbour, ties go to the lower index.
        reduction: ``mean`` over the n images (the authors' code) or ``sum`` (eq. 8 read literally).
        detach_neighbours: stop the gradient into the neighbours' mean.

    Returns:
        (classes,), never positive.

    Raises:
        ValueError: ``neighbours`` is outside 1..n - 1.
    """
    check_choice("reduction", reduction, ("mean", "sum"))
    classes, n, _ = embedding.shape
    if not 1 <= neighbours < n:
        raise ValueError(f"neighbours must be within 1..{n - 1} for {n} images a class, got {neighbours}")
    with torch.no_grad():
        # Differences, not the expanded product: duplicates must come out at distance zero exactly.
        distances = torch.cdist(embedding, embedding, compute_mode="donot_use_mm_for_euclid_dist")
        distances.diagonal(dim1=1, dim2=2).fill_(float("inf"))
        nearest = distances.sort(dim=2, stable=True).indices[:, :, :neighbours]  # classes, n, k
    # A product, not an indexed mean: the gradient of indexing adds up in another order every time where
    # several CPU threads share the work.
    shares = embedding.new_zeros(classes, n, n).scatter_(2, nearest, 1 / neighbours)
    centre = torch.bmm(shares, embedding)  # classes, n, d
    if detach_neighbours:
        centre = centre.detach()
    log_image, log_centre = embedding.log_softmax(2), centre.log_softmax(2)
    divergence = (log_image.exp() * (log_image - log_centre)).sum(2)  # classes, n
    return -(divergence.mean(1) if reduction == "mean" else divergence.sum(1))


@register_term("diversity")
@dataclass(frozen=True)
class IntraClassDiversity(Term):
    """``weight`` (beta) times :func:`intra_class_diversity`; has no real side.

    Args:
        weight: beta in the DDM objective, 10 there.
        neighbours: k as a fraction of the images a class, see :func:`neighbour_count`.
        reduction, detach_neighbours: see :func:`intra_class_diversity`.
    """

    weight: float = 0.0
    neighbours: float = setting(0.2, "neighbours")
    reduction: str = "mean"
    detach_neighbours: bool = setting(False, "detach_neighbours")
    place = 2
    reads_maps = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("reduction", self.reduction, ("mean", "sum"))
        if not 0 < self.neighbours <= 1:
            raise ValueError(f"neighbours must be a fraction within (0, 1], got {self.neighbours}")

    def parts(self, images_per_class: int) -> list[Term]:
        """None at one image a class, where the term does not apply (DDM, section 4.2)."""
        return [] if images_per_class == 1 else [self]

    def loss(self, real: tuple[Tensor, ...], synthetic: tuple[Tensor, ...], features: Features) -> Tensor:
        """Unweighted loss, (classes,); exactly zero at one image a class."""
        k = neighbour_count(features.embedding.shape[1], self.neighbours)
        if k == 0:
            return features.embedding.new_zeros(len(features.embedding))
        return intra_class_diversity(features.embedding, k, self.reduction, self.detach_neighbours)
