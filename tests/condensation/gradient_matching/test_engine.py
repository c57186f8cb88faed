"""Gradient matching against a slow loop in double precision; classes together and alone; keyed chance; resuming."""

import copy
import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from mixed import apart, mixed

from clreplay.condensation import METHODS, RealImages
from clreplay.condensation.configured import ConfiguredMethod
from clreplay.condensation.engine import base
from clreplay.condensation.engine import progress_file as keeping
from clreplay.condensation.engine.execution import Execution
from clreplay.condensation.gradient_matching import engine as gradients
from clreplay.condensation.gradient_matching.class_gradients import class_gradients
from clreplay.condensation.gradient_matching.engine import GradientMatchingEngine
from clreplay.condensation.gradient_matching.settings import PUBLISHED_LOOPS, GradientSettings
from clreplay.data import NORMALIZATIONS, load_digits
from clreplay.losses.gradient_distance import DISTANCES, gradient_distance, is_compared
from clreplay.networks import ConvNet, reinitialize
from clreplay.recipes.recipe import load_recipe
from clreplay.runtime.seeding import BLOCK, generator, key_seed
from clreplay.training.augmentation import OPERATORS, augment_shared, draw, parse_strategy
from clreplay.training.evaluate import accuracy
from clreplay.training.loop import train
from clreplay.training.settings import TrainingSettings

NORMALIZATION = NORMALIZATIONS["cifar10"]
CPU = torch.device("cpu")
STRATEGY = "color_crop_cutout_flip_scale_rotate"
DC = GradientSettings(
    width=4, depth=2, iterations=2, outer_loops=3, inner_epochs=2, real_batch=7, lr_img=0.5, batch_net=5
)
DSA = replace(DC, init="real", siamese_augment=STRATEGY, inner_augment=STRATEGY)


def engine(real, settings=DSA, count=4, seed=3):
    counts = count if isinstance(count, dict) else dict.fromkeys(real.classes, count)
    settings, execution = apart(settings)
    return GradientMatchingEngine(real, counts, settings, seed, CPU, execution)


def condensed(real, settings=DSA, count=4, seed=3):
    return engine(real, settings, count, seed).run().images


def assert_same_bytes(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[label], other[label]) for label in one)


def assert_close(one, other, tolerance=1e-8):
    assert one.keys() == other.keys()
    for label in one:
        torch.testing.assert_close(one[label], other[label], rtol=tolerance, atol=tolerance)


