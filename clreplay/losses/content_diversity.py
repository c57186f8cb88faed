"""Bounded content diversity: a class's spread along the directions in which its real images differ."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clreplay.losses.term import Term, register_term
from clreplay.networks.features import Features

TINY = 1e-8
"""Added to the denominator: real images that are all alike have no spread to compare with."""
DIRECTIONS = 16


def principal_directions(embedding: Tensor, count: int) -> Tensor:
    """The directions of largest variance of every class, orthonormal; exact, by the eigenvectors of X X'.

    Args:
        embedding: (classes, n, d), centred here.
        count: at most n - 1.

    Returns:
        (classes, count, d), the largest variance first; of directions without variance nothing is known.
    """
    centred = (embedding - embedding.mean(1, keepdim=True)).double()
    values, vectors = torch.linalg.eigh(torch.bmm(centred, centred.transpose(1, 2)))  # ascending
    largest = vectors[:, :, -count:].flip(2) if count else vectors[:, :, :0]
    directions = torch.bmm(largest.transpose(1, 2), centred)
    return torch.nn.functional.normalize(directions, dim=2).to(embedding.dtype)


def spread_along(embedding: Tensor, directions: Tensor) -> Tensor:
    """Standard deviation (unbiased) of a class's embedding along directions: (classes, count).

    Args:
        embedding: (classes, n, d), n at least 2.
        directions: (classes, count, d).
    """
    centred = embedding - embedding.mean(1, keepdim=True)
    variance = torch.bmm(centred, directions.transpose(1, 2)).square().sum(1) / (embedding.shape[1] - 1)
    return variance.clamp_min(1e-12).sqrt()  # at zero the root has no gradient


@register_term("content")
@dataclass(frozen=True)
class ContentDiversity(Term):
    """``weight`` times the relative squared difference of spreads along the real images' principal directions.

    ``mean_k (std_k of the synthetic - std_k of the real)^2 / (mean_k (std_k of the real)^2 + 1e-8)`` over the first
    r = min(images a class - 1, 16) directions of the real batch's embedding, both sides centred on their own mean.
    It is bounded below by zero and rises again where a class is wider than the data.

    Args:
        weight: 30 in the second release.

    Source: the second release of the DDM authors' code.
    """

    weight: float = 0.0
    name = "content_diversity"
    reads_maps = False

    def parts(self, images_per_class: int) -> list[Term]:
        """None at one image a class, which has no spread."""
        return [] if images_per_class == 1 else [self]

    def targets(self, features: Features) -> tuple[Tensor, ...]:
        """Directions (classes, r, d) of the real images, and their spread along them, (classes, r)."""
        count = min(DIRECTIONS, features.embedding.shape[1] - 1)
        directions = principal_directions(features.embedding, count)
        return directions, spread_along(features.embedding, directions) if count else directions[:, :, 0]

    def loss(self, real: tuple[Tensor, ...], synthetic: tuple[Tensor, ...], features: Features) -> Tensor:
        """Unweighted loss, (classes,); zero where either side is a single image."""
        directions, target = real
        count = min(features.embedding.shape[1] - 1, directions.shape[1])
        if not count:
            return features.embedding.new_zeros(len(features.embedding))
        target = target[:, :count]
        spread = spread_along(features.embedding, directions[:, :count])
        return (spread - target).square().mean(1) / (target.square().mean(1) + TINY)
