"""Trained encoders, the constraint, tiles and steps in pixel space, against slow loops; what is kept and found."""

import logging
from dataclasses import replace

import pytest
import slow
import slow_losses
import torch
import torch.nn.functional as F
from engines import CPU, NORMALIZATION, assert_same_bytes, maker
from hypothesis import given
from hypothesis import strategies as st
from mixed import mixed

from clreplay.api import condense
from clreplay.condensation import RealImages
from clreplay.condensation.engine.execution import Execution
from clreplay.condensation.engine.tiled_start import tiled_images
from clreplay.condensation.matching import encoders
from clreplay.condensation.matching.dm import choose_image_execution
from clreplay.condensation.matching.encoders import TrainedNetworks
from clreplay.condensation.matching.engine import MatchingEngine
from clreplay.condensation.matching.idm import IDMSettings
from clreplay.condensation.matching.settings import MatchingSettings, is_separable
from clreplay.memory.decoders import decoder
from clreplay.networks import FlatParameters
from clreplay.networks.kernels.build import failure
from clreplay.recipes.recipe import PRESETS, load_recipe
from clreplay.runtime import progress_file
from clreplay.runtime.seeding import BLOCK, generator
from clreplay.training.augmentation import augment_shared, parse_strategy
from clreplay.training.cutmix import train_with_cutmix

TINY = MatchingSettings(
    width=4, depth=2, iterations=5, real_batch=7, lr_img=0.5, encoder_networks=2, encoder_epochs=3, encoder_batch=8,
    encoder_lr=0.1, encoders="trajectory",
)  # fmt: skip
engine = maker(MatchingEngine, TINY, count=2)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own: what one test trained must not be found by another."""
    monkeypatch.setenv("CLREPLAY_CACHE", str(tmp_path))
    return tmp_path / "weights"


@pytest.fixture
def real(pixels):
    return RealImages(*pixels(each=[12, 9, 12]), NORMALIZATION)


def trained_slowly(some, index):
    """Weights after 0, 1, ... epochs: every length trained from the start, by the loop that learners are trained by."""
    how = encoders.encoder_training(some.settings)
    found = []
    for epochs in range(how.epochs + 1):
        network = some.settings.build(len(some.real.classes), *some.real.shape[:2])
        flat = FlatParameters(network)
        key = (some.seed, "encoder", *(some.real.keys[label] for label in some.real.classes), index)
        flat.redraw(generator(*key, "network"))
        # As long as the whole training, so that rates drop where they do; stopped after an epoch.
        stop = Stop(epochs)
        network.requires_grad_()
        if epochs:
            try:
                train_with_cutmix(network, *some.training_set()[:2], how, key, some.training_set()[2], stop)
            except StopIteration:
                pass
        found.append(flat.buffer.clone())
    return found


class Stop:
    """A progress that ends a training after some epochs."""

    def __init__(self, epochs):
        self.epochs = epochs

    def __call__(self, done, total):
        if done == self.epochs:
            raise StopIteration


@pytest.mark.parametrize("encoder_epochs", [1, 2, 6])
def test_a_trajectory_is_the_weights_after_every_epoch_of_a_learner_of_its_own(real, encoder_epochs):
    some = engine(real, replace(TINY, encoder_epochs=encoder_epochs))
    some.prepare()
    for index in range(2):
        expected = trained_slowly(some, index)
        kept = some.networks._weights[index]
        assert kept.shape == (encoder_epochs + 1, len(expected[0]))
        for row, slow_row in zip(kept, expected):
            torch.testing.assert_close(row, slow_row, rtol=1e-5, atol=1e-6)
        assert (kept[0] - kept[-1]).norm() > 0.1
    assert not torch.equal(some.networks._weights[0][0], some.networks._weights[1][0])


def test_interpolated_keeps_the_first_and_the_last_weights(real):
    whole, ends = engine(real), engine(real, replace(TINY, encoders="interpolated"))
    whole.prepare(), ends.prepare()
    for one, other in zip(whole.networks._weights, ends.networks._weights):
        assert torch.equal(one[[0, -1]], other)


# ---------------------------------------------------------------- the slow loop


def slow_pick(some, number):
    """Weights of the encoder and of the judge, by the papers' words."""
    s, chance = some.settings, generator(some.seed, "encoder", number)
    weights = some.networks._weights[int(torch.randint(s.encoder_networks, (), generator=chance))]
    if s.encoders == "interpolated":
        share = torch.rand((), generator=chance)
        return share * weights[0] + (1 - share) * weights[1], weights[1]
    start = int(torch.randint(s.encoder_epochs + 1, (), generator=chance))
    latest = min(start + s.constraint_span, s.encoder_epochs)
    return weights[start], weights[start + int(torch.randint(latest - start + 1, (), generator=chance))]