@pytest.fixture
def double():
    """Everything in double precision, so that only a wrong formula can make a difference."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def real(pixels):
    return RealImages(*pixels(3, 12), NORMALIZATION)


# ---------------------------------------------------------------- the slow loop


def slow_network(settings, classes, seed, iteration):
    """A new module; weights layer by layer from the keyed draw of the iteration."""
    network = ConvNet(classes, 3, 8, settings.width, settings.depth, settings.norm)
    size = sum(parameter.numel() for parameter in network.parameters())
    numbers = torch.empty(size).uniform_(-1, 1, generator=generator(seed, "network", iteration))
    with torch.no_grad():
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                values, numbers = numbers[: parameter.numel()], numbers[parameter.numel() :]
                if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                    parameter.copy_(values.view_as(parameter) / math.sqrt(module.weight[0].numel()))
                else:
                    parameter.fill_(1.0 if name == "weight" else 0.0)
    return network


def slow_draw(real, label, settings, seed, number):
    """Rows of the real batch and augmentation draw of one class in one matching step."""
    chance = generator(seed, real.keys[label], "match", number // BLOCK)
    draws = torch.rand(BLOCK, parse_strategy(settings.siamese_augment).draw_size, generator=chance)
    size = real.count(label)
    if settings.real_batch >= size:
        return list(range(size)), draws[number % BLOCK]
    uniform = torch.rand(BLOCK, size, generator=chance)[number % BLOCK]
    return sorted(range(size), key=lambda row: -uniform[row])[: settings.real_batch], draws[number % BLOCK]


def slow_gradient(network, images, output, one_draw, settings, graph=False):
    """Of the mean cross-entropy of one class's images, each augmented on its own with the class's draw."""
    strategy, loss = parse_strategy(settings.siamese_augment), 0.0
    for image in images:
        logits = network(augment_shared(image[None], one_draw, strategy))[0]
        loss = loss - logits.log_softmax(0)[output] / len(images)
    return torch.autograd.grad(loss, list(network.parameters()), create_graph=graph)


def slow_distance(theirs, ours, settings):
    if settings.distance == "squared":
        return sum(((a - b) ** 2).sum() for a, b in zip(theirs, ours))
    if settings.distance == "whole_cosine":
        a, b = (torch.cat([g.reshape(-1) for g in side]) for side in (theirs, ours))
        return 1 - (a @ b) / (a.norm() * b.norm() + 1e-6)
    total = 0.0
    for a, b in zip(theirs, ours):
        if a.ndim > 1:
            for x, y in zip(a.reshape(len(a), -1), b.reshape(len(b), -1)):
                total = total + 1 - (x @ y) / (x.norm() * y.norm() + 1e-6)
    return total


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
        chance = generator(seed, real.keys[label], "init")
        if settings.init == "noise":
            images[label] = torch.randn(counts[label], *real.shape, generator=chance)
        else:
            rows = torch.randperm(real.count(label), generator=chance)[: counts[label]]
            images[label] = real.normalised(label)[rows].double()
        velocity[label] = torch.zeros_like(images[label])
    for iteration in range(settings.iterations):
        network = slow_network(settings, len(images), seed, iteration)
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
                rows, one_draw = slow_draw(real, label, settings, seed, number)
                batch, synthetic = real.normalised(label)[rows].double(), images[label].clone().requires_grad_()
                theirs = slow_gradient(network, batch, output, one_draw, settings)
                ours = slow_gradient(network, synthetic, output, one_draw, settings, graph=True)
                (slopes[label],) = torch.autograd.grad(slow_distance(theirs, ours, settings), synthetic)
            for label, slope in slopes.items():
                velocity[label] = settings.momentum_img * velocity[label] + slope
                images[label] = images[label] - settings.lr_img * velocity[label]
            if step + 1 < settings.outer_loops:
                slow_inner_training(network, images, settings, seed, number)
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
    ],
    ids=["dc", "dsa", "crop+flip", "squared", "whole_cosine", "batch", "one-step"],
)
def test_a_condensation_equals_the_slow_loop(real, settings, together, double):
    counts = dict.fromkeys(real.classes, 3)
    expected = slow_condense(real, counts, settings, seed=3)
    some = engine(real, mixed(settings, together=together), counts)
    start = some.images()
    found = some.run().images
    assert_close(found, expected)
    assert all((found[label] - start[label]).abs().max() > 1e-4 for label in found), "the images must have moved"


def test_uneven_classes_and_counts_equal_the_slow_loop(pixels, double):
    real, counts = RealImages(*pixels(each=[5, 12, 9, 12]), NORMALIZATION), {0: 2, 1: 3, 2: 1, 3: 3}
    expected = slow_condense(real, counts, DSA, seed=3)
    for together in (False, True):
        some = engine(real, mixed(DSA, together=together), counts)
        assert [group.labels for group in some.groups] == [[0], [1, 3], [2]]
        assert_close(some.run().images, expected)


# ---------------------------------------------------------------- gradients of gradients


def image_gradients(network, goal, images, targets, together, distance):
    names = [name for name, p in network.named_parameters() if is_compared(p, distance)]
    images = images.clone().requires_grad_()
    own = class_gradients(network, names, images, targets, together, differentiable=True)
    theirs = class_gradients(network, names, goal, targets, together)
    assert not any(tensor.requires_grad for tensor in theirs)
    values = gradient_distance(theirs, own, distance)
    return values.detach(), torch.autograd.grad(values.sum(), images)[0], own


@pytest.fixture
def three_classes(double):
    chance = torch.Generator().manual_seed(1)
    return [torch.randn(3, n, 3, 8, 8, generator=chance) for n in (5, 2)], torch.tensor([2, 0, 1])


@pytest.mark.parametrize(
    "options",
    [{"norm": norm} for norm in ("instance", "batch", "group", "none")]
    + [{"pooling": "max"}, {"pooling": "none"}, {"activation": "swish"}, {"activation": "sigmoid"}]
    + [{"image_size": 9}, {"image_size": 9, "pooling": "max"}],
    ids=str,
)
def test_classes_together_equal_one_after_another(three_classes, options):
    (goal, images), targets = three_classes
    size = options.get("image_size", 8)  # an odd side takes another way through the pooling
    goal, images = (torch.nn.functional.pad(t, (0, size - 8, 0, size - 8), value=0.3) for t in (goal, images))
    network = ConvNet(3, 3, **{"image_size": 8, "width": 4, "depth": 2, **options})
    if options.get("norm") == "batch":
        network(goal.flatten(0, 1))
    network.eval()
    before = copy.deepcopy(network.state_dict())
    for distance in DISTANCES:
        alone, together = (image_gradients(network, goal, images, targets, t, distance) for t in (False, True))
        torch.testing.assert_close(together[0], alone[0], rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(together[1], alone[1], rtol=1e-8, atol=1e-10)
        for one, other in zip(together[2], alone[2]):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("distance", DISTANCES)
def test_the_image_gradient_is_the_slope_of_the_distance(three_classes, distance, together):
    (goal, images), targets = three_classes
    network = ConvNet(3, 3, 8, 4, 2, activation="swish")  # smooth, unlike ReLU: no corner to step over
    _, slope, _ = image_gradients(network, goal, images, targets, together, distance)
    for seed in range(3):
        direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
        ahead, behind = (
            image_gradients(network, goal, images + step * direction, targets, together, distance)[0].sum()
            for step in (1e-5, -1e-5)
        )
        assert float((slope * direction).sum()) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-5)


def test_layer_norm_is_matched_class_after_class(three_classes):
    (goal, images), targets = three_classes
    network = ConvNet(3, 3, 8, 4, 2, norm="layer", activation="swish")
    _, slope, _ = image_gradients(network, goal, images, targets, False, "row_cosine")
    ahead, behind = (
        image_gradients(network, goal, images + step * images, targets, False, "row_cosine")[0].sum()
        for step in (1e-5, -1e-5)
    )
    assert float((slope * images).sum()) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-5)
    with pytest.raises(ValueError, match="together must be false or null with norm='layer', got True"):
        ConfiguredMethod(METHODS["gradient_matching"], *mixed(DC, norm="layer", together=True))


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


@pytest.mark.parametrize("settings", [DC, mixed(DSA, together=True)], ids=["dc", "dsa-together"])
def test_repeated_runs_give_the_same_bytes_and_leave_the_global_chance_alone(real, settings, global_chance_untouched):
    with global_chance_untouched():
        first, second = condensed(real, settings), condensed(real, settings)
    assert_same_bytes(first, second)
    other = condensed(real, settings, seed=4)
    assert not any(torch.equal(other[label], first[label]) for label in first)


def test_classes_depend_on_one_another_so_none_is_cached(real, pixels):
    method = METHODS["gradient_matching"]
    assert not method.separable(DC) and not method.separable(DSA)
    images, labels = pixels(3, 12)
    two = RealImages(images[labels < 2], labels[labels < 2], NORMALIZATION)
    assert not torch.equal(condensed(two)[0], condensed(real)[0])


@pytest.mark.parametrize("changes", [{}, {"norm": "batch"}, {"together": True}, {"outer_loops": 1}], ids=str)
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_resumed_run_gives_the_bytes_and_the_record_of_an_unbroken_one(real, changes, stop, tmp_path):
    settings = mixed(DSA, **{"iterations": 6 if "outer_loops" in changes else 2, **changes})
    unbroken = engine(real, settings).run()
    broken = engine(real, settings)
    for _ in range(stop):
        broken.step()
    torch.save(broken.state_dict(), tmp_path / "state")
    broken.step()  # what comes after saving must not reach the state
    resumed = engine(real, settings)
    resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert (resumed.iteration, resumed.position) == divmod(stop, resumed.steps)
    result = resumed.run()
    assert_same_bytes(result.images, unbroken.images)
    assert result.record == unbroken.record


def test_a_state_is_a_snapshot(real):
    some = engine(real)
    some.step()
    state = some.state_dict()
    before = copy.deepcopy(state)
    some.run()
    assert (state["iteration"], state["position"], state["record"]) == (0, 1, before["record"])
    assert all(torch.equal(tensor, before["tensors"][name]) for name, tensor in state["tensors"].items())


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


def interrupt_at(step):
    def progress(done, total, unit):
        if done == step:
            raise KeyboardInterrupt

    return progress


def test_the_state_is_kept_every_few_minutes_and_removed_at_the_end(real, tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "SECONDS_BETWEEN_SAVES", -1.0)
    keep, there = tmp_path / "work.progress", []
    engine(real).run(lambda *_: there.append(keep.exists()), keep)
    assert there == [False, True, True, True, True, True]
    assert not keep.exists()


@pytest.mark.parametrize("spoil", [lambda content: content[:200], lambda content: b"no state"])
def test_a_spoiled_kept_state_is_told(real, tmp_path, spoil):
    keep = tmp_path / "work.progress"
    with pytest.raises(KeyboardInterrupt):
        engine(real).run(interrupt_at(3), keep)
    keep.write_bytes(spoil(keep.read_bytes()))
    with pytest.raises(ValueError, match="truncated or not a condensation in progress; delete it"):
        engine(real).run(keep=keep)


@pytest.mark.parametrize("spoil", ["missing", "misshapen"])
def test_a_state_that_does_not_fit_changes_nothing(real, spoil):
    some, other = engine(real), engine(real, seed=4)
    other.step()
    state = other.state_dict()
    if spoil == "missing":
        del state["tensors"]["2.velocity"]
    else:
        state["tensors"]["2.velocity"] = state["tensors"]["2.velocity"][:2]
    with pytest.raises(ValueError, match=r"the state does not fit: it has no 2\.velocity of \(4, 3, 8, 8\)"):
        some.load_state_dict(state)
    assert (some.iteration, some.position) == (0, 0)
    assert_same_bytes(some.run().images, engine(real).run().images)


# ---------------------------------------------------------------- counts, start, record, progress


def test_uneven_classes_get_exactly_what_is_asked(pixels):
    real, counts = RealImages(*pixels(each=[4, 20, 9, 20]), NORMALIZATION), {0: 4, 1: 3, 2: 1, 3: 3}
    for together in (False, True):
        found = condensed(real, mixed(DSA, together=together, real_batch=8), counts)
        assert {c: tuple(images.shape) for c, images in found.items()} == {c: (n, 3, 8, 8) for c, n in counts.items()}
        assert all(torch.isfinite(images).all() and images.dtype == torch.float32 for images in found.values())


def test_images_start_as_noise_or_as_real_images(pixels):
    real = RealImages(*pixels(2, 40), NORMALIZATION)
    noise, taken = (engine(real, settings, count=40).images() for settings in (DC, DSA))
    for label in real.classes:
        assert abs(float(noise[label].mean())) < 4 / math.sqrt(noise[label].numel())
        assert float(noise[label].std()) == pytest.approx(1, abs=0.05)
        own = real.normalised(label)
        assert sorted([torch.equal(image, o) for o in own].index(True) for image in taken[label]) == list(range(40))


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


def test_a_long_record_is_thinned(pixels, monkeypatch):
    monkeypatch.setattr(base, "RECORD_ROWS", 4)
    real = RealImages(*pixels(2, 3), NORMALIZATION)
    settings = replace(DC, iterations=13, outer_loops=1, width=2, depth=1, real_batch=2)
    iterations = [row["iteration"] for row in engine(real, settings, count=1).run().record]
    assert iterations == [1, 3, 6, 9, 12, 13]


def test_progress_is_told_after_every_matching_step(real):
    told = []
    result = engine(real).run(lambda *report: told.append(report))
    assert told == [(i, 6, "matching steps") for i in range(1, 7)]
    assert result.chosen == {"classes_at_once": 1, "outer_loops": 3, "inner_epochs": 2}


# ---------------------------------------------------------------- how many classes at once


def test_a_cpu_takes_a_class_at_a_time_unless_told_otherwise(real):
    assert [engine(real, mixed(DSA, together=t)).classes_at_once for t in (None, False, True)] == [1, 1, 3]


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
    assert_close(some.run().images, plain)
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


@pytest.mark.parametrize(
    ("images_per_class", "given", "expected"),
    [(count, {}, loops) for count, loops in PUBLISHED_LOOPS.items()]
    + [
        (100, {}, (50, 10)),
        (250, {}, (50, 10)),
        (10, {"outer_loops": 3}, (3, 50)),
        (10, {"inner_epochs": 3}, (10, 3)),
        (7, {"outer_loops": 4, "inner_epochs": 2}, (4, 2)),
    ],
)
def test_the_loops_are_the_published_ones_unless_given(images_per_class, given, expected):
    assert GradientSettings(**given).loops(images_per_class) == expected


def test_the_published_loops_are_those_of_the_authors():
    assert PUBLISHED_LOOPS == {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"outer_loops": 0}, "outer_loops must be at least 1, got 0"),
        ({"inner_epochs": 0}, "inner_epochs must be at least 1, got 0"),
        ({"real_batch": 0}, "real_batch must be at least 1, got 0"),
        ({"batch_net": 0}, "batch_net must be at least 1, got 0"),
        ({"statistics_batch": 0}, "statistics_batch must be at least 1, got 0"),
        ({"lr_img": 0.0}, "lr_img must be positive, got 0.0"),
        ({"lr_net": -1.0}, "lr_net must be positive, got -1.0"),
        ({"momentum_img": 1.0}, r"momentum_img must be within \[0, 1\), got 1.0"),
        ({"init": "zeros"}, "init must be one of real, noise, got 'zeros'"),
        ({"distance": "l2"}, "distance must be one of row_cosine, whole_cosine, squared, got 'l2'"),
        ({"siamese_augment": "blur"}, "siamese_augment must join operators.*'blur'"),
        ({"inner_augment": "blur"}, "inner_augment must join operators.*'blur'"),
        ({"norm": "instanse"}, "norm"),
    ],
)
def test_a_setting_out_of_range_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(DSA, **changes)


def test_the_recipes_are_dc_s_and_dsa_s_and_differ_in_start_and_augmentation_alone():
    dc, dsa = (load_recipe(name) for name in ("dc", "dsa"))
    assert (dc.label, dsa.label) == ("DC", "DSA")
    assert dc.settings() == GradientSettings()
    paper = asdict(dsa.settings())
    expected = {
        "iterations": 1000,
        "outer_loops": None,
        "inner_epochs": None,
        "lr_img": 0.1,
        "momentum_img": 0.5,
        "lr_net": 0.01,
        "batch_net": 256,
        "real_batch": 256,
        "init": "real",
        "siamese_augment": STRATEGY,
        "inner_augment": STRATEGY,
        "distance": "row_cosine",
        "statistics_batch": 16,
        "width": 128,
        "norm": "instance",
    }
    assert {key: paper[key] for key in expected} == expected
    plain = asdict(dc.settings())
    assert {key for key in paper if paper[key] != plain[key]} == {"init", "siamese_augment", "inner_augment"}
    for preset in ("cpu", "smoke"):  # any number of images a class
        for recipe in (dc, dsa):
            recipe.settings(preset).loops(7)
    digits = dsa.settings("cpu", dataset="digits")
    assert "flip" not in digits.siamese_augment + digits.inner_augment and digits.init == "real"


def test_what_names_a_condensation_holds_every_setting(real):
    parts = json.loads(engine(real).identity())
    assert parts[1] == asdict(DSA) and parts[0] == [[real.keys[label], 4] for label in real.classes]
    assert parts[2:] == [asdict(Execution()), 3, "cpu"]


# ---------------------------------------------------------------- does it work?


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dc", "dsa"])
def test_a_network_learns_more_from_condensed_digits_than_from_random_ones(name):
    """Same number of images, same training, last epoch, three seeds."""
    data = load_digits()
    real, counts = RealImages(data.train.images, data.train.labels, data.normalization), dict.fromkeys(range(10), 1)
    short = {"width": 16, "iterations": 40, "outer_loops": 1, "real_batch": 32, "lr_img": 1.0}
    settings = load_recipe(name).settings("smoke", short, "digits")
    learner = TrainingSettings(width=16, updates=100, lr=0.05, augment="color_crop_cutout_scale_rotate")

    def learned_from(images, seed):
        pictures = torch.cat([real.normalise(images[label]) for label in real.classes])
        network = learner.build(10, 1, 32)
        reinitialize(network, key_seed(seed, "learner"))
        train(network, pictures, torch.arange(10), learner, (seed, "training"))
        return accuracy(network, data.test, data.normalization, CPU)

    scores = {}
    for method, chosen in (("random", METHODS["random"].settings()), ("gradient_matching", settings)):
        sets = [METHODS[method].condense(real, counts, chosen, seed=seed, device=CPU).images for seed in range(3)]
        scores[method] = [learned_from(images, seed) for seed, images in enumerate(sets)]
    gains = [ours - theirs for ours, theirs in zip(scores["gradient_matching"], scores["random"])]
    assert min(gains) > 0 and sum(gains) / 3 > 5, scores
