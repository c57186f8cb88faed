"""Gradient matching against a slow loop in double precision; classes together and alone; keyed chance; resuming."""

import json
from dataclasses import asdict, replace

import pytest
import slow
import slow_losses
import torch
from engines import NORMALIZATION, assert_close, assert_same_bytes, maker
from mixed import mixed

from clreplay.condensation import RealImages
from clreplay.condensation.engine.execution import Execution
from clreplay.condensation.gradient_matching import engine as gradients
from clreplay.condensation.gradient_matching.engine import GradientMatchingEngine
from clreplay.condensation.gradient_matching.settings import GradientSettings
from clreplay.networks import ConvNet
from clreplay.runtime.seeding import BLOCK, generator
from clreplay.training.augmentation import OPERATORS, draw, parse_strategy

STRATEGY = "color_crop_cutout_flip_scale_rotate"
DC = GradientSettings(
    width=4, depth=2, iterations=2, outer_loops=3, inner_epochs=2, real_batch=7, lr_img=0.5, batch_net=5
)
DSA = replace(DC, init="real", siamese_augment=STRATEGY, inner_augment=STRATEGY)
engine = maker(GradientMatchingEngine, DSA, count=4)


def condensed(real, settings=DSA, count=4, seed=3):
    return engine(real, settings, count, seed).run().images


# ---------------------------------------------------------------- the slow loop


def slow_gradient(network, images, output, one_draw, settings, graph=False):
    """Of the mean cross-entropy of one class's images, each augmented on its own with the class's draw."""
    logits = torch.cat([network(slow.augmented(image[None], one_draw, settings)) for image in images])
    loss = slow_losses.cross_entropy(logits, output)
    return torch.autograd.grad(loss, list(network.parameters()), create_graph=graph)


def slow_inner_training(network, images, settings, seed, number):
    """Epochs of plain SGD on the images of all classes, image after image."""
    everything = [(image, output) for output, batch in enumerate(images.values()) for image in batch.detach()]
    strategy = parse_strategy(settings.inner_augment)
    network.train()
    for epoch in range(settings.inner_epochs):
        chance = generator(seed, "inner", number, "epoch", epoch)
        order = torch.randperm(len(everything), generator=chance).tolist()
        starts = range(0, len(everything), settings.batch_net)
        choices = torch.rand(len(starts), generator=chance).tolist()
        parameters = draw(len(everything), strategy, chance)[:, 1:]
        for start, choice in zip(starts, choices):
            batch = []
            for place, row in list(enumerate(order))[start : start + settings.batch_net]:
                image = everything[row][0][None]
                for name in strategy.chosen(choice):
                    image = OPERATORS[name](image, parameters[place : place + 1])
                batch.append(image)
            outputs = [everything[row][1] for row in order[start : start + settings.batch_net]]
            logits = network(torch.cat(batch)).log_softmax(1)  # in one pass: batch norm looks at all of them
            loss = -sum(one[output] for one, output in zip(logits, outputs)) / len(outputs)
            slopes = torch.autograd.grad(loss, list(network.parameters()))
            with torch.no_grad():
                for parameter, slope in zip(network.parameters(), slopes):
                    parameter.sub_(settings.lr_net * slope)


