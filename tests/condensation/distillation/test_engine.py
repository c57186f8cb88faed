"""Dataset Distillation: gradients through unrolled training, the engine, resuming, and the native evaluation."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from clreplay.api import condense
from clreplay.condensation import RealImages
from clreplay.condensation.distillation import engine as unrolled
from clreplay.condensation.distillation.engine import DistillationEngine, UnrolledSettings
from clreplay.condensation.distillation.learned_steps import (
    learned_step_sizes,
    native_accuracies,
    step_batches,
    step_loss,
)
from clreplay.condensation.distillation.unrolled_gradient import walk, walk_back
from clreplay.condensation.engine import base
from clreplay.condensation.engine import progress_file as keeping
from clreplay.condensation.selection.random_choice import RandomSettings, select_random
from clreplay.data import NORMALIZATIONS, ImageSet
from clreplay.data.sets.digits import load_digits
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.networks import ConvNet, reinitialize
from clreplay.networks.flat_function import FlatFunction
from clreplay.recipes.recipe import load_recipe
from clreplay.runtime.seeding import generator
from clreplay.training.evaluate import accuracy
from clreplay.training.loop import train
from clreplay.training.settings import TrainingSettings

NORMALIZATION = NORMALIZATIONS["cifar10"]
CPU = torch.device("cpu")
TINY = UnrolledSettings(
    width=4, depth=2, updates=5, real_batch=10, distill_epochs=2, step_size=0.3, lr_img=0.1, lr_stages=2
)


def engine(real, settings=TINY, count=2, seed=3):
    counts = count if isinstance(count, dict) else {label: count for label in real.classes}
    return DistillationEngine(real, counts, settings, seed, CPU)


def distilled(real, settings=TINY, count=2, seed=3):
    return engine(real, settings, count, seed).run().images


def assert_same_bytes(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[label], other[label]) for label in one)


@pytest.fixture
def real(pixels):
    return RealImages(*pixels(3, 8), NORMALIZATION)


# ---------------------------------------------------------------- the backward walk against the plain one


def plain_walk(loss, start, batches, step_sizes):
    """Unrolled training with the graph of all steps kept, as one would write it down."""
    weights = start
    for t in range(len(step_sizes)):
        images, labels = batches[t % len(batches)]
        (gradient,) = torch.autograd.grad(loss(weights, images, labels), weights, create_graph=True)
        weights = weights - step_sizes[t] * gradient
    return weights


def double_function(**options):
    network = ConvNet(3, 2, 8, **{"width": 4, "depth": 2, "activation": "swish", **options}).double()
    function = FlatFunction(network)
    return function, function.xavier_normal(torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize(
    "options",
    [{}, {"activation": "relu"}, {"norm": "batch"}, {"norm": "layer"}, {"norm": "none", "pooling": "max"}],
    ids=str,
)
@pytest.mark.parametrize("sizes", [[3, 3], [3, 2, 1]], ids=str)
def test_the_backward_walk_equals_the_plain_unrolled_backward(options, sizes):
    function, start = double_function(**options)
    loss = step_loss(function)
    chance = torch.Generator().manual_seed(1)
    images = [torch.randn(n, 2, 8, 8, dtype=torch.float64, generator=chance).requires_grad_() for n in sizes]
    labels = [torch.arange(n) for n in sizes]
    batches = list(zip(images, labels))
    steps = torch.rand(7, dtype=torch.float64, generator=chance).requires_grad_()
    test = torch.randn(9, 2, 8, 8, dtype=torch.float64, generator=chance), torch.arange(9) % 3

    end = plain_walk(loss, start.clone().requires_grad_(), batches, steps)
    objective = loss(end, *test)
    expected = torch.autograd.grad(objective, [*images, steps])

    path = walk(loss, start, batches, steps)
    assert len(path) == 8 and not any(weights.requires_grad for weights in path)
    torch.testing.assert_close(path[-1], end.detach(), rtol=1e-12, atol=1e-12)
    last = path[-1].clone().requires_grad_()
    value = loss(last, *test)
    torch.testing.assert_close(value, objective, rtol=1e-12, atol=1e-12)
    to_images, to_steps = walk_back(loss, path, batches, steps, torch.autograd.grad(value, last)[0])
    assert all(gradient.abs().max() > 1e-4 for gradient in expected)
    for found, wanted in zip([*to_images, to_steps], expected):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 1000))
def test_the_backward_walk_of_a_quadratic_loss_is_the_formula(steps, batches, seed):
    """loss = |w - x|^2 / 2 moves w to (1 - eta) w + eta x, so all gradients are known in closed form."""
    chance = torch.Generator().manual_seed(seed)
    images = torch.randn(batches, 1, 4, dtype=torch.float64, generator=chance)
    sizes = torch.rand(steps, dtype=torch.float64, generator=chance)
    start, end = torch.randn(2, 4, dtype=torch.float64, generator=chance)

    def loss(weights, image, labels):
        return (weights - image[0]).square().sum() / 2

    taken = [(image, torch.zeros(1)) for image in images]
    path = walk(loss, start, taken, sizes)
    to_images, to_sizes = walk_back(loss, path, taken, sizes, end)
    weights, expected_images = start, torch.zeros_like(images)
    for t in range(steps):
        image = images[t % batches, 0]
        later = end * torch.prod(1 - sizes[t + 1 :])
        torch.testing.assert_close(to_sizes[t], later @ (image - weights))
        expected_images[t % batches, 0] += later * sizes[t]
        weights = (1 - sizes[t]) * weights + sizes[t] * image
    torch.testing.assert_close(path[-1], weights)
    torch.testing.assert_close(torch.stack(to_images), expected_images)


def test_the_activations_of_one_step_are_held_at_a_time():
    """What autograd keeps between two steps is nothing: the most held at once does not grow with the steps."""
    function, start = double_function()
    batch = torch.randn(3, 2, 8, 8, dtype=torch.float64), torch.arange(3)
    most = {}
    for steps in (2, 12):
        held, peak = [0], [0]

        class Held:
            def __init__(self, tensor, count=held, top=peak):
                self.tensor, self.count = tensor, count
                count[0] += tensor.numel()
                top[0] = max(top[0], count[0])

            def __del__(self):
                self.count[0] -= self.tensor.numel()

        sizes = torch.full((steps,), 0.1, dtype=torch.float64)
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda kept: kept.tensor):
            path = walk(step_loss(function), start, [batch], sizes)
            walk_back(step_loss(function), path, [batch], sizes, torch.ones_like(start))
        most[steps] = peak[0]
    assert 0 < most[12] <= most[2]


# ---------------------------------------------------------------- a network as a function


def test_a_flat_function_is_the_network():
    network = ConvNet(5, 3, 8, width=4, depth=2)
    images = torch.randn(2, 3, 8, 8)
    weights = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    expected = network(images).detach()
    function = FlatFunction(network)
    assert function.size == len(weights)
    assert torch.equal(function(weights, images), expected)
    doubled = function.module(2 * weights)
    assert torch.equal(doubled(images), function(2 * weights, images))
    assert not torch.equal(doubled(images), expected)


def test_xavier_weights_have_the_published_spread():
    network = ConvNet(40, 8, 8, width=64, depth=2)
    function = FlatFunction(network)
    function.module(function.xavier_normal(torch.Generator().manual_seed(0)))
    first, second = network.blocks
    for layer, fan_in, fan_out in (
        (first.conv, 8 * 9, 64 * 9),
        (second.conv, 64 * 9, 64 * 9),
        (network.classifier, 256, 40),
    ):
        assert float(layer.weight.std()) == pytest.approx(math.sqrt(2 / (fan_in + fan_out)), rel=0.03)
        assert abs(float(layer.weight.mean())) < 4 * float(layer.weight.std()) / math.sqrt(layer.weight.numel())
        assert not layer.bias.any()
    assert (first.norm.weight == 1).all() and not first.norm.bias.any()


def test_other_layers_are_refused():
    with pytest.raises(TypeError, match="cannot draw weight of a PReLU"):
        FlatFunction(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.PReLU()))


# ---------------------------------------------------------------- the engine against a slow loop


def slow_distil(real, counts, settings, seed):
    """The algorithm, step by step: one graph through all of an unroll, torch's own Adam."""
    classes, most = real.classes, max(counts.values())
    images = {}
    for label in classes:
        chance = generator(seed, real.keys[label], "init")
        if settings.init == "noise":
            first = torch.randn(counts[label], *real.shape, generator=chance)
        else:
            first = real.normalised(label)[torch.randperm(real.count(label), generator=chance)[: counts[label]]]
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
                batch = torch.stack([images[label][t % most] for label in taking])
                targets = torch.tensor([classes.index(label) for label in taking])
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
    [{}, {"networks": 2, "updates": 3}, {"init": "real", "distill_epochs": 1}, {"norm": "batch"}, {"real_batch": 100}],
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
    assert found.images.keys() == expected.keys()
    for label in expected:
        torch.testing.assert_close(found.images[label], expected[label], rtol=1e-3, atol=1e-3)
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


