"""CAFE against a slow double-precision loop; the windows that steer its loops, resuming, the recipe."""

import copy
import math
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mixed import apart, mixed

from clreplay.condensation import METHODS, RealImages
from clreplay.condensation.cafe import engine as cafe
from clreplay.condensation.cafe.accuracy_control import AccuracyWindow, RealAccuracy
from clreplay.condensation.cafe.engine import CafeEngine
from clreplay.condensation.cafe.settings import CafeSettings
from clreplay.condensation.engine import progress_file as keeping
from clreplay.data import NORMALIZATIONS, load_dataset
from clreplay.losses import LayerAlignment, discrimination, layer_alignment
from clreplay.networks import ConvNet, reinitialize
from clreplay.networks.features import Features
from clreplay.recipes.recipe import load_recipe
from clreplay.runtime.seeding import BLOCK, generator, key_seed
from clreplay.training.augmentation import augment_shared, draw, parse_strategy
from clreplay.training.batches import BatchSource
from clreplay.training.evaluate import accuracy
from clreplay.training.loop import train
from clreplay.training.settings import TrainingSettings

NORMALIZATION = NORMALIZATIONS["cifar10"]
CPU = torch.device("cpu")
SMALL = CafeSettings(
    width=4, depth=2, iterations=3, real_batch=7, accuracy_images=5, window=3, settled_within=0.15,
    moved_beyond=0.05, max_image_steps=5, max_epochs=6, lr_net=0.05, batch_net=5, siamese_augment="color_crop_flip",
)  # fmt: skip


def engine(real, settings=SMALL, count=4, seed=3):
    counts = count if isinstance(count, dict) else {label: count for label in real.classes}
    settings, execution = apart(settings)
    return CafeEngine(real, counts, settings, seed, CPU, execution)


def condensed(real, settings=SMALL, count=4, seed=3):
    return engine(real, settings, count, seed).run().images


def assert_same_bytes(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[label], other[label]) for label in one)


@pytest.fixture
def real(pixels):
    return RealImages(*pixels(3, 12), NORMALIZATION)


# ---------------------------------------------------------------- the terms, written from the formulas


def some_features(classes, n, seed=0):
    chance = torch.Generator().manual_seed(seed)
    taps = [torch.randn(classes, n, c, s, s, generator=chance).double() for c, s in ((3, 4), (2, 3), (2, 2))]
    return Features(torch.randn(classes, n, 5, generator=chance).double(), taps)


def slow_gap(real, synthetic):
    """Squared gap of the class means, entry by entry: (n, ...) x (m, ...) -> a number."""
    theirs, ours = (sum(images) / len(images) for images in (real, synthetic))
    return sum((a - b) ** 2 for a, b in zip(theirs.flatten(), ours.flatten()))


def slow_alignment(real, synthetic, c):
    """1.0 A(pool) + 1.0 A(last map) + 0.1 A(each map before) + A(the pooled map once more, as a vector)."""
    first, second, last = (slow_gap(a[c], b[c]) for a, b in zip(real.taps, synthetic.taps))
    pooled = slow_gap(real.embedding[c], synthetic.embedding[c])
    return 1.0 * pooled + 1.0 * last + 0.1 * second + 0.1 * first + pooled


def test_alignment_equals_the_reference_in_value_and_gradient():
    real, term = some_features(3, 5), LayerAlignment()

    def fast(some):
        return term.loss(term.statistics(real), term.statistics(some), some)

    def slow(some):
        return torch.stack([slow_alignment(real, some, c) for c in range(3)])

    found = []
    for loss_of in (fast, slow):
        some = some_features(3, 4, seed=1)
        leaves = [tensor.requires_grad_() for tensor in (some.embedding, *some.taps)]
        loss = loss_of(some)
        found.append((loss.detach(), torch.autograd.grad((loss * torch.tensor([1.0, 2.0, 3.0])).sum(), leaves)))
    (values, gradients), (expected, slow_gradients) = found
    torch.testing.assert_close(values, expected)
    for one, other in zip(gradients, slow_gradients):
        torch.testing.assert_close(one, other)


def test_a_network_without_maps_is_aligned_by_its_embedding():
    real, synthetic = (some_features(2, n)._replace(taps=[]) for n in (3, 4))
    term = LayerAlignment(embedding=3.0)
    loss = term.loss(term.statistics(real), term.statistics(synthetic))
    expected = layer_alignment(real.embedding.mean(1), synthetic.embedding.mean(1))
    torch.testing.assert_close(loss, 3 * expected)


