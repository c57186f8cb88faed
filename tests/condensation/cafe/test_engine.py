"""CAFE against a slow double-precision loop; the windows that steer its loops, resuming, the recipe."""

from dataclasses import replace

import pytest
import slow
import slow_losses
import torch
from engines import NORMALIZATION, assert_same_bytes, maker
from mixed import mixed
from tiny import SMALL_CAFE as SMALL

from clreplay.condensation import RealImages
from clreplay.condensation.cafe import engine as cafe
from clreplay.condensation.cafe.engine import CafeEngine
from clreplay.networks import ConvNet
from clreplay.runtime.seeding import BLOCK, generator
from clreplay.training.batches import BatchSource

engine = maker(CafeEngine, SMALL, count=4)


def condensed(real, settings=SMALL, count=4, seed=3):
    return engine(real, settings, count, seed).run().images


# ---------------------------------------------------------------- what steers the loops


PLAIN = replace(SMALL, carry_accuracies=False)


class Scripted:
    """In place of the measurement: the accuracy that a list says, over and over."""

    def __init__(self, *values):
        self.values, self.asked = values, []

    def __call__(self, network, number, turn):
        self.asked.append((*number, turn))
        return self.values[(len(self.asked) - 1) % len(self.values)]


def loops(real, settings, *values):
    """Image steps and epochs of the first network when these are measured."""
    some = engine(real, settings)
    some.accuracy = Scripted(*values)
    while some.iteration == 0:
        some.step()
    row = some.record[0]
    return row["image_steps"], row["epochs"], some.accuracy.asked


def test_an_accuracy_that_rests_seems_to_move_at_the_start_of_a_series(pixels):
    """With two classes 0.5 counts as 0.5, 0.75, 0.875, ...: a window of three is 0.375 apart, then 0.1875."""
    two, limits = RealImages(*pixels(2, 12), NORMALIZATION), {"settled_within": 0.2, "moved_beyond": 0.3}
    settings = replace(SMALL, **limits, max_image_steps=9, max_epochs=9)
    assert loops(two, settings, 0.5)[:2] == (4, 3 * 3)
    assert loops(two, replace(settings, carry_accuracies=False), 0.5)[:2] == (3, 2 * 9)
    one = RealImages(*pixels(1, 12), NORMALIZATION)
    assert loops(one, settings, 0.5)[:2] == (3, 2 * 9)  # or no network of one class would ever come to rest


def test_a_network_whose_accuracy_rests_is_done_with_after_one_window_and_trains_to_the_bound(real):
    settings = replace(PLAIN, max_image_steps=9)
    image_steps, epochs, asked = loops(real, settings, 0.5)
    assert (image_steps, epochs) == (3, 2 * 6)  # none after the last image step
    assert asked == [(0, step, turn) for step in range(2) for turn in range(7)] + [(0, 2, 0)]


def test_a_network_whose_accuracy_moves_trains_for_one_window_a_step(real):
    image_steps, epochs, _ = loops(real, replace(PLAIN, max_image_steps=7, max_epochs=9), 0.1, 0.9, 0.4, 0.6, 0.2)
    assert (image_steps, epochs) == (7, 6 * 3)


@pytest.mark.parametrize(("changes", "expected"), [({}, (3, 4)), ({"settled_within": 0.0}, (4, 6))])
def test_the_two_limits_are_read_apart(real, changes, expected):
    """Values 0, 0.1, 0.2, ...: a step and two epochs in turn. A window of two moves by 0.1 an epoch, 0.3 a step."""
    settings = replace(PLAIN, window=2, settled_within=0.35, moved_beyond=0.05, max_image_steps=4)
    values = [0.1 * i for i in range(40)]
    image_steps, epochs, _ = loops(real, replace(settings, **changes), *values)
    assert (image_steps, epochs) == ((2, 2) if not changes else expected)


# ---------------------------------------------------------------- the slow loop, in double precision


def slow_accuracy(network, real, order, settings, seed, number, turn):
    right = total = 0
    for output, label in enumerate(order):
        size = real.count(label)
        rows = torch.randperm(size, generator=generator(seed, real.keys[label], "accuracy", *number))
        count = min(settings.accuracy_images, size)
        for position in range(turn * count, (turn + 1) * count):
            image = real.normalised(label)[rows[position % size]].double()
            right, total = right + (int(network(image[None]).argmax()) == output), total + 1
    return right / total