def test_step_t_takes_image_t_of_every_class_that_has_one():
    images = {7: torch.full((2, 1, 1, 1), 70.0), 2: torch.full((3, 1, 1, 1), 20.0), 5: torch.full((1, 1, 1, 1), 50.0)}
    for own in images.values():
        own += torch.arange(len(own))[:, None, None, None]
    batches = [(rows.flatten().tolist(), labels.tolist()) for rows, labels in step_batches(images)]
    assert batches == [([20, 50, 70], [0, 1, 2]), ([21, 71], [0, 2]), ([22], [0])]


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


@pytest.mark.parametrize("init", ["noise", "real"])
def test_pixel_codes_and_floats_give_the_same_bytes(pixels, init):
    images, labels = pixels(3, 8)
    codes, floats = RealImages(images, labels, NORMALIZATION), RealImages(NORMALIZATION.apply(images), labels)
    settings = replace(TINY, init=init, updates=2)
    assert_same_bytes(distilled(codes, settings), distilled(floats, settings))


def interrupt_at(update):
    def progress(done, total, unit):
        if done == update:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("options", [{}, {"networks": 2, "updates": 4}, {"norm": "batch"}], ids=str)
def test_an_interrupted_run_goes_on_to_the_same_bytes_and_record(real, options, tmp_path):
    settings, keep = replace(TINY, **options), tmp_path / "deep" / "work.progress"
    unbroken = engine(real, settings).run()
    with pytest.raises(KeyboardInterrupt):
        engine(real, settings).run(interrupt_at(3), keep)
    told = []
    resumed = engine(real, settings).run(lambda *report: told.append(report), keep)
    assert told == [(i, settings.updates, "updates") for i in range(4, settings.updates + 1)]
    assert_same_bytes(resumed.images, unbroken.images)
    assert resumed.record == unbroken.record
    assert not keep.exists()


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


