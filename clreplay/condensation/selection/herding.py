"""Herding: real images whose mean in feature space stays close to that of the class. No pixel is modified."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from clreplay.condensation.real_images import RealImages
from clreplay.condensation.registry import Condensed, register
from clreplay.condensation.selection.feature_network import EmbeddingSettings, select_by_embedding
from clreplay.condensation.tiles import check_tiles, decoding
from clreplay.runtime.progress import Progress


@register("herding", EmbeddingSettings, selects=True, decoding=decoding, check=check_tiles)
def select_herding(
    real: RealImages,
    counts: dict[int, int],
    settings: EmbeddingSettings,
    *,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
    keep: Path | None = None,
) -> Condensed:
    """Greedy mean matching in feature space (Welling 2009; iCaRL); fewer images are a prefix of more."""
    return select_by_embedding(
        lambda features, count, _: herd(features, count),
        real,
        counts,
        settings,
        seed=seed,
        device=device,
        progress=progress,
    )


def herd(features: Tensor, count: int) -> Tensor:
    """Rows whose running mean tracks the mean of all: for k = 1..count take the row x, not yet taken, that
    minimises ``|| k * mean - sum of those taken - x ||``; ties go to the lower row.

    Args:
        features: (n, d).
        count: rows to take, at most n.

    Returns:
        (count,) int64, in the order taken.
    """
    features = features.to("cpu", torch.float64)
    mean, taken_sum = features.mean(0), torch.zeros_like(features[0])
    free = torch.ones(len(features), dtype=torch.bool)
    order = []
    for k in range(1, count + 1):
        distance = (k * mean - taken_sum - features).square().sum(1).masked_fill(~free, float("inf"))
        best = int(distance.argmin())
        order.append(best)
        free[best] = False
        taken_sum += features[best]
    return torch.tensor(order, dtype=torch.int64)
