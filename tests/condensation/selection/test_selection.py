"""Memories of real images: random sampling and herding."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clreplay.condensation import RealImages
from clreplay.condensation.selection.herding import HerdingSettings, herd, select_herding
from clreplay.condensation.selection.random_choice import RandomSettings, select_random
from clreplay.data import NORMALIZATIONS
from clreplay.networks import reinitialize
from clreplay.runtime.seeding import key_seed
from clreplay.training.loop import train

NORMALIZATION = NORMALIZATIONS["cifar10"]
CPU = torch.device("cpu")
QUICK = HerdingSettings(width=4, depth=2, updates=4, batch_size=16)


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


# ---------------------------------------------------------------- random


def positions(chosen, own):
    """Rows of a class's images that were chosen, in the order chosen."""
    return [[torch.equal(image, other) for other in own].index(True) for image in chosen]


def random_images(real, count, seed=0):
    counts = {label: count for label in real.classes}
    return select_random(real, counts, RandomSettings(), seed=seed, device=CPU).images


def test_random_takes_each_image_at_most_once_and_no_pixel_changes(pixels):
    real = RealImages(*pixels(), NORMALIZATION)
    for label, chosen in random_images(real, 12).items():
        assert chosen.dtype == torch.uint8
        assert sorted(positions(chosen, real.raw(label))) == list(range(12))


def test_random_is_uniform_over_the_images_of_a_class(pixels):
    real = RealImages(*pixels(1, 8, size=2), NORMALIZATION)
    counts = torch.zeros(8)
    for seed in range(400):
        for row in positions(random_images(real, 3, seed)[0], real.raw(0)):
            counts[row] += 1
    assert float(((counts - 150) ** 2 / 150).sum()) < 24.3  # chi squared, 7 degrees, p = 0.001


def test_random_with_fewer_images_is_a_prefix_and_keyed_by_class_and_seed(pixels, global_chance_untouched):
    images, labels = pixels()
    real = RealImages(images, labels, NORMALIZATION)
    alone = RealImages(images[labels == 1], labels[labels == 1] + 50, NORMALIZATION)
    with global_chance_untouched():
        five, two, other = random_images(real, 5), random_images(real, 2), random_images(real, 5, seed=1)
    for label in real.classes:
        assert torch.equal(two[label], five[label][:2])
        assert not torch.equal(other[label], five[label])
    assert torch.equal(random_images(alone, 5)[51], five[1])
    assert positions(five[0], real.raw(0)) != positions(five[1], real.raw(1))


def test_random_on_floats_chooses_the_same_images(pixels):
    images, labels = pixels()
    codes = random_images(RealImages(images, labels, NORMALIZATION), 4)
    floats = random_images(RealImages(NORMALIZATION.apply(images), labels), 4)
    assert all(torch.equal(NORMALIZATION.apply(codes[label]), floats[label]) for label in codes)


# ---------------------------------------------------------------- herding


def herded(real, counts, settings=QUICK, seed=0, progress=None):
    counts = counts if isinstance(counts, dict) else {label: counts for label in real.classes}
    return select_herding(real, counts, settings, seed=seed, device=CPU, progress=progress).images


@pytest.mark.parametrize("options", [{}, {"unit_features": True}, {"norm": "batch"}], ids=str)
def test_herding_picks_by_the_embedding_of_a_network_trained_on_the_experience(pixels, options):
    real = RealImages(*pixels(), NORMALIZATION)
    settings = replace(QUICK, **options)
    key = (0, "herding", *(real.keys[label] for label in real.classes))
    network = settings.build(3, 3, 8)
    reinitialize(network, key_seed(*key, "network"))
    images = torch.cat([real.raw(label) for label in real.classes])
    train(network, images, torch.arange(3).repeat_interleave(12), settings, key, NORMALIZATION)
    found = herded(real, {0: 5, 1: 4, 2: 5}, settings)
    for label, count in ((0, 5), (1, 4), (2, 5)):
        with torch.no_grad():
            features = network.eval().embedding(real.normalised(label))
        if settings.unit_features:
            features = torch.stack([row / row.norm() for row in features])
        assert torch.equal(found[label], real.raw(label)[slow_herd(features, count)])


def test_herding_is_keyed_and_leaves_the_global_chance_alone(pixels, global_chance_untouched):
    images, labels = pixels()
    real = RealImages(images, labels, NORMALIZATION)
    with global_chance_untouched():
        first = herded(real, 5)
    torch.rand(7)
    again = herded(RealImages(NORMALIZATION.apply(images), labels), 5)
    assert all(torch.equal(again[label], NORMALIZATION.apply(first[label])) for label in first)
    assert any(not torch.equal(herded(real, 5, seed=1)[label], first[label]) for label in first)


def test_herding_depends_on_the_experience_but_not_on_its_labels(pixels):
    images, labels = pixels()
    first = herded(RealImages(images, labels, NORMALIZATION), 6)
    renamed = herded(RealImages(images, labels * 10 + 7, NORMALIZATION), 6)
    assert all(torch.equal(renamed[label * 10 + 7], first[label]) for label in first)
    two = herded(RealImages(images[labels < 2], labels[labels < 2], NORMALIZATION), 6)
    assert any(not torch.equal(two[label], first[label]) for label in two)


def test_herding_with_fewer_images_is_a_prefix(pixels):
    real = RealImages(*pixels(), NORMALIZATION)
    six, two = herded(real, 6), herded(real, 2)
    assert all(torch.equal(two[label], six[label][:2]) for label in six)


def test_herding_reports_the_epochs_of_its_network(pixels):
    told = []
    herded(RealImages(*pixels(), NORMALIZATION), 2, progress=lambda *report: told.append(report))
    assert told == [(1, 2, "epochs of the feature network"), (2, 2, "epochs of the feature network")]