def as_the_authors_count(accuracies, classes):
    """Every mean over classes is of a sum that goes on from the last mean."""
    counted = [0.0]
    for accuracy in accuracies:
        counted.append((counted[-1] + classes * accuracy) / classes)
    return counted[1:]


def slow_image_loss(network, real, images, order, settings, draws):
    """Alignment of every class plus discrimination over all real images."""
    theirs, ours = {}, {}
    for label, (rows, one_draw) in draws.items():
        batch = real.normalised(label)[rows].double()
        theirs[label] = network.features(slow.augmented(batch, one_draw, settings))
        ours[label] = network.features(slow.augmented(slow.shown(images[label], settings), one_draw, settings))
    centres = [ours[label][0].mean(0) for label in order]
    loss = sum(slow_losses.layer_alignment(theirs[label], ours[label]) for label in order)
    for output, label in enumerate(order):
        embeddings = theirs[label][0].detach()
        told_apart = slow_losses.discrimination(embeddings, [output] * len(embeddings), centres)
        loss = loss + settings.discrimination_weight * told_apart
    return loss


def slow_epoch(network, images, labels, settings, key):
    """One epoch of plain gradient descent on the synthetic images."""
    source = BatchSource(images, labels, settings.batch_net, settings.siamese_augment, key)
    for batch, targets in source.epoch(0):
        loss = torch.nn.functional.cross_entropy(network(batch), targets)
        weights = list(network.parameters())
        with torch.no_grad():
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights)):
                weight -= settings.lr_net * gradient


def slow_cafe(real, counts, settings, seed):
    """The whole method: images, and (image steps, epochs) of every network."""
    alike = {label: (min(settings.real_batch, real.count(label)), counts[label]) for label in real.classes}
    order = [label for kind in dict.fromkeys(alike.values()) for label in real.classes if alike[label] == kind]
    images, velocity, log = {}, {}, []
    for label in real.classes:
        images[label] = slow.first_images(real, label, counts[label], settings, seed).double()
        velocity[label] = torch.zeros_like(images[label])
    for iteration in range(settings.iterations):
        network = ConvNet(len(order), 3, 8, settings.width, settings.depth)
        network = slow.drawn_network(network, seed, iteration).double()
        lr = settings.lr_img / 2 ** sum(iteration >= round(part * settings.iterations) for part in (0.6, 0.8, 0.9))
        outer, epochs = [], 0
        for step in range(settings.max_image_steps):
            draws = {label: slow.drawn_batch(real, label, settings, seed, iteration, step) for label in order}
            leaves = {label: image.clone().requires_grad_() for label, image in images.items()}
            loss = slow_image_loss(network, real, leaves, order, settings, draws)
            for label, gradient in zip(leaves, torch.autograd.grad(loss, list(leaves.values()))):
                velocity[label] = settings.momentum_img * velocity[label] + gradient
                images[label] = images[label] - lr * velocity[label]
            outer.append(slow_accuracy(network, real, order, settings, seed, (iteration, step), 0))
            recent = as_the_authors_count(outer, len(order))[-settings.window :]
            if len(recent) == settings.window and max(recent) - min(recent) < settings.settled_within:
                break
            if step + 1 == settings.max_image_steps:
                break
            inner, batch = [], torch.cat([slow.shown(images[label], settings) for label in order])
            each = settings.tiles**2
            labels = torch.cat([torch.full((counts[label] * each,), output) for output, label in enumerate(order)])
            for epoch in range(1, settings.max_epochs + 1):
                slow_epoch(network, batch, labels, settings, (seed, "inner", iteration, step, epoch))
                epochs += 1
                inner.append(slow_accuracy(network, real, order, settings, seed, (iteration, step), epoch))
                recent = as_the_authors_count(inner, len(order))[-settings.window :]
                if len(recent) == settings.window and max(recent) - min(recent) > settings.moved_beyond:
                    break
        log.append((len(outer), epochs))
    return images, log


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"siamese_augment": None},
        {"discrimination_weight": 0.5},
        {"classes_at_once": 2},
        {"classes_at_once": 9},
        {"tiles": 2},
    ],
    ids=str,
)
def test_the_whole_method_equals_a_slow_loop(real, changes):
    changed = mixed(SMALL, **changes)
    expected, log = slow_cafe(real, dict.fromkeys(real.classes, 4), changed[0], seed=3)
    some = engine(real, changed)
    start = some.images()
    found = some.run()
    assert [(row["image_steps"], row["epochs"]) for row in found.record] == log
    assert len({steps for steps, _ in log}) > 1 or len({epochs for _, epochs in log}) > 1, "loops must be dynamic here"
    for label in real.classes:
        torch.testing.assert_close(found.images[label].double(), expected[label], rtol=1e-4, atol=1e-4)
        assert (found.images[label] - start[label]).abs().max() > 0.1, "the images must have moved"


