"""Dataset Distillation: gradients through unrolled training, the engine, resuming, and the native evaluation."""

import copy
import math
from dataclasses import replace

import pytest
import slow
import torch
import torch.nn.functional as F
from engines import CPU, NORMALIZATION, assert_close, assert_same_bytes, maker

from clreplay.condensation import RealImages
from clreplay.condensation.distillation import engine as unrolled
from clreplay.condensation.distillation.engine import DistillationEngine
from clreplay.condensation.distillation.learned_steps import (
    learned_step_sizes,
)
from clreplay.condensation.distillation.settings import UnrolledSettings
from clreplay.condensation.engine import base
from clreplay.condensation.selection.random_choice import RandomSettings, select_random
from clreplay.data.sets.digits import load_digits
from clreplay.networks import reinitialize
from clreplay.networks.flat_function import FlatFunction
from clreplay.recipes.recipe import load_recipe
from clreplay.runtime.seeding import generator
from clreplay.training.evaluate import accuracy
from clreplay.training.loop import train
from clreplay.training.settings import TrainingSettings

TINY = UnrolledSettings(
    width=4, depth=2, updates=5, real_batch=10, distill_epochs=2, step_size=0.3, lr_img=0.1, lr_stages=2
)
engine = maker(DistillationEngine, TINY, count=2)


def distilled(real, settings=TINY, count=2, seed=3):
    return engine(real, settings, count, seed).run().images


@pytest.fixture
def real(pixels):
    return RealImages(*pixels(3, 8), NORMALIZATION)


# ---------------------------------------------------------------- the engine against a slow loop


def slow_distil(real, counts, settings, seed):
    """The algorithm, step by step: one graph through all of an unroll, torch's own Adam."""
    classes, most = real.classes, max(counts.values())
    images = {}
    for label in classes:
        first = slow.first_images(real, label, counts[label], settings, seed)
        images[label] = first.clone().requires_grad_()
    raw = torch.full((settings.distill_epochs * most,), math.log(math.exp(settings.step_size) - 1)).requires_grad_()
    everything = [*images.values(), raw]
    adam = torch.optim.Adam(everything, lr=settings.lr_img, betas=settings.betas)
    data = torch.cat([real.normalised(label) for label in classes])
    labels = torch.tensor([place for place, label in enumerate(classes) for _ in range(real.count(label))])
    an_epoch = -(-len(data) // settings.real_batch)
    for update in range(settings.updates):
        epoch, within = divmod(update, an_epoch)
        key = (seed, "dd", *(real.keys[label] for label in classes), "epoch", epoch)
        rows = torch.randperm(len(data), generator=generator(*key)).split(settings.real_batch)[within]
        adam.param_groups[0]["lr"] = settings.lr_img / 2 ** (update * settings.lr_stages // settings.updates)
        losses = []
        for number in range(settings.networks):
            function = FlatFunction(settings.build(len(classes), 3, real.shape[1]))
            weights = function.xavier_normal(generator(seed, "network", update * settings.networks + number))
            weights.requires_grad_()
            for t in range(len(raw)):
                taking = [label for label in classes if counts[label] > t % most]
                batch = slow.shown(torch.stack([images[label][t % most] for label in taking]), settings)
                targets = torch.tensor([classes.index(label) for label in taking for _ in range(settings.tiles**2)])
                loss = F.cross_entropy(function(weights, batch), targets)
                (gradient,) = torch.autograd.grad(loss, weights, create_graph=True)
                weights = weights - torch.log1p(raw[t].exp()) * gradient
            losses.append(F.cross_entropy(function(weights, data[rows]), labels[rows]))
        adam.zero_grad()
        (sum(losses) / len(losses)).backward()
        adam.step()
    return {label: own.detach() for label, own in images.items()}, F.softplus(raw.detach())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"networks": 2, "updates": 3},
        {"init": "real", "distill_epochs": 1},
        {"norm": "batch"},
        {"real_batch": 100},
        {"tiles": 2},
        {"tiles": 4, "init": "real"},
    ],
    ids=str,
)
def test_the_engine_equals_the_loop(pixels, changes):
    real = RealImages(*pixels(each=[8, 9, 7]), NORMALIZATION)
    settings = replace(TINY, activation="swish", **changes)
    counts = {0: 2, 1: 3, 2: 2}
    expected, sizes = slow_distil(real, counts, settings, seed=3)
    some = engine(real, settings, counts)
    start = some.images()
    found = some.run()
    assert_close(found.images, expected, 1e-3)
    for label in expected:
        assert (found.images[label] - start[label]).abs().max() > 0.05, "the images must have moved"
    torch.testing.assert_close(learned_step_sizes(found.record), sizes, rtol=1e-3, atol=1e-5)
    assert (sizes - settings.step_size).abs().min() > 1e-4, "the step sizes must have moved"


