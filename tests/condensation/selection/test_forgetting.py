"""Forgetting: events counted presentation by presentation, and the images that are kept."""

import math
from dataclasses import replace

import pytest
import torch
from engines import CPU, NORMALIZATION, image_rows
from hypothesis import given
from hypothesis import strategies as st
from slow_training import slow_training

from clreplay.api import condense
from clreplay.condensation import RealImages
from clreplay.condensation.selection.forgetting import ForgettingEvents, ForgettingSettings, select_forgetting
from clreplay.networks import ConvNet, reinitialize
from clreplay.recipes.recipe import load_recipe
from clreplay.runtime import progress_file
from clreplay.runtime.files import user_cache
from clreplay.runtime.seeding import generator, key_seed

QUICK = ForgettingSettings(width=4, depth=2, epochs=4, batch_size=8)


def kept(real, counts=5, settings=QUICK, seed=0):
    counts = counts if isinstance(counts, dict) else {label: counts for label in real.classes}
    return select_forgetting(real, counts, settings, seed=seed, device=CPU).images


# ---------------------------------------------------------------- events


def falls(history):
    """How often a history goes from right to wrong, by reading it from left to right."""
    return sum(1 for before, now in zip(history, history[1:]) if before and not now)


HISTORIES = {  # image: right or wrong, presentation by presentation; events
    0: ("wwww", 0),
    1: ("rrrr", 0),
    2: ("wrrw", 1),
    3: ("rwrw", 2),
    4: ("wwwr", 0),
    5: ("rwww", 1),
}


def test_events_of_a_sequence_written_by_hand():
    events = ForgettingEvents(len(HISTORIES))
    for presentation in range(4):
        right = torch.tensor([HISTORIES[image][0][presentation] == "r" for image in range(6)])
        for rows in torch.tensor([[5, 0, 3], [1, 4, 2]]):  # in batches, in any order
            events.see(rows, right[rows])
    assert events.events.tolist() == [count for _, count in HISTORIES.values()]
    assert events.learned.tolist() == ["r" in history for history, _ in HISTORIES.values()]
    assert events.scores("most").tolist() == [math.inf, 0, 1, 2, 0, 1]
    assert events.scores("least").tolist() == [0, 0, 1, 2, 0, 1]


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), max_size=12), st.randoms(use_true_random=False))
def test_events_of_any_histories(presentations, chance):
    events = ForgettingEvents(5)
    for right in presentations:
        rows = list(range(5))
        chance.shuffle(rows)
        for part in (rows[:2], rows[2:]):
            events.see(torch.tensor(part), torch.tensor([right[row] for row in part]))
    histories = [[right[image] for right in presentations] for image in range(5)]
    assert events.events.tolist() == [falls(history) for history in histories]
    assert events.learned.tolist() == [any(history) for history in histories]


# ---------------------------------------------------------------- the selection


def slow_histories(real, settings, seed):
    """Of every image, whether it was right before each update of a slow training."""
    key = (seed, "forgetting", *(real.keys[label] for label in real.classes))
    network = ConvNet(len(real.classes), 3, 8, settings.width, settings.depth)
    reinitialize(network, key_seed(*key, "network"))
    images = torch.cat([real.normalised(label) for label in real.classes])
    labels = [place for place, label in enumerate(real.classes) for _ in range(real.count(label))]
    return slow_training(network, images, torch.tensor(labels), settings, key)


@pytest.fixture
def hard(pixels):
    """Images whose labels say nothing: they are learned late, one by one, and forgotten again."""
    images, labels = pixels(3, 14)
    return RealImages(images, labels[torch.randperm(len(labels))], NORMALIZATION)


@pytest.mark.parametrize("options", [{}, {"never_learned": "least"}, {"nesterov": False, "lr": 0.05}], ids=str)
def test_the_most_forgotten_images_of_every_class_are_kept_and_ties_go_by_chance(hard, options):
    settings = replace(QUICK, epochs=6, **options)
    histories = slow_histories(hard, settings, seed=2)
    counts, start = {0: 3, 1: 6, 2: 5}, 0
    events = [falls(history) for history in histories]
    assert len(set(events)) > 2 and not all(any(history) for history in histories), "the histories must differ"
    found = kept(hard, counts, settings, seed=2)
    for label in hard.classes:
        histories_here, own = histories[start : start + 14], events[start : start + 14]
        if settings.never_learned == "most":
            own = [count if any(history) else math.inf for count, history in zip(own, histories_here)]
        tie = torch.randperm(14, generator=generator(2, hard.keys[label], "forgetting")).tolist()
        order = sorted(range(14), key=lambda row: (-own[row], tie.index(row)))
        assert torch.equal(found[label], hard.raw(label)[order[: counts[label]]])
        start += 14


def test_the_two_readings_of_images_never_learned_differ(hard):
    most, least = (kept(hard, 5, replace(QUICK, never_learned=reading)) for reading in ("most", "least"))
    assert any(not torch.equal(most[label], least[label]) for label in most)


def test_ties_are_broken_by_chance(pixels):
    """One presentation forgets nothing, so all that remains is chance."""
    images, labels = pixels(1, 14)
    real = RealImages(images, labels, NORMALIZATION)
    once = replace(QUICK, epochs=1, never_learned="least")
    rows = []
    for seed in range(3):
        chosen = kept(real, 14, once, seed)[0]
        rows.append(image_rows(chosen, real.raw(0)))
    assert len({tuple(row) for row in rows}) == 3
    assert all(sorted(row) == list(range(14)) and row != sorted(row) for row in rows)


def test_a_stopped_count_goes_on(pixels, monkeypatch):
    real = RealImages(*pixels(), NORMALIZATION)
    whole = kept(real)
    monkeypatch.setattr(progress_file, "SECONDS_BETWEEN_SAVES", -1.0)
    step, made = torch.optim.SGD.step, []
    for stop_at in (7, None):

        def counted(optimizer, stop_at=stop_at):
            made.append(1)
            if len(made) == stop_at:
                raise KeyboardInterrupt
            step(optimizer)

        monkeypatch.setattr(torch.optim.SGD, "step", counted)
        if stop_at is not None:
            with pytest.raises(KeyboardInterrupt):
                kept(real)
    found, files = kept(real), user_cache() / "weights"
    assert len(made) == 1 + QUICK.epochs_for(36) * 5  # five batches of eight an epoch; one was stopped
    assert all(torch.equal(found[label], whole[label]) for label in whole)
    assert not list(files.glob("*.training"))


def test_a_memory_is_made_through_condense(pixels):
    images, labels = pixels(2, 10)
    memory = condense(images, labels, "forgetting", 4, preset="smoke", width=4, depth=2, epochs=2, device="cpu")
    assert memory.labels.tolist() == [0] * 4 + [1] * 4
    for label in (0, 1):
        for code in memory.slots[label].codes:
            assert any(torch.equal(code, image) for image in images[labels == label])


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"never_learned": "first"}, "never_learned must be one of most, least, got 'first'"),
        ({"momentum": 0.0}, "nesterov needs a momentum above 0"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        replace(QUICK, **options)


def test_the_shipped_recipe_has_deepcore_s_numbers():
    paper = load_recipe("forgetting").settings()
    assert paper == ForgettingSettings()
    assert (paper.epochs, paper.updates, paper.lr, paper.momentum, paper.nesterov) == (40, None, 0.1, 0.9, True)
    assert (paper.weight_decay, paper.batch_size, paper.lr_drop, paper.augment) == (5e-4, 256, 1.0, None)