def test_the_state_is_kept_every_few_minutes(real, tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "SECONDS_BETWEEN_SAVES", -1.0)
    keep, there = tmp_path / "work.progress", []
    engine(real).run(lambda *_: there.append(keep.exists()), keep)
    assert there == [False, True, True, True, True]


def test_a_kept_state_of_another_distillation_is_not_used(real, tmp_path, caplog):
    keep = tmp_path / "work.progress"
    with pytest.raises(KeyboardInterrupt):
        engine(real, seed=1).run(interrupt_at(3), keep)
    assert_same_bytes(engine(real).run(keep=keep).images, distilled(real))
    assert "another condensation" in caplog.text


def test_a_state_that_does_not_fit_changes_nothing(real):
    some, other = engine(real), engine(real, count=3)
    other.step()
    with pytest.raises(ValueError, match="the state does not fit"):
        some.load_state_dict(other.state_dict())
    assert some.learned.iteration == 0
    assert_same_bytes(some.images(), engine(real).images())


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


# ---------------------------------------------------------------- the native evaluation


@pytest.fixture
def task(pixels):
    images, labels = pixels(3, 40)
    return RealImages(images[:60], labels[:60] * 4 + 1, NORMALIZATION), ImageSet(images[60:], labels[60:] * 4 + 1)