def test_discrimination_equals_the_reference_in_value_and_gradient():
    chance = torch.Generator().manual_seed(0)
    real, centres = (torch.randn(n, 6, generator=chance).double() for n in (8, 3))
    labels = torch.tensor([0, 2, 1, 1, 0, 2, 2, 0])
    found = []
    for slow in (False, True):
        leaf = centres.clone().requires_grad_()
        if slow:
            total = 0.0
            for image, label in zip(real, labels.tolist()):
                likeness = [sum(image[d] * leaf[c, d] for d in range(6)) for c in range(3)]
                total = total - likeness[label] + torch.log(sum(torch.exp(one) for one in likeness))
        else:
            total = discrimination(real, labels, leaf)
        found.append((total.detach(), torch.autograd.grad(total, leaf)[0]))
    for one, other in zip(*found):
        torch.testing.assert_close(one, other)


@given(st.integers(0, 2**20), st.integers(1, 4), st.integers(1, 4))
def test_order_of_images_does_not_matter_and_equal_sets_align(seed, classes, n):
    features = some_features(classes, n, seed)
    turned = Features(features.embedding.flip(1), [tap.flip(1) for tap in features.taps])
    term = LayerAlignment()
    loss = term.loss(term.statistics(features), term.statistics(turned))
    torch.testing.assert_close(loss, torch.zeros(classes, dtype=torch.float64))
    embeddings, labels = features.embedding.flatten(0, 1), torch.arange(classes).repeat_interleave(n)
    centres = turned.embedding.mean(1)
    once = discrimination(embeddings, labels, centres)
    order = torch.randperm(classes * n, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(discrimination(embeddings[order], labels[order], centres), once)
    # Which class is called which does not matter, and a single class has nothing to be told apart from.
    torch.testing.assert_close(discrimination(embeddings, classes - 1 - labels, centres.flip(0)), once)
    assert classes > 1 or float(once) == 0


# ---------------------------------------------------------------- what steers the loops


@given(st.integers(1, 5), st.lists(st.integers(0, 20), max_size=12), st.integers(0, 20))
def test_a_window_looks_at_the_last_accuracies_and_says_nothing_before_it_is_full(length, steps, limit):
    window = AccuracyWindow(length)
    for count, accuracy_now in enumerate(steps, start=1):
        window.add(accuracy_now)
        last = steps[max(0, count - length) : count]
        far = max(last) - min(last)
        assert window.is_stable(limit) == (count >= length and far <= limit)
        assert window.has_changed(limit) == (count >= length and far > limit)
        assert list(AccuracyWindow(length, window.values).values) == last
    if not steps:
        assert not window.is_stable(1.0) and not window.has_changed(0.0)


class Answers(torch.nn.Module):
    """Remembers what it is shown and answers everything with one class."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.seen, self.modes = answer, [], []

    def forward(self, images):
        self.seen.append(images)
        self.modes.append(self.training)
        return torch.nn.functional.one_hot(torch.full((len(images),), self.answer), 3).float()


def rows_seen(network, real):
    """Of the last measurement: positions of the images within their class, by class."""
    found = {label: [] for label in real.classes}
    for image in network.seen[-1]:
        for label in real.classes:
            same = (real.normalised(label) == image).flatten(1).all(1).nonzero()
            found[label] += same.flatten().tolist()
    return found


def test_accuracy_is_measured_on_equally_many_images_of_every_class_drawn_anew(real):
    some = engine(real)
    network = Answers(1)
    assert [some.accuracy(network, (0, 0), turn) for turn in range(3)] == [pytest.approx(1 / 3)] * 3
    assert network.modes == [False] * 3
    seen, turns = [], []
    for number, turn in (((0, 0), 0), ((0, 0), 1), ((0, 1), 0), ((1, 0), 0), ((0, 0), 0)):
        some.accuracy(network, number, turn)
        rows = rows_seen(network, real)
        assert all(len(found) == len(set(found)) == 5 for found in rows.values())
        seen.append(rows)
        turns.append(rows[0])
    assert seen[4] == seen[0] and seen[0][0] != seen[0][1]
    assert len({tuple(row) for row in turns}) == 4
    assert not set(turns[0]) & set(turns[1])  # every image comes once before any comes again


def test_a_class_smaller_than_the_measurement_is_used_whole_and_right_answers_count(pixels):
    real = RealImages(*pixels(each=[3, 12, 9]), NORMALIZATION)
    some = engine(real, count=2)
    outputs = {label: i for i, label in enumerate(label for group in some.groups for label in group.labels)}
    for label, size in ((0, 3), (1, 5), (2, 5)):
        network = Answers(outputs[label])
        assert some.accuracy(network, (0, 0), 0) == pytest.approx(size / 13)
        assert {one: len(found) for one, found in rows_seen(network, real).items()} == {0: 3, 1: 5, 2: 5}


def test_a_class_s_measurement_does_not_depend_on_the_classes_beside_it(pixels):
    images, labels = pixels(3, 12)
    network, rows = Answers(0), []
    for chosen in (labels < 3, labels == 1):
        real = RealImages(images[chosen], labels[chosen], NORMALIZATION)
        some = engine(real)
        measure = RealAccuracy(some.groups, some.outputs, real.normalise, 5, 3)
        measure(network, (2, 4), 1)
        rows.append(rows_seen(network, real)[1])
    assert rows[0] == rows[1]


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


def test_a_network_whose_accuracy_rests_is_done_with_after_one_window_and_trains_to_the_bound(real):
    settings = replace(SMALL, max_image_steps=9)
    image_steps, epochs, asked = loops(real, settings, 0.5)
    assert (image_steps, epochs) == (3, 2 * 6)  # none after the last image step
    assert asked == [(0, step, turn) for step in range(2) for turn in range(7)] + [(0, 2, 0)]


def test_a_network_whose_accuracy_moves_trains_for_one_window_a_step(real):
    image_steps, epochs, _ = loops(real, replace(SMALL, max_image_steps=7, max_epochs=9), 0.1, 0.9, 0.4, 0.6, 0.2)
    assert (image_steps, epochs) == (7, 6 * 3)


@pytest.mark.parametrize(("changes", "expected"), [({}, (3, 4)), ({"settled_within": 0.0}, (4, 6))])
def test_the_two_limits_are_read_apart(real, changes, expected):
    """Values 0, 0.1, 0.2, ...: a step and two epochs in turn. A window of two moves by 0.1 an epoch, 0.3 a step."""
    settings = replace(SMALL, window=2, settled_within=0.35, moved_beyond=0.05, max_image_steps=4)
    values = [0.1 * i for i in range(40)]
    image_steps, epochs, _ = loops(real, replace(settings, **changes), *values)
    assert (image_steps, epochs) == ((2, 2) if not changes else expected)


def test_the_learning_rate_of_the_images_halves_where_the_authors_halve_it_and_in_proportion():
    paper = CafeSettings()
    rates = {1199: 0.1, 1200: 0.05, 1599: 0.05, 1600: 0.025, 1799: 0.025, 1800: 0.0125, 1999: 0.0125}
    assert {iteration: paper.lr_at(iteration) for iteration in rates} == rates
    short = replace(paper, iterations=10)
    assert [short.lr_at(i) for i in (5, 6, 7, 8, 9)] == [0.1, 0.05, 0.05, 0.025, 0.0125]
    assert {replace(paper, halve_at=()).lr_at(i) for i in range(2000)} == {0.1}


# ---------------------------------------------------------------- the slow loop, in double precision


def slow_network(settings, seed, iteration, classes):
    network = ConvNet(classes, 3, 8, settings.width, settings.depth)
    count = sum(parameter.numel() for parameter in network.parameters())
    numbers = torch.empty(count).uniform_(-1, 1, generator=generator(seed, "network", iteration)).double()
    network = network.double()
    with torch.no_grad():
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                values, numbers = numbers[: parameter.numel()], numbers[parameter.numel() :]
                if isinstance(module, torch.nn.GroupNorm):
                    parameter.fill_(1.0 if name == "weight" else 0.0)
                else:
                    parameter.copy_(values.view_as(parameter) / math.sqrt(module.weight[0].numel()))
    return network


def slow_draw(real, label, settings, seed, block, within):
    chance = generator(seed, real.keys[label], "match", block)
    draws = draw(BLOCK, parse_strategy(settings.siamese_augment), chance)
    size = real.count(label)
    if settings.real_batch >= size:
        return list(range(size)), draws[within]
    uniform = torch.rand(BLOCK, size, generator=chance)[within]
    return sorted(range(size), key=lambda row: -uniform[row])[: settings.real_batch], draws[within]


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


def slow_image_loss(network, real, images, order, settings, draws):
    """Alignment of every class plus discrimination over all real images."""
    strategy = parse_strategy(settings.siamese_augment)
    theirs, ours = {}, {}
    for label, (rows, one_draw) in draws.items():
        theirs[label] = network.features(augment_shared(real.normalised(label)[rows].double(), one_draw, strategy))
        ours[label] = network.features(augment_shared(images[label], one_draw, strategy))
    loss, centres = 0.0, [ours[label][0].mean(0) for label in order]
    for output, label in enumerate(order):
        weights = [0.1] * (len(theirs[label][1]) - 1) + [1.0]
        for weight, theirs_map, ours_map in zip(weights, theirs[label][1], ours[label][1]):
            loss = loss + weight * (theirs_map.mean(0) - ours_map.mean(0)).square().sum()
        loss = loss + 2.0 * (theirs[label][0].mean(0) - ours[label][0].mean(0)).square().sum()
        for feature in theirs[label][0]:
            logits = torch.stack([feature.detach() @ centre for centre in centres])
            loss = loss + settings.discrimination_weight * (logits.logsumexp(0) - logits[output])
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
        chance = generator(seed, real.keys[label], "init")
        images[label] = torch.randn(counts[label], *real.shape, generator=chance).double()
        velocity[label] = torch.zeros_like(images[label])
    for iteration in range(settings.iterations):
        network = slow_network(settings, seed, iteration, len(order))
        lr = settings.lr_img / 2 ** sum(iteration >= round(part * settings.iterations) for part in (0.6, 0.8, 0.9))
        outer, epochs = [], 0
        for step in range(settings.max_image_steps):
            draws = {label: slow_draw(real, label, settings, seed, iteration, step) for label in order}
            leaves = {label: image.clone().requires_grad_() for label, image in images.items()}
            loss = slow_image_loss(network, real, leaves, order, settings, draws)
            for label, gradient in zip(leaves, torch.autograd.grad(loss, list(leaves.values()))):
                velocity[label] = settings.momentum_img * velocity[label] + gradient
                images[label] = images[label] - lr * velocity[label]
            outer.append(slow_accuracy(network, real, order, settings, seed, (iteration, step), 0))
            recent = outer[-settings.window :]
            if len(recent) == settings.window and max(recent) - min(recent) <= settings.settled_within:
                break
            if step + 1 == settings.max_image_steps:
                break
            inner, batch = [], torch.cat([images[label] for label in order])
            labels = torch.cat([torch.full((counts[label],), output) for output, label in enumerate(order)])
            for epoch in range(1, settings.max_epochs + 1):
                slow_epoch(network, batch, labels, settings, (seed, "inner", iteration, step, epoch))
                epochs += 1
                inner.append(slow_accuracy(network, real, order, settings, seed, (iteration, step), epoch))
                recent = inner[-settings.window :]
                if len(recent) == settings.window and max(recent) - min(recent) > settings.moved_beyond:
                    break
        log.append((len(outer), epochs))
    return images, log


@pytest.mark.parametrize(
    "changes",
    [{}, {"siamese_augment": None}, {"discrimination_weight": 0.5}, {"classes_at_once": 2}, {"classes_at_once": 9}],
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


def test_classes_depend_on_one_another_so_none_is_taken_from_the_cache(pixels):
    images, labels = pixels(3, 12)
    together = condensed(RealImages(images, labels, NORMALIZATION))
    two = labels < 2
    fewer = condensed(RealImages(images[two], labels[two], NORMALIZATION))
    assert not torch.equal(fewer[0], together[0])
    assert not METHODS["cafe"].separable(SMALL)


def test_images_start_as_noise_or_as_real_images(real):
    noise = engine(real, count=12).images()
    assert abs(float(noise[0].mean())) < 0.2 and float(noise[0].std()) == pytest.approx(1, abs=0.1)
    begun = engine(real, replace(SMALL, init="real")).images()
    for label, images in begun.items():
        assert all(any(torch.equal(image, one) for one in real.normalised(label)) for image in images)


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


def test_progress_is_told_after_every_network(real):
    told = []
    engine(real).run(lambda *report: told.append(report))
    assert told == [(i, 3, "networks") for i in (1, 2, 3)]


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


def test_the_state_is_kept_every_few_minutes(real, tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "SECONDS_BETWEEN_SAVES", -1.0)
    keep, there = tmp_path / "work.progress", []
    engine(real).run(lambda *_: there.append(keep.exists()), keep)
    assert there == [True] * 3  # the first network takes more than one step


def test_a_state_is_a_snapshot_and_that_of_another_condensation_is_not_used(real, tmp_path, caplog):
    some = engine(real)
    some.step()
    state = some.state_dict()
    before = copy.deepcopy(state)
    some.run()
    assert all(torch.equal(tensor, before["tensors"][name]) for name, tensor in state["tensors"].items())
    assert {key: state[key] for key in state if key != "tensors"} == {
        key: before[key] for key in state if key != "tensors"
    }
    keep, stop = tmp_path / "work.progress", KeyboardInterrupt()

    def press(done, total, unit):
        raise stop

    with pytest.raises(KeyboardInterrupt):
        engine(real, seed=9).run(press, keep)
    assert_same_bytes(engine(real).run(keep=keep).images, condensed(real))
    assert "another condensation" in caplog.text


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


def test_a_state_that_does_not_fit_changes_nothing(real):
    some, other = engine(real), engine(real, count=3)
    other.step()
    before = some.images()
    with pytest.raises(ValueError, match=r"the state does not fit: it has no 0.image of \(4, 3, 8, 8\)"):
        some.load_state_dict(other.state_dict())
    assert (some.iteration, some.position) == (0, 0)
    assert_same_bytes(some.images(), before)


# ---------------------------------------------------------------- bad input and the recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"max_image_steps": 0}, "max_image_steps must be at least 1, got 0"),
        ({"max_epochs": 0}, "max_epochs must be at least 1, got 0"),
        ({"accuracy_images": 0}, "accuracy_images must be at least 1, got 0"),
        ({"window": 1}, "window must be at least 2 accuracies, got 1"),
        ({"lr_img": 0.0}, "lr_img must be positive, got 0.0"),
        ({"lr_net": -1.0}, "lr_net must be positive, got -1.0"),
        ({"momentum_img": 1.0}, r"momentum_img must be within \[0, 1\), got 1.0"),
        ({"halve_at": (0.5, 1.0)}, r"halve_at must hold parts of the iterations within \(0, 1\), got 1.0"),
        ({"settled_within": -0.1}, "settled_within must not be negative, got -0.1"),
        ({"discrimination_weight": -1.0}, "discrimination_weight must not be negative, got -1.0"),
        ({"init": "zeros"}, "init must be one of real, noise, got 'zeros'"),
        ({"siamese_augment": "blur"}, "siamese_augment must join operators.*'blur'"),
        (
            dict.fromkeys(("earlier_weight", "last_weight", "embedding_weight", "discrimination_weight"), 0.0),
            "every term has weight zero",
        ),
    ],
)
def test_a_setting_out_of_range_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


def test_the_recipe_is_cafe_with_siamese_augmentation_and_can_be_had_without():
    recipe = load_recipe("cafe")
    paper = asdict(recipe.settings())
    expected = {
        "iterations": 2000, "lr_img": 0.1, "momentum_img": 0.5, "halve_at": (0.6, 0.8, 0.9), "real_batch": 256,
        "init": "noise", "siamese_augment": "color_crop_cutout_flip_scale_rotate", "earlier_weight": 0.1,
        "last_weight": 1.0, "embedding_weight": 2.0, "discrimination_weight": 0.01, "lr_net": 0.01,
        "accuracy_images": 128, "window": 10, "settled_within": 0.04, "moved_beyond": 0.03, "norm": "instance",
    }  # fmt: skip
    assert {key: paper[key] for key in expected} == expected
    plain = recipe.settings(overrides={"siamese_augment": "none"})
    assert replace(plain, siamese_augment=None) == CafeSettings()
    assert not parse_strategy(plain.siamese_augment).names
    assert "flip" not in recipe.settings(dataset="digits").siamese_augment


# ---------------------------------------------------------------- does it work?


@pytest.mark.slow
def test_a_network_learns_more_from_condensed_digits_than_from_random_ones():
    """Same number of images, same training, last epoch, three seeds; the condensed images begin as noise."""
    data = load_dataset("digits")
    real, counts = RealImages(data.train.images, data.train.labels, data.normalization), dict.fromkeys(range(10), 1)
    settings = CafeSettings(
        width=16, iterations=6, real_batch=32, accuracy_images=16, window=4, max_image_steps=12, max_epochs=4
    )
    learner = TrainingSettings(width=16, updates=100, lr=0.05, augment="color_crop_cutout_scale_rotate")

    def learned_from(images, seed):
        pictures = torch.cat([real.normalise(images[label]) for label in real.classes])
        network = learner.build(10, 1, 32)
        reinitialize(network, key_seed(seed, "learner"))
        train(network, pictures, torch.arange(10), learner, (seed, "training"))
        return accuracy(network, data.test, data.normalization, CPU)

    scores = {}
    for method, chosen in (("random", METHODS["random"].settings()), ("cafe", settings)):
        sets = [METHODS[method].condense(real, counts, chosen, seed=seed, device=CPU).images for seed in range(3)]
        scores[method] = [learned_from(images, seed) for seed, images in enumerate(sets)]
    gains = [ours - theirs for ours, theirs in zip(scores["cafe"], scores["random"])]
    assert min(gains) > 6 and sum(gains) / 3 > 10, scores
