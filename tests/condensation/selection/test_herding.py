"""Herding against its formula, on given features and on those of a network trained on the experience."""

import math
from dataclasses import replace

import pytest
import torch
from engines import CPU, NORMALIZATION
from hypothesis import given
from hypothesis import strategies as st

from clreplay.condensation import RealImages
from clreplay.condensation.selection.feature_network import EmbeddingSettings
from clreplay.condensation.selection.herding import herd, select_herding
from clreplay.networks import reinitialize
from clreplay.runtime.seeding import key_seed
from clreplay.training.loop import train

QUICK = EmbeddingSettings(width=4, depth=2, updates=4, batch_size=16)


def slow_herd(features, count):
    """For k = 1..count the free row that minimises || k mean - sum of those taken - row ||, written out."""
    rows = [[float(value) for value in row] for row in features]
    dimensions = range(len(rows[0]))
    mean = [sum(row[d] for row in rows) / len(rows) for d in dimensions]
    taken = []
    for k in range(1, count + 1):
        best, best_distance = None, math.inf
        for index, row in enumerate(rows):
            total = [sum(rows[t][d] for t in taken) for d in dimensions]
            distance = math.sqrt(sum((k * mean[d] - total[d] - row[d]) ** 2 for d in dimensions))
            if index not in taken and distance < best_distance:
                best, best_distance = index, distance
        taken.append(best)
    return taken


# ---------------------------------------------------------------- herd


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 1000))
def test_herding_equals_the_formula(n, d, seed):
    features = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    assert herd(features, n).tolist() == slow_herd(features, n)


def test_the_first_image_is_the_one_closest_to_the_mean():
    features = torch.tensor([[9.0, 0.0], [1.0, 1.0], [-9.0, 2.0], [0.0, 0.0]])  # mean (0.25, 0.75)
    assert herd(features, 1).tolist() == [1]


def test_fewer_images_are_a_prefix_of_more():
    features = torch.randn(30, 5)
    whole = herd(features, 30).tolist()
    assert all(herd(features, count).tolist() == whole[:count] for count in (0, 1, 7, 29))


def test_no_image_is_taken_twice_even_if_it_stays_the_best():
    features = torch.tensor([[0.0], [10.0], [-10.0], [11.0], [-11.0]])
    assert sorted(herd(features, 5).tolist()) == [0, 1, 2, 3, 4]


def test_ties_go_to_the_lower_row():
    assert herd(torch.ones(6, 2), 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert herd(torch.tensor([[1.0], [-1.0]]), 2).tolist() == [0, 1]


def test_the_running_mean_tracks_the_class_mean_better_than_chance():
    features = torch.randn(200, 8)
    chosen = features[herd(features, 20)].mean(0) - features.mean(0)
    by_chance = torch.stack([(features[torch.randperm(200)[:20]].mean(0) - features.mean(0)).norm() for _ in range(20)])
    assert chosen.norm() < 0.2 * by_chance.min()


# ---------------------------------------------------------------- herding


@pytest.mark.parametrize("options", [{}, {"unit_features": True}, {"norm": "batch"}], ids=str)
def test_herding_picks_by_the_embedding_of_a_network_trained_on_the_experience(pixels, options):
    real = RealImages(*pixels(), NORMALIZATION)
    settings = replace(QUICK, **options)
    key = (0, "herding", *(real.keys[label] for label in real.classes))
    network = settings.build(3, 3, 8)
    reinitialize(network, key_seed(*key, "network"))
    images = torch.cat([real.raw(label) for label in real.classes])
    train(network, images, torch.arange(3).repeat_interleave(12), settings, key, NORMALIZATION)
    found = select_herding(real, {0: 5, 1: 4, 2: 5}, settings, seed=0, device=CPU).images
    for label, count in ((0, 5), (1, 4), (2, 5)):
        with torch.no_grad():
            features = network.eval().embedding(real.normalised(label))
        if settings.unit_features:
            features = torch.stack([row / row.norm() for row in features])
        assert torch.equal(found[label], real.raw(label)[slow_herd(features, count)])