def test_native_training_takes_the_learned_steps_with_their_sizes(task):
    real, test = task
    images, sizes = engine(real).images(), [0.5, 0.1, 0.9, 0.0001]
    found = native_accuracies(images, sizes, test, NORMALIZATION, TINY, cycles=2, networks=2, seed=6)
    expected = []
    for number in range(2):
        function = FlatFunction(TINY.build(3, 3, 8))
        network = function.module(function.xavier_normal(generator(6, "native", number))).requires_grad_()
        for t, size in enumerate(sizes):
            loss = F.cross_entropy(network(torch.stack([own[t % 2] for own in images.values()])), torch.arange(3))
            network.zero_grad()
            loss.backward()
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter -= size * parameter.grad
        right = network(NORMALIZATION.apply(test.images)).argmax(1) * 4 + 1 == test.labels
        expected.append(100 * float(right.float().mean()))
    assert found == pytest.approx(expected, abs=1e-3)


def test_the_learned_steps_train_fresh_networks_and_their_sizes_are_part_of_them(task):
    real, test = task
    settings = replace(TINY, updates=50, real_batch=60)
    result = engine(real, settings).run()
    sizes = learned_step_sizes(result.record)

    def measured(images, sizes, networks=8):
        values = native_accuracies(images, sizes, test, NORMALIZATION, settings, cycles=2, networks=networks)
        return sum(values) / len(values)

    learned = measured(result.images, sizes)
    assert learned > 60
    assert learned > measured(engine(real, settings).images(), sizes) + 20  # the noise they began as
    assert learned > measured(result.images, sizes / 20) + 10


def test_step_sizes_and_images_are_found_again_in_a_saved_memory(pixels, tmp_path):
    images, labels = pixels(4, 20)
    memory = condense(images, labels, "dd", 2, preset="smoke", normalization="cifar10", width=4, depth=2, device="cpu")
    memory.save(tmp_path / "memory.safetensors")
    again = ReplayMemory.load(tmp_path / "memory.safetensors")
    sizes = learned_step_sizes(again.record)
    assert torch.equal(sizes, learned_step_sizes(memory.record)) and len(sizes) % 2 == 0 and (sizes > 0).all()
    own = {label: again.class_images(label) for label in again.classes}
    settings = replace(TINY, distill_epochs=len(sizes) // 2)
    test = ImageSet(images, labels)
    (value,) = native_accuracies(own, sizes, test, NORMALIZATION, settings, cycles=settings.distill_epochs, networks=1)
    assert 0 <= value <= 100


def test_step_sizes_of_every_experience_are_kept_apart():
    rows = [{"experience": e, "iteration": i, "step_size": e + i / 10} for e in (0, 1) for i in (2, 1)]
    rows.append({"experience": 1, "iteration": 1, "loss": 3.0})
    assert learned_step_sizes(rows, 1).tolist() == pytest.approx([1.1, 1.2])
    with pytest.raises(ValueError, match="no step_size in experience 2; only dd learns step sizes"):
        learned_step_sizes(rows, 2)


def test_a_shrunken_memory_leaves_its_empty_steps_out(task):
    real, test = task
    images = engine(real).images()
    first = {label: own[:1] for label, own in images.items()}
    shrunk = native_accuracies(first, [0.3, 9.0, 0.2, 9.0], test, NORMALIZATION, TINY, cycles=2)
    assert shrunk == native_accuracies(first, [0.3, 0.2], test, NORMALIZATION, TINY, cycles=2)


@pytest.mark.parametrize("sizes", [[0.1] * 3, [0.1] * 2, [0.1] * 5])
def test_step_sizes_that_do_not_fit_the_images_are_refused(task, sizes):
    real, test = task
    with pytest.raises(ValueError, match=f"2 cycles of at least 2 steps, got {len(sizes)}"):
        native_accuracies(engine(real).images(), sizes, test, NORMALIZATION, TINY, cycles=2)


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
