"""k-means: the real image nearest to each of a class's cluster centres in feature space. No pixel is modified."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clreplay.condensation.real_images import RealImages
from clreplay.condensation.registry import Condensed, register
from clreplay.condensation.selection.feature_network import EmbeddingSettings, select_by_embedding
from clreplay.condensation.tiles import check_tiles, decoding
from clreplay.runtime.progress import Progress

STARTS = 4
"""Runs of Lloyd's algorithm from different centres, of which the best counts."""


@register("kmeans", EmbeddingSettings, selects=True, decoding=decoding, check=check_tiles)
def select_kmeans(
    real: RealImages,
    counts: dict[int, int],
    settings: EmbeddingSettings,
    *,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
    keep: Path | None = None,
) -> Condensed:
    """One image for each of as many clusters as there are to be images, by the embedding that herding uses."""
    return select_by_embedding(nearest_to_centres, real, counts, settings, seed=seed, device=device, progress=progress)


def nearest_to_centres(features: Tensor, count: int, seed: int) -> Tensor:
    """Rows nearest to the centres of k-means clusters (k-means++ starts, Lloyd's algorithm, Euclidean distance).

    Centres choose in the order of their clusters' sizes, the largest first; a row that is taken already goes to
    no second centre, which then takes the nearest of the others. Ties go to the lower row.

    Args:
        features: (n, d).
        count: rows to choose, at most n.
        seed: of the starts.

    Returns:
        (count,) int64, in the order chosen.
    """
    state = random.getstate()  # the import, which takes a second, moves Python's global generator
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    random.setstate(state)
    points = features.to("cpu", torch.float64).numpy()
    distinct = len(np.unique(points, axis=0))  # more clusters than distinct points cannot be found
    with threadpool_limits(limits=1):  # several threads add up in any order
        found = KMeans(min(count, distinct), n_init=STARTS, random_state=seed % 2**32).fit(points)
    sizes = np.bincount(found.labels_, minlength=len(found.cluster_centers_))
    centres = found.cluster_centers_[np.argsort(-sizes, kind="stable")]
    rows: list[int] = []
    for number in range(count):
        distances = ((points - centres[number % len(centres)]) ** 2).sum(1)
        distances[rows] = np.inf
        rows.append(int(distances.argmin()))
    return torch.tensor(rows, dtype=torch.int64)