def network_of(some, weights):
    network = some.settings.build(len(some.real.classes), *some.real.shape[:2])
    FlatParameters(network).buffer.copy_(weights)
    return network.double()


def slow_condense(some):
    """Iteration after iteration, class after class, in double precision; pixels are moved as pixels."""
    real, s, seed = some.real, some.settings, some.seed
    decode, strategy = decoder(some.decoding), parse_strategy(s.siamese_augment)
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (NORMALIZATION.mean, NORMALIZATION.std))
    pixels = s.image_space == "pixels"
    to_pixels = (lambda x: x * std + mean) if pixels else (lambda x: x)
    normalise = (lambda x: (x - mean) / std) if pixels else (lambda x: x)
    held = {}
    for label in real.classes:
        first = (
            slow.first_images(real, label, some.counts[label], s, seed)
            if s.tiles == 1
            else tiled_images(real, label, some.counts[label], s.init, seed, s.tiles)
        )
        held[label] = to_pixels(first.double()).requires_grad_()
    rates = {label: s.lr_img * (some.counts[label] if s.lr_times_images else 1) for label in real.classes}
    optimizers = {label: torch.optim.SGD([x], lr=rates[label], momentum=s.momentum_img) for label, x in held.items()}
    for number in range(s.iterations):
        encoder, judge = (network_of(some, w).requires_grad_(False) for w in slow_pick(some, number))
        for output, label in enumerate(real.classes):
            rows, draw = slow.drawn_batch(real, label, s, seed, *divmod(number, BLOCK))
            theirs = encoder.features(augment_shared(real.normalised(label)[rows].double(), draw, strategy))
            shown = augment_shared(decode(normalise(held[label])), draw, strategy)
            ours = encoder.features(shown)
            terms, weights = slow.matching_terms(theirs, ours, s), slow.matching_weights(s)
            loss = sum(weights[name] * term for name, term in terms.items())
            if s.constraint_weight:
                logits = judge.classifier(judge.features(shown)[0])
                loss = loss + s.constraint_weight * slow_losses.cross_entropy(logits, output)
            optimizers[label].zero_grad()
            loss.backward()
            optimizers[label].step()
            if pixels:
                with torch.no_grad():
                    held[label].clamp_(0, 1)
    return {label: normalise(x.detach()) for label, x in held.items()}


CHANGES = [
    {},
    {"encoders": "interpolated"},
    {"constraint_weight": 1.0},
    {"constraint_weight": 1.0, "constraint_span": 0},
    {"constraint_weight": 0.5, "constraint_span": 99, "encoders": "interpolated"},
    {"tiles": 2, "constraint_weight": 1.0},
    {"tiles": 4},
    {"image_space": "pixels", "lr_img": 0.02},
    {"image_space": "pixels", "lr_img": 0.05, "lr_times_images": True, "tiles": 2, "constraint_weight": 1.0},
    {"style_weight": 500.0, "diversity_weight": 2.0, "constraint_weight": 1.0, "tiles": 2},
    {"siamese_augment": "color+crop+cutout", "constraint_weight": 1.0},
    {"real_batch": 50, "network_reuse": 1, "encoder_mix": 0.0, "encoder_augment": None},
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: "-".join(changes) or "trajectory")
def test_the_engine_equals_a_loop_over_networks_and_classes(real, changes):
    some = engine(real, replace(TINY, **changes), {0: 2, 1: 1, 2: 2})
    start = some.images()
    some.prepare()
    expected, found = slow_condense(some), some.run().images
    for label in real.classes:
        way = (expected[label] - start[label]).norm()
        assert way > 0.02 and (found[label] - expected[label]).norm() < 1e-4 * way


