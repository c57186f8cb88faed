"""The network that selections look through is trained once, and found again by whoever needs the same one."""

from dataclasses import replace

import pytest
import torch
from engines import CPU, NORMALIZATION

from clreplay.condensation import METHODS, RealImages
from clreplay.condensation.selection import feature_network
from clreplay.condensation.selection.feature_network import EmbeddingSettings
from clreplay.runtime.files import user_cache

QUICK = EmbeddingSettings(width=4, depth=2, updates=4, batch_size=16)


@pytest.fixture
def real(pixels):
    return RealImages(*pixels(each=[12, 9, 12]), NORMALIZATION)


@pytest.fixture
def trainings(monkeypatch):
    """Counts trainings."""
    count, train = [], feature_network.train
    monkeypatch.setattr(feature_network, "train", lambda *some, **more: count.append(1) or train(*some, **more))
    return count


def chosen(real, method="herding", settings=QUICK, seed=3, count=2):
    found = METHODS[method].condense(real, dict.fromkeys(real.classes, count), settings, seed=seed, device=CPU)
    return found.images


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[label], other[label]) for label in one)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_second_selection_trains_nothing_and_chooses_the_same(real, trainings, norm):
    settings = replace(QUICK, norm=norm)
    first = chosen(real, settings=settings)
    assert len(trainings) == 1 and len(list((user_cache() / "weights").iterdir())) == 1
    again = chosen(real, settings=settings)
    assert len(trainings) == 1 and same(first, again)


def test_herding_and_k_means_share_their_network(real, trainings):
    chosen(real)
    chosen(real, "kmeans")
    chosen(real, "kmeans", replace(QUICK, tiles=2, unit_features=True), count=1)
    assert len(trainings) == 1


@pytest.mark.parametrize(
    "change", [{"settings": replace(QUICK, updates=5)}, {"settings": replace(QUICK, width=8)}, {"seed": 4}]
)
def test_another_network_is_not_taken_for_it(real, trainings, change):
    chosen(real)
    chosen(real, **change)
    assert len(trainings) == 2


def test_other_classes_have_networks_of_their_own(real, trainings):
    chosen(real)
    chosen(real.subset([0, 2]))
    assert len(trainings) == 2


def test_a_damaged_file_is_trained_anew(real, trainings, caplog):
    first = chosen(real)
    (file,) = (user_cache() / "weights").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert same(chosen(real), first) and len(trainings) == 2 and "damaged" in caplog.text


def test_a_training_that_is_watched_is_made_every_time(real, trainings):
    settings = METHODS["forgetting"].settings(width=4, depth=2, updates=4, batch_size=16)
    for _ in range(2):
        chosen(real, "forgetting", settings)
    assert len(trainings) == 2 and not list((user_cache() / "weights").glob("*"))