def slow_condense(real, counts, settings, seed):
    """The loops of the papers, one class and one image at a time."""
    images, velocity = {}, {}
    for label in real.classes:
        images[label] = slow.first_images(real, label, counts[label], settings, seed).double()
        velocity[label] = torch.zeros_like(images[label])
    for iteration in range(settings.iterations):
        network = ConvNet(len(images), 3, 8, settings.width, settings.depth, settings.norm)
        slow.drawn_network(network, seed, iteration)
        for step in range(settings.outer_loops):
            number = iteration * settings.outer_loops + step
            if settings.norm == "batch":
                held = []
                for label in real.classes:
                    chance = generator(seed, real.keys[label], "statistics", number)
                    rows = torch.randperm(real.count(label), generator=chance)[: settings.statistics_batch]
                    held.append(real.normalised(label)[rows].double())
                network.train()
                network(torch.cat(held))
            network.eval()
            slopes = {}
            for output, label in enumerate(real.classes):
                rows, one_draw = slow.drawn_batch(real, label, settings, seed, *divmod(number, BLOCK))
                batch, synthetic = real.normalised(label)[rows].double(), images[label].clone().requires_grad_()
                theirs = slow_gradient(network, batch, output, one_draw, settings)
                seen = slow.shown(synthetic, settings)
                ours = slow_gradient(network, seen, output, one_draw, settings, graph=True)
                (slopes[label],) = torch.autograd.grad(
                    slow_losses.gradient_distance(theirs, ours, settings.distance), synthetic
                )
            for label, slope in slopes.items():
                velocity[label] = settings.momentum_img * velocity[label] + slope
                images[label] = images[label] - settings.lr_img * velocity[label]
            if step + 1 < settings.outer_loops:
                seen = {label: slow.shown(own, settings) for label, own in images.items()}
                slow_inner_training(network, seen, settings, seed, number)
    return images


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        DC,
        DSA,
        replace(DSA, siamese_augment="crop+flip", inner_augment="color", real_batch=50),
        replace(DC, distance="squared", norm="group"),
        replace(DC, distance="whole_cosine", norm="none", momentum_img=0.0, lr_net=0.2),
        replace(DC, norm="batch", statistics_batch=5, init="real"),
        replace(DC, outer_loops=1, iterations=4),
        replace(DSA, tiles=2),
        replace(DC, tiles=4, init="noise"),
    ],
    ids=["dc", "dsa", "crop+flip", "squared", "whole_cosine", "batch", "one-step", "tiles", "tiles of noise"],
)
def test_a_condensation_equals_the_slow_loop(real, settings, together, double):
    counts = dict.fromkeys(real.classes, 3)
    expected = slow_condense(real, counts, settings, seed=3)
    some = engine(real, mixed(settings, together=together), counts)
    start = some.images()
    found = some.run().images
    assert_close(found, expected, 1e-8)
    assert all((found[label] - start[label]).abs().max() > 1e-4 for label in found), "the images must have moved"


def test_uneven_classes_and_counts_equal_the_slow_loop(pixels, double):
    real, counts = RealImages(*pixels(each=[5, 12, 9, 12]), NORMALIZATION), {0: 2, 1: 3, 2: 1, 3: 3}
    expected = slow_condense(real, counts, DSA, seed=3)
    for together in (False, True):
        some = engine(real, mixed(DSA, together=together), counts)
        assert [group.labels for group in some.groups] == [[0], [1, 3], [2]]
        assert_close(some.run().images, expected, 1e-8)


# ---------------------------------------------------------------- siamese


@pytest.mark.parametrize("strategy", [None, STRATEGY, "crop+rotate"])
@pytest.mark.parametrize("together", [False, True])
def test_the_same_images_on_both_sides_are_at_zero_under_any_augmentation(real, strategy, together, double):
    """Only if each class's real and synthetic images are augmented alike: then nothing has a reason to move."""
    settings = mixed(
        DSA, siamese_augment=strategy, distance="squared", real_batch=12, together=together, inner_epochs=3
    )
    some = engine(real, settings, count=12)
    start, distances = some.images(), [float(some.step()) for _ in range(6)]
    assert max(distances) < 1e-20
    assert_close(some.images(), start, 1e-9)


def test_augmentation_matters_and_every_class_has_its_own(real):
    some = engine(real, replace(DSA, real_batch=50))
    some.step()
    draws = torch.stack([group.draws[:, i] for group in some.groups for i in range(len(group.labels))])
    assert len({tuple(row) for row in draws[:, 0].tolist()}) == 3
    plain = condensed(real, replace(DSA, siamese_augment=None))
    assert all((plain[label] - images).abs().max() > 1e-3 for label, images in condensed(real).items())


# ---------------------------------------------------------------- bytes and resuming