def test_the_loss_does_not_depend_on_how_many_real_images_are_at_once(real, monkeypatch):
    whole = engine(real)
    start, rows = whole.function.xavier_normal(torch.Generator().manual_seed(0)), torch.arange(20)
    loss, gradients = whole.gradients(start, rows)
    monkeypatch.setattr(unrolled, "REAL_AT_ONCE", 3)
    parts, others = engine(real).gradients(start, rows)
    torch.testing.assert_close(parts, loss)
    for found, wanted in zip(others, gradients):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)


def test_gradients_do_not_change_the_state(real):
    some = engine(real)
    before = copy.deepcopy(some.learned)
    some.gradients(some.function.xavier_normal(torch.Generator().manual_seed(0)), torch.arange(9))
    assert all(torch.equal(now, old) for now, old in zip(some.learned.values, before.values))


def test_the_loss_on_real_images_falls(real):
    record = engine(real, replace(TINY, updates=30, real_batch=24)).run().record
    losses = [row["loss"] for row in record if "loss" in row]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_step_sizes_begin_where_the_setting_says_and_stay_positive(real):
    for size in (1e-4, 0.02, 3.0, 40.0):
        sizes = engine(real, replace(TINY, step_size=size)).step_sizes
        torch.testing.assert_close(sizes, torch.full((4,), size), rtol=1e-4, atol=0)
    some = engine(real, replace(TINY, step_size=1e-3, lr_img=5.0))
    some.run()
    assert (some.step_sizes > 0).all()


def test_every_epoch_takes_every_real_image_once(real):
    some = engine(real)
    for epoch in (0, 1):
        rows = torch.cat([some._real_rows(3 * epoch + batch) for batch in range(3)])
        assert sorted(rows.tolist()) == list(range(24))
    assert not torch.equal(some._real_rows(0), some._real_rows(3))


def test_epochs_count_batches_of_the_experience(real):
    assert engine(real, replace(TINY, updates=None, epochs=4)).iterations == 12
    assert engine(real, replace(TINY, updates=None, epochs=4, real_batch=1024)).iterations == 4
    assert engine(real, replace(TINY, updates=7, epochs=4)).iterations == 7


# ---------------------------------------------------------------- counts and bytes


def test_uneven_counts_give_exactly_what_is_asked_in_the_order_of_the_steps(pixels):
    real = RealImages(*pixels(each=[8, 9, 4]), NORMALIZATION)
    counts = {0: 2, 1: 4, 2: 1}
    some = engine(real, replace(TINY, updates=1), counts)
    for label, images in some.images().items():
        chance = generator(3, real.keys[label], "init")
        assert torch.equal(images, torch.randn(counts[label], 3, 8, 8, generator=chance))
    result = some.run()
    assert {label: len(images) for label, images in result.images.items()} == counts
    assert len(learned_step_sizes(result.record)) == 4 * TINY.distill_epochs


def test_ctrl_c_in_the_middle_of_an_update_loses_that_update_only(real, tmp_path, monkeypatch):
    unbroken, keep = engine(real).run(), tmp_path / "work.progress"
    broken = engine(real)
    gradients = broken.gradients

    def interrupted(start, rows):
        if broken.learned.iteration == 2:
            raise KeyboardInterrupt
        return gradients(start, rows)

    monkeypatch.setattr(broken, "gradients", interrupted)
    with pytest.raises(KeyboardInterrupt):
        broken.run(keep=keep)
    resumed = engine(real).run(keep=keep)
    assert_same_bytes(resumed.images, unbroken.images)
    assert resumed.record == unbroken.record