@pytest.mark.parametrize("changes", [{"constraint_weight": 1.0}, {"constraint_weight": 1.0, "constraint_span": 0}])
def test_all_kernels_and_groups_give_the_same(pixels, changes):
    real = RealImages(*pixels(3, 12, size=16), NORMALIZATION)
    settings = replace(TINY, width=16, tiles=2, **changes)
    ways = [{"kernels": "eager"}, {"kernels": "eager", "classes_at_once": 1}, {"parallel": "classes"}]
    ways += [] if failure() else [{"kernels": "native"}]
    plain, *others = (engine(real, mixed(settings, **how)).run().images for how in ways)
    for other in others:
        for label in real.classes:
            torch.testing.assert_close(other[label], plain[label], rtol=1e-3, atol=1e-4)


def test_the_judge_is_the_encoder_itself_where_both_are_of_one_epoch(real, monkeypatch):
    some = engine(real, replace(TINY, constraint_weight=1.0, constraint_span=0))
    some.prepare()
    monkeypatch.setattr(some.networks, "_judge", lambda *_: pytest.fail("a second pass"))
    some.run()


def test_the_constraint_makes_images_that_their_network_knows(real):
    settings = replace(TINY, iterations=30, encoder_epochs=20, siamese_augment=None)
    unknown, known = (
        engine(real, replace(settings, constraint_weight=w, constraint_span=20), count=4).run().images for w in (0, 5.0)
    )
    judge = engine(real, settings)
    judge.prepare()
    network = network_of(judge, judge.networks._weights[0][-1])
    wrong = [
        sum(float(F.cross_entropy(network(x.double()), torch.full((4,), i))) for i, x in images.items())
        for images in (unknown, known)
    ]
    assert wrong[1] < 0.5 * wrong[0]


# ---------------------------------------------------------------- draws


@given(span=st.integers(0, 9), epochs=st.integers(1, 7), networks=st.integers(1, 3), number=st.integers(0, 10**6))
def test_the_judge_is_never_younger_than_the_encoder_nor_older_than_the_training(span, epochs, networks, number):
    settings = replace(
        TINY, encoder_epochs=epochs, encoder_networks=networks, constraint_span=span, constraint_weight=1.0
    )
    network, encoder, judge = TrainedNetworks.drawn(Settled(settings, 3), number)
    assert 0 <= network < networks and 0 <= encoder <= judge <= min(epochs, encoder + span)
    assert encoder == int(encoder) and judge == int(judge)


class Settled:
    """All that a draw looks at."""

    def __init__(self, settings, seed):
        self.settings, self.seed = settings, seed


def test_every_epoch_of_every_network_comes_up():
    draws = [TrainedNetworks.drawn(Settled(TINY, 3), number) for number in range(400)]
    assert {(n, e) for n, e, _ in draws} == {(n, e) for n in range(2) for e in range(4)}
    assert {j - e for _, e, j in draws} == {0, 1, 2, 3}
    between = [TrainedNetworks.drawn(Settled(replace(TINY, encoders="interpolated"), 3), n) for n in range(400)]
    assert all(0 <= e <= 1 and j == 1 for _, e, j in between) and min(between, key=lambda d: d[1])[1] < 0.05


# ---------------------------------------------------------------- kept, found, interrupted, damaged


