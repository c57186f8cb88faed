"""k-means: one image a cluster, the nearest to its centre; never one twice."""

import numpy as np
import pytest
import torch
from engines import CPU, NORMALIZATION
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from clreplay.condensation import RealImages
from clreplay.condensation.selection.feature_network import EmbeddingSettings, select_by_embedding
from clreplay.condensation.selection.herding import herd, select_herding
from clreplay.condensation.selection.kmeans import nearest_to_centres, select_kmeans

QUICK = EmbeddingSettings(width=4, depth=2, updates=4, batch_size=16)


def groups(sizes, dimensions=3, seed=0):
    """Points around far apart places, and the group of each."""
    chance = np.random.RandomState(seed)
    of = np.repeat(np.arange(len(sizes)), sizes)
    places = 100 * np.eye(len(sizes), dimensions)
    return torch.tensor(places[of] + chance.randn(len(of), dimensions)), of


@pytest.mark.parametrize("sizes", [[9], [12, 7, 5], [20, 1, 4]])
def test_every_group_gives_the_row_nearest_to_its_mean_the_largest_group_first(sizes):
    points, of = groups(sizes)
    expected = []
    for group in np.argsort([-size for size in sizes], kind="stable"):
        rows = np.flatnonzero(of == group)
        mean = points[rows].mean(0)
        expected.append(int(rows[(points[rows] - mean).square().sum(1).argmin()]))
    assert nearest_to_centres(points, len(sizes), seed=1).tolist() == expected


@given(st.integers(2, 14), st.integers(1, 4), st.integers(0, 1000))
def test_rows_are_distinct_and_the_same_again(n, count, seed):
    count = min(count, n)
    points = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows = nearest_to_centres(points, count, seed).tolist()
    assert len(set(rows)) == count and set(rows) <= set(range(n))
    assert rows == nearest_to_centres(points, count, seed).tolist()


def test_rows_that_are_equal_are_still_chosen_once_each():
    points = torch.tensor([[1.0, 0.0]] * 4 + [[5.0, 5.0]] * 2)
    rows = nearest_to_centres(points, 5, seed=0).tolist()
    assert len(set(rows)) == 5 and rows[:2] == [0, 4]
    assert sorted(nearest_to_centres(points, 6, seed=0).tolist()) == list(range(6))


def test_the_choice_does_not_depend_on_the_number_of_threads_or_on_global_chance(global_chance_untouched):
    points = torch.randn(600, 30, generator=torch.Generator().manual_seed(0))
    with global_chance_untouched(), threadpool_limits(limits=2):
        several = nearest_to_centres(points, 20, seed=3)
    with threadpool_limits(limits=1):
        assert torch.equal(nearest_to_centres(points, 20, seed=3), several)
    assert not torch.equal(nearest_to_centres(points, 20, seed=4), several)


def test_clusters_cover_a_class_better_than_herding_does():
    points, of = groups([50, 30, 5, 2])
    assert set(of[nearest_to_centres(points, 4, seed=0)]) == {0, 1, 2, 3}
    assert set(of[herd(points, 4)]) != {0, 1, 2, 3}


def test_the_embedding_is_that_of_herding(pixels):
    real = RealImages(*pixels(), NORMALIZATION)
    counts = dict.fromkeys(real.classes, 3)
    seen = {"herding": [], "kmeans": []}

    def noting(features, count, seed):
        seen["kmeans"].append(features)
        return herd(features, count)

    herded = select_herding(real, counts, QUICK, seed=0, device=CPU).images
    noted = select_by_embedding(noting, real, counts, QUICK, seed=0, device=CPU).images
    assert all(torch.equal(herded[label], noted[label]) for label in real.classes)
    chosen = select_kmeans(real, counts, QUICK, seed=0, device=CPU).images
    for label, features in zip(real.classes, seen["kmeans"]):
        rows = [int((real.raw(label) == image).flatten(1).all(1).nonzero()[0]) for image in chosen[label]]
        assert len(set(rows)) == 3 and features.shape == (12, features.shape[1]) and features.dtype == torch.float64