@pytest.mark.parametrize("where", ["gradient_distance", "train_further", "progress"])
@pytest.mark.parametrize("call", [2, 4])
def test_ctrl_c_at_any_moment_leaves_a_state_that_goes_on_to_the_same_bytes(real, where, call, tmp_path, monkeypatch):
    """Also in the middle of a matching step, when some classes are through with it and others are not."""
    settings = replace(DSA, norm="batch")
    unbroken = engine(real, settings).run()
    calls = 0

    def pressed(function):
        def wrapped(*args, **kwargs):
            nonlocal calls
            calls += 1
            result = function(*args, **kwargs)
            if calls == call:
                raise KeyboardInterrupt
            return result

        return wrapped

    keep = tmp_path / "deep" / "work.progress"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        progress = pressed(lambda *_: None) if where == "progress" else None
        if progress is None:
            patch.setattr(gradients, where, pressed(getattr(gradients, where)))
        engine(real, settings).run(progress, keep)
    assert [path.name for path in keep.parent.iterdir()] == ["work.progress"]
    told = []
    resumed = engine(real, settings).run(lambda *report: told.append(report[0]), keep)
    done = {"gradient_distance": (call - 1) // 3, "train_further": [0, 1, 3, 4][call - 1], "progress": call}[where]
    assert told == list(range(done + 1, 7))
    assert_same_bytes(resumed.images, unbroken.images)
    assert resumed.record == unbroken.record
    assert not keep.exists()


# ---------------------------------------------------------------- counts, start, record, progress


def test_the_distance_falls(real):
    settings = replace(DC, iterations=8, outer_loops=4, real_batch=12, lr_img=2.0)
    record = engine(real, settings).run().record
    assert record[-1]["gradient_distance"] < 0.6 * record[0]["gradient_distance"]


def test_the_record_has_a_row_an_iteration_with_the_mean_distance_of_its_steps(real):
    some = engine(real)
    distances = [float(some.step()) for _ in range(6)]
    assert [row["iteration"] for row in some.record] == [1, 2]
    for row, mine in zip(some.record, (distances[:3], distances[3:])):
        assert row["gradient_distance"] == pytest.approx(sum(mine) / 3, rel=1e-5)
    images = torch.cat(list(some.images().values()))
    assert some.record[-1]["image_max"] == pytest.approx(float(images.max()))
    assert some.record[-1]["image_min"] == pytest.approx(float(images.min()))
    assert some.record[-1]["image_std"] == pytest.approx(float(images.std()), rel=1e-5)


# ---------------------------------------------------------------- how many classes at once


def test_a_cpu_takes_a_class_at_a_time_unless_told_otherwise(real):
    assert [engine(real, mixed(DSA, together=t)).classes_at_once for t in (None, False, True)] == [1, 1, 3]
    assert engine(real).run().chosen == {"classes_at_once": 1, "outer_loops": 3, "inner_epochs": 2}


def limit_memory(monkeypatch, classes):
    """An allocator that has no room for more than ``classes`` classes at once."""
    whole = gradients.class_gradients

    def limited(network, names, images, *rest, **options):
        if len(images) > classes:
            raise torch.cuda.OutOfMemoryError("faked")
        return whole(network, names, images, *rest, **options)

    monkeypatch.setattr(gradients, "class_gradients", limited)


def test_out_of_memory_halves_the_classes_at_once_and_is_remembered(pixels, monkeypatch, caplog, double):
    real = RealImages(*pixels(7, 9), NORMALIZATION)
    settings = mixed(DSA, together=True, iterations=1, real_batch=4)
    plain = condensed(real, settings)
    limit_memory(monkeypatch, 2)
    some = engine(real, settings)
    assert some.classes_at_once == 7
    some.step()
    assert some.classes_at_once == 2 and caplog.text.count("out of memory") == 2  # 7, 4, 2
    state = some.state_dict()
    assert_close(some.run().images, plain, 1e-8)
    resumed = engine(real, settings)
    resumed.load_state_dict(state)
    result = resumed.run()
    assert result.chosen["classes_at_once"] == 2 and caplog.text.count("out of memory") == 2
    assert_same_bytes(result.images, some.images())


def test_memory_too_small_for_one_class_is_an_error(real, monkeypatch):
    limit_memory(monkeypatch, 0)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        engine(real, mixed(DSA, together=True)).run()


# ---------------------------------------------------------------- settings


def test_what_names_a_condensation_holds_every_setting(real):
    parts = json.loads(engine(real).identity())
    assert parts[1] == {name: value for name, value in asdict(DSA).items() if name != "tiles"}  # a later one at rest
    assert json.loads(engine(real, replace(DSA, tiles=2)).identity())[1]["tiles"] == 2
    assert parts[0] == [[real.keys[label], 4] for label in real.classes]
    assert parts[2:] == [asdict(Execution()), 3, "cpu"]


@pytest.mark.parametrize(
    ("count", "given", "missing"),
    [
        (5, {}, "outer_loops and inner_epochs"),
        (51, {"outer_loops": 3}, "inner_epochs"),
        ({0: 10, 1: 11, 2: 10}, {"inner_epochs": 3}, "outer_loops"),
    ],
)
def test_without_published_loops_the_settings_to_give_are_named_before_any_work(real, count, given, missing, pixels):
    real = RealImages(*pixels(3, 60), NORMALIZATION)
    images = max(count.values()) if isinstance(count, dict) else count
    settings = replace(DSA, outer_loops=None, inner_epochs=None)
    with pytest.raises(ValueError, match=rf"^{missing} must be given for {images} images a class.*\(20, 25\) for 20"):
        engine(real, replace(settings, **given), count)