def test_what_was_trained_is_found_again_and_counted(real, cache, monkeypatch):
    first = engine(real)
    out = first.run()
    assert out.chosen["encoders_found"] == 0 and out.chosen["encoder_seconds"] > 0 and len(list(cache.iterdir())) == 2
    monkeypatch.setattr(encoders, "fit", lambda *_: pytest.fail("trained"))
    second = engine(real)
    again = second.run()
    assert again.chosen["encoders_found"] == 2 and again.chosen["encoder_seconds"] == out.chosen["encoder_seconds"]
    assert_same_bytes(again.images, out.images)
    other = engine(real, replace(TINY, lr_img=0.1, constraint_weight=1.0, tiles=2))
    other.prepare()  # what does not decide the weights does not part them


@pytest.mark.parametrize("changes", [{"encoder_epochs": 4}, {"width": 8}, {"encoder_lr": 0.2}, {"encoder_mix": 0.1}])
def test_other_trainings_are_not_taken_for_it(real, cache, changes):
    engine(real).prepare()
    other = engine(real, replace(TINY, **changes))
    other.prepare()
    assert other.networks.found == 0 and len(list(cache.iterdir())) == 4


def test_other_images_and_seeds_are_not_taken_for_it(pixels, real, cache):
    engine(real).prepare()
    images, labels = pixels(each=[12, 9, 12])
    images[0] = 255 - images[0]
    for other in (engine(real, seed=4), engine(RealImages(images, labels, NORMALIZATION)), engine(real.subset([0, 2]))):
        other.prepare()
        assert other.networks.found == 0


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_an_interrupted_training_goes_on_to_the_same_bytes(real, monkeypatch, cache, stop):
    monkeypatch.setattr(progress_file, "SECONDS_BETWEEN_SAVES", -1.0)
    expected = engine(real, seed=3)
    expected.prepare()
    for file in cache.iterdir():
        file.unlink()

    def interrupt(done, total, unit):
        assert (total, unit) == (6, "epochs of the encoders")
        if done == stop:
            raise KeyboardInterrupt

    broken = engine(real)
    with pytest.raises(KeyboardInterrupt):
        broken.run(interrupt)
    passed, whole = [], engine(real)
    whole.prepare(lambda done, total, unit: passed.append(done))
    # An epoch is saved after it was told of, so the one that was interrupted is made again.
    assert passed[0] == stop and passed[-1] == 6
    for one, other in zip(whole.networks._weights, expected.networks._weights):
        assert torch.equal(one, other)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\xff" * len(b)])
def test_a_damaged_file_is_trained_anew(real, cache, caplog, damage):
    expected = engine(real).run().images
    for file in cache.iterdir():
        file.write_bytes(damage(file.read_bytes()))
    with caplog.at_level(logging.WARNING):
        found = engine(real).run().images
    assert_same_bytes(found, expected)
    assert sum("damaged" in message for message in caplog.messages) == 2