def test_uneven_classes_equal_the_slow_loop_and_get_exactly_what_is_asked(pixels):
    real = RealImages(*pixels(each=[5, 12, 9, 12]), NORMALIZATION)
    counts, settings = {0: 3, 1: 4, 2: 1, 3: 4}, replace(SMALL, iterations=2)
    expected, _ = slow_cafe(real, counts, settings, seed=3)
    found = condensed(real, settings, counts)
    assert {label: len(images) for label, images in found.items()} == counts
    for label in counts:
        torch.testing.assert_close(found[label].double(), expected[label], rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- bytes, neighbours, the record


def test_one_class_alone_and_batch_norm_work(real, pixels):
    images, labels = pixels(1, 12)
    alone = condensed(RealImages(images, labels, NORMALIZATION), count=2)
    assert alone[0].shape == (2, 3, 8, 8) and torch.isfinite(alone[0]).all()
    some = engine(real, replace(SMALL, norm="batch"))
    assert [some._parts(group) for group in some.groups] == [[slice(0, 3)]]
    assert all(torch.isfinite(images).all() for images in some.run().images.values())


def test_more_image_steps_than_a_block_of_draws_go_on_with_other_draws(real):
    some = engine(real, replace(SMALL, max_image_steps=BLOCK + 2))
    numbers = []
    for some.iteration in range(2):
        for some.position in range(BLOCK + 2):
            numbers.append(some._draw_number())
    assert len(set(numbers)) == 2 * (BLOCK + 2)
    assert all(0 <= within < BLOCK for _, within in numbers)


def test_the_record_tells_terms_loops_accuracy_and_range(real):
    some = engine(real)
    values = some.step()
    assert set(values) == {"alignment", "discrimination"}
    record = some.run().record
    assert [row["iteration"] for row in record] == [1, 2, 3]
    images = torch.cat(list(some.images().values()))
    last = record[-1]
    assert last["image_max"] == pytest.approx(float(images.max())) and last["image_std"] > 0
    assert 1 <= last["image_steps"] <= 5 and 0 <= last["epochs"] <= 4 * 6 and 0 <= last["accuracy"] <= 1
    assert {"alignment", "discrimination", "image_min"} <= set(last)


def test_alignment_falls_over_the_networks(real):
    settings = replace(SMALL, iterations=12, siamese_augment=None, real_batch=12)
    record = engine(real, settings).run().record
    assert record[-1]["alignment"] < 0.5 * record[0]["alignment"]


# ---------------------------------------------------------------- going on


class Interrupting:
    """``train_further`` until Ctrl-C comes, in the middle of an image step's training."""

    def __init__(self, calls):
        self.left, self.train = calls, cafe.train_further

    def __call__(self, *arguments, **options):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return self.train(*arguments, **options)


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("calls", [1, 5, 14])
def test_an_interrupted_run_is_kept_in_a_file_and_goes_on_to_the_same_bytes(real, tmp_path, monkeypatch, calls, norm):
    settings = replace(SMALL, norm=norm)
    unbroken = engine(real, settings).run()
    keep = tmp_path / "deep" / "work.progress"
    with monkeypatch.context() as patch:
        patch.setattr(cafe, "train_further", Interrupting(calls))
        with pytest.raises(KeyboardInterrupt):
            engine(real, settings).run(keep=keep)
    assert [path.name for path in keep.parent.iterdir()] == ["work.progress"]
    resumed = engine(real, settings).run(keep=keep)
    assert_same_bytes(resumed.images, unbroken.images)
    assert resumed.record == unbroken.record
    assert not keep.exists()


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_state_holds_the_network_with_its_statistics_and_accuracies(real, norm):
    settings = replace(SMALL, norm=norm)
    some, other = engine(real, settings), engine(real, settings)
    some.step()
    assert some.position == 1 and len(some.window.values) == 1, "within a network"
    state = some.state_dict()
    other.load_state_dict(state)
    for ours, theirs in zip(other.network.state_dict().items(), some.network.state_dict().items()):
        assert ours[0] == theirs[0] and torch.equal(ours[1], theirs[1]), ours[0]
    assert list(other.window.values) == list(some.window.values) and other.epochs == some.epochs > 0