# ---------------------------------------------------------------- record, divergence, bad input


def test_the_record_holds_loss_image_range_and_step_sizes(real, monkeypatch):
    monkeypatch.setattr(base, "RECORD_ROWS", 5)
    some = engine(real, replace(TINY, updates=13, distill_epochs=1), count=1)
    record = some.run().record
    losses = [row for row in record if "loss" in row]
    assert [row["iteration"] for row in losses] == [1, 2, 4, 6, 8, 10, 12, 13]
    images = torch.cat(list(some.images().values()))
    assert losses[-1]["image_max"] == pytest.approx(float(images.max()))
    assert losses[-1]["image_std"] == pytest.approx(float(images.std()), rel=1e-5)
    assert [row for row in record if "step_size" in row] == [{"iteration": 1, "step_size": float(some.step_sizes[0])}]


def test_a_single_class_is_refused_with_a_way_out(pixels):
    real = RealImages(*pixels(1, 8), NORMALIZATION)
    with pytest.raises(ValueError, match="at least 2 in an experience, got class 0 alone; take more classes a step"):
        engine(real)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "zeros"}, "init must be one of .*noise.*, got 'zeros'"),
        ({"distill_epochs": 0}, "distill_epochs must be at least 1, got 0"),
        ({"networks": 0}, "networks must be at least 1, got 0"),
        ({"updates": 0}, "updates must be at least 1, got 0"),
        ({"step_size": 0.0}, "step_size must be positive, got 0.0"),
        ({"lr_img": -1.0}, "lr_img must be positive, got -1.0"),
        ({"betas": (0.5,)}, r"betas must be two numbers within \[0, 1\), got \[0.5\]"),
        ({"betas": (0.5, 1.0)}, "betas must be two numbers"),
        ({"norm": "instanse"}, "norm must be one of"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **options)


def test_the_shipped_recipe_has_the_published_numbers():
    paper = load_recipe("dd").settings()
    assert paper == UnrolledSettings()
    assert (paper.epochs, paper.updates, paper.real_batch, paper.distill_epochs) == (400, None, 1024, 3)
    assert (paper.step_size, paper.lr_img, paper.betas, paper.init) == (0.02, 0.01, (0.5, 0.999), "noise")


# ---------------------------------------------------------------- end to end


@pytest.mark.slow
def test_distilled_digits_train_networks_better_than_random_ones():
    """The usual training on the images alone, last epoch, one image a class, mean over four networks."""
    data = load_digits()
    real = RealImages(data.train.images, data.train.labels, data.normalization)
    counts = {label: 1 for label in real.classes}
    settings = UnrolledSettings(
        width=16, updates=150, real_batch=128, step_size=0.3, lr_img=0.3, lr_stages=4, init="real"
    )
    learner = TrainingSettings(width=16, updates=60, lr=0.05, augment=None)

    def accuracy_of(images):
        values = []
        for number in range(4):
            network = learner.build(10, 1, 32)
            reinitialize(network, number)
            train(network, torch.cat(list(images.values())), torch.arange(10), learner, (number,))
            values.append(accuracy(network, data.test, data.normalization, CPU))
        return sum(values) / len(values)

    gains = []
    for seed in range(3):
        codes = select_random(real, counts, RandomSettings(), seed=seed, device=CPU).images
        random_images = {label: data.normalization.apply(own) for label, own in codes.items()}
        gains.append(accuracy_of(distilled(real, settings, 1, seed)) - accuracy_of(random_images))
    assert min(gains) > 0 and sum(gains) / 3 > 3, gains


@pytest.mark.parametrize("name", ["values", "first", "second"])
@pytest.mark.parametrize(
    "spoil", [lambda parts: [parts[0][:1], parts[1]], lambda parts: parts[:1]], ids=["cut", "gone"]
)
def test_a_state_with_damaged_tensors_changes_nothing(real, name, spoil):
    some, other = engine(real), engine(real, seed=4)
    other.step()
    state, before = other.state_dict(), some.images()
    state[name] = spoil(state[name])
    with pytest.raises(ValueError, match="does not fit"):
        some.load_state_dict(state)
    assert some.iteration == 0
    assert_same_bytes(some.images(), before)