def test_a_cache_that_cannot_be_written_costs_a_warning(real, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("CLREPLAY_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert engine(real).run().images.keys() == {0, 1, 2}
    assert sum("cannot keep trained weights" in message for message in caplog.messages) == 2


def test_an_interrupted_condensation_goes_on_to_the_same_bytes(real, tmp_path):
    settings = replace(TINY, constraint_weight=1.0, tiles=2, image_space="pixels", lr_img=0.05)
    expected = engine(real, settings).run().images
    keep = tmp_path / "work.progress"

    def interrupt(done, total, unit):
        if unit == "iterations" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine(real, settings).run(interrupt, keep)
    went_on = engine(real, settings)
    assert_same_bytes(went_on.run(None, keep).images, expected)
    assert not keep.exists()


def test_a_training_that_diverges_names_the_cure(real):
    with pytest.raises(FloatingPointError, match=r"encoder 0 diverged .*; lower encoder_lr \(now 1e\+30\)"):
        engine(real, replace(TINY, encoder_lr=1e30)).prepare()


# ---------------------------------------------------------------- pixel space


def test_images_stay_within_the_pixels(real):
    settings = replace(TINY, encoders="random", image_space="pixels", lr_img=50.0, lr_times_images=True)
    images = engine(real, settings).run().images
    low, high = NORMALIZATION.apply(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1))
    at_end = 0
    for one in images.values():
        assert (one >= low).all() and (one <= high).all()
        at_end += int(((one == low) | (one == high)).sum())
    assert at_end > 100, "the rate must have driven pixels to their ends"


def test_floats_of_unknown_pixels_are_an_error_before_any_work(real):
    unknown = RealImages(torch.randn(24, 3, 8, 8), torch.arange(24) % 3)
    with pytest.raises(ValueError, match="image_space pixels needs to know the pixels: give uint8"):
        engine(unknown, replace(TINY, image_space="pixels"))


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoders": "trained"}, "encoders must be one of random, trajectory, interpolated, got 'trained'"),
        ({"encoder_networks": 0}, "encoder_networks must be at least 1"),
        ({"encoder_epochs": 0}, "encoder_epochs must be at least 1"),
        ({"encoder_mix": 1.5}, "encoder_mix must be within"),
        ({"encoder_augment": "blur"}, "encoder_augment must join operators"),
        ({"constraint_weight": -1.0}, "constraint_weight must not be negative"),
        ({"constraint_span": -1}, "constraint_span must not be negative"),
        ({"encoders": "random", "constraint_weight": 1.0}, "constraint_weight 1 needs trained networks; set encoders"),
        ({"tiles": 5}, "tiles must be one of 1, 2, 3, 4, got 5"),
        ({"image_space": "rgb"}, "image_space must be one of normalised, pixels"),
    ],
)
def test_wrong_settings_are_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)


def test_idm_has_networks_of_its_own():
    with pytest.raises(ValueError, match="encoders must be random for idm"):
        IDMSettings(encoders="trajectory")


def test_classes_are_cached_one_by_one_only_where_networks_do_not_know_the_others():
    assert is_separable(replace(TINY, encoders="random")) and not is_separable(TINY)


def test_what_is_fastest_is_tried_without_training(real, monkeypatch):
    monkeypatch.setattr(encoders, "fit", lambda *_: pytest.fail("trained"))
    monkeypatch.setattr("clreplay.condensation.engine.calibration.WORTH_MEASURING", 0)
    settings = replace(TINY, constraint_weight=1.0)
    found, how = choose_image_execution(settings, Execution(kernels="auto"), real, dict.fromkeys((0, 1, 2), 2), CPU)
    assert found == settings and how.kernels != "auto"


# ---------------------------------------------------------------- recipes


@pytest.mark.parametrize("name", ["tgdd", "dance", "dm+tiles"])
def test_recipes_condense_through_the_public_door(pixels, name):
    images, labels = pixels(3, 12, size=16)
    memory = condense(
        images,
        labels,
        name,
        1,
        preset="smoke",
        normalization=NORMALIZATION,
        device="cpu",
        encoder_epochs=1,
        iterations=2,
    )
    assert len(memory) == 3 and memory.images.shape == (12, 3, 16, 16)
    assert memory.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert ("constraint" in memory.record[-1]) == (name != "dm+tiles")


@pytest.mark.parametrize("preset", PRESETS)
def test_small_presets_keep_to_what_the_methods_are(preset):
    for name, kind in (("tgdd", "trajectory"), ("dance", "interpolated")):
        settings = load_recipe(name).settings(preset, None, "cifar100", 20)
        assert (settings.encoders, settings.tiles, settings.image_space) == (kind, 2, "pixels")
        assert settings.constraint_weight == 1.0 and settings.lr_times_images
    digits = load_recipe("tgdd").settings(preset, None, "digits", 5)
    assert "flip" not in digits.encoder_augment and digits.siamese_augment == "color+crop+cutout"
