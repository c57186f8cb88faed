"""IDM against a slow loop written from the paper: expansion, the term, whole iterations, interruptions."""

import functools
from dataclasses import replace

import pytest
import slow
import slow_losses
import torch
import torch.nn.functional as F
from engines import CPU, NORMALIZATION, assert_same_bytes, maker
from mixed import mixed

from clreplay.api import condense
from clreplay.condensation import METHODS, RealImages, condense_experience
from clreplay.condensation.configured import ConfiguredMethod
from clreplay.condensation.engine import calibration
from clreplay.condensation.engine.execution import Execution
from clreplay.condensation.engine.tiled_start import tiled_images
from clreplay.condensation.matching.engine import MatchingEngine
from clreplay.condensation.matching.idm import IDM, IDMSettings, choose_image_execution
from clreplay.condensation.matching.network_queue import NetworkQueue
from clreplay.data import load_dataset
from clreplay.memory.decoders import decoder, tiles2
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.networks import ConvNet
from clreplay.networks.kernels.build import failure
from clreplay.recipes.recipe import PRESETS, load_recipe
from clreplay.runtime.seeding import BLOCK, generator
from clreplay.training.augmentation import augment_shared, parse_strategy
from clreplay.training.evaluate import accuracy
from clreplay.training.loop import train
from clreplay.training.settings import TrainingSettings

IDM_TINY = IDMSettings(
    width=4, depth=2, iterations=6, real_batch=7, lr_img=0.5, queue_every=2, queue_steps=3, batch_net=8, lr_net=0.1
)
SM_TINY = replace(IDM_TINY, style_weight=500.0)
engine = maker(IDM, IDM_TINY, count=2)


def condensed(real, settings=IDM_TINY, count=2, seed=3):
    return engine(real, settings, count, seed).run().images


# ---------------------------------------------------------------- partition and expansion


@functools.cache
def enlarging(old, size):
    """Bilinear, half-pixel centres: every output pixel's shares in its four neighbours, clamped at the border."""
    shares = torch.zeros(size, size, old, old, dtype=torch.float64)
    for y in range(size):
        for x in range(size):
            sy, sx = (max(0.0, (v + 0.5) * old / size - 0.5) for v in (y, x))
            y0, x0 = int(sy), int(sx)
            for dy, wy in ((0, 1 - (sy - y0)), (1, sy - y0)):
                for dx, wx in ((0, 1 - (sx - x0)), (1, sx - x0)):
                    shares[y, x, min(y0 + dy, old - 1), min(x0 + dx, old - 1)] += wy * wx
    return shares


def slow_expand(images):
    """(n, c, h, h) to (4n, c, h, h): upper left, upper right, lower left, lower right of every image."""
    size = images.shape[2]
    cuts = (slice(0, size // 2), slice(size // 2, size))
    tiles = torch.stack([image[:, rows, columns] for image in images for rows in cuts for columns in cuts])
    return torch.einsum("yxab,ncab->ncyx", enlarging(size // 2, size), tiles)


def test_the_network_is_shown_every_quadrant_at_full_size_class_by_class(real):
    some = engine(real)
    stored = torch.randn(3, 2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    seen = some.seen(stored)
    assert seen.shape == (3, 8, 3, 8, 8)
    weights = torch.randn(seen.shape, dtype=torch.float64)
    (found,) = torch.autograd.grad((seen * weights).sum(), stored)
    slow = torch.stack([slow_expand(images) for images in stored])
    (expected,) = torch.autograd.grad((slow * weights).sum(), stored)
    torch.testing.assert_close(seen, slow)
    torch.testing.assert_close(found, expected)


def test_every_quadrant_starts_as_another_real_image_at_half_its_size(real):
    halves = {label: F.avg_pool2d(real.normalised(label), 2) for label in real.classes}
    for label, images in engine(real, count=3).images().items():
        quadrants = [image[:, y : y + 4, x : x + 4] for image in images for y in (0, 4) for x in (0, 4)]
        rows = [[torch.allclose(q, half, atol=1e-6) for half in halves[label]].index(True) for q in quadrants]
        assert sorted(rows) == list(range(12)) and rows != sorted(rows)
        assert torch.equal(engine(real, count=2).images()[label], images[:2])
        order = torch.randperm(12, generator=generator(3, real.keys[label], "init"))
        assert rows == order.tolist()


@pytest.mark.parametrize(("each", "count"), [(5, 5), (9, 4), (7, 6)])
def test_a_class_with_few_images_goes_round_again_with_means_of_two(pixels, each, count):
    real = RealImages(*pixels(2, each), NORMALIZATION)
    for label in real.classes:
        quadrants = tiles2(tiled_images(real, label, count, "real", 3))
        assert len({q.numpy().tobytes() for q in quadrants}) == min(4 * count, each * (1 + (each - 1) // 2))
        order = torch.randperm(each, generator=generator(3, real.keys[label], "init"))
        pictures = F.avg_pool2d(real.normalised(label)[order], 2)
        stored = tiled_images(real, label, count, "real", 3)
        for turn in range(4 * count):
            around, place = divmod(turn, each)
            y, x = (4 * (turn % 4 // 2), 4 * (turn % 2))
            expected = (pictures[place] + pictures[(place + around) % each]) / 2
            torch.testing.assert_close(stored[turn // 4][:, y : y + 4, x : x + 4], expected)


def test_a_class_of_a_single_image_works(pixels):
    real = RealImages(*pixels(each=[1, 6]), NORMALIZATION)
    images = condensed(real, count=1)
    assert images[0].shape == (1, 3, 8, 8) and torch.isfinite(images[0]).all()


@pytest.mark.parametrize("size", [7, 9])
def test_images_that_cannot_be_split_are_an_error_before_any_work(pixels, size, monkeypatch):
    monkeypatch.setattr(NetworkQueue, "__init__", lambda *_: pytest.fail("worked"))
    real = RealImages(*pixels(2, 5, size=size), NORMALIZATION)
    with pytest.raises(
        ValueError,
        match=f"tiles must divide the height and width of the images, {size} x {size}, got 2; cho",
    ):
        engine(real, count=1)


# ---------------------------------------------------------------- the slow loop


class SlowNetwork:
    """A network of the queue: its own module, velocity by parameter, and how many images it got right."""

    def __init__(self, network):
        self.network, self.right, self.seen = network, 0, 0
        self.velocity = {name: torch.zeros_like(p) for name, p in network.named_parameters()}

    def percent(self):
        return 100 * self.right / self.seen if self.seen else 0.0

    def train(self, images, labels, settings, key):
        self.network.train()
        order, epoch = [], 0
        for _ in range(settings.queue_steps):
            if not order:
                order, epoch = (
                    torch.randperm(len(images), generator=generator(*key, "epoch", epoch)).tolist(),
                    epoch + 1,
                )
            rows, order = order[: settings.batch_net], order[settings.batch_net :]
            logits = self.network(images[rows])
            loss = sum(torch.logsumexp(row, 0) - row[label] for row, label in zip(logits, labels[rows])) / len(rows)
            named = dict(self.network.named_parameters())
            gradients = torch.autograd.grad(loss, list(named.values()))
            self.right += sum(int(row.argmax()) == int(label) for row, label in zip(logits, labels[rows]))
            self.seen += len(rows)
            with torch.no_grad():
                for (name, weight), gradient in zip(named.items(), gradients):
                    step = gradient + settings.decay_net * weight
                    self.velocity[name] = settings.momentum_net * self.velocity[name] + step
                    weight.sub_(settings.lr_net * self.velocity[name])


def slow_condense(real, counts, settings, seed):
    """The loop of the paper in double precision: network after network, class after class."""

    def fresh(index):
        network = ConvNet(len(real.classes), *real.shape[:2], settings.width, settings.depth, settings.norm)
        return SlowNetwork(slow.drawn_network(network, seed, index).double())

    strategy = parse_strategy(settings.siamese_augment)
    everything = torch.cat([real.normalised(label) for label in real.classes]).double()
    targets = torch.cat([torch.full((real.count(label),), i) for i, label in enumerate(real.classes)])
    stored = {c: tiled_images(real, c, counts[c], "real", seed).double() for c in real.classes}
    velocity = {label: torch.zeros_like(images) for label, images in stored.items()}
    queue = [fresh(i) for i in range(settings.queue_start)]
    made, sampled = settings.queue_start, []
    for number in range(settings.iterations):
        if number and number % settings.queue_every == 0:
            queue.append(fresh(made))
            made += 1
            if len(queue) > settings.queue_size:
                queue.pop(0)
        if number and number % settings.accuracy_every == 0:
            for one in queue:
                one.right = one.seen = 0
        one = queue[int(torch.randint(len(queue), (), generator=generator(seed, "queue", number)))]
        sampled.append(one.percent())
        one.network.eval()
        for output, label in enumerate(real.classes):
            rows, draw = slow.drawn_batch(real, label, settings, seed, *divmod(number, BLOCK))
            leaf = stored[label].clone().requires_grad_()
            expanded = augment_shared(slow_expand(leaf), draw, strategy)
            batch = real.normalised(label)[rows].double()
            with torch.no_grad():
                theirs = one.network.features(augment_shared(batch, draw, strategy))
            ours = one.network.features(expanded)
            terms, weights = slow.matching_terms(theirs, ours, settings), slow.matching_weights(settings)
            loss = sum(weights[name] * term for name, term in terms.items())
            wrong = slow_losses.cross_entropy(one.network.classifier(ours[0]), output)
            loss = loss + settings.ce_weight * one.percent() * wrong
            (gradient,) = torch.autograd.grad(loss, leaf)
            velocity[label] = settings.momentum_img * velocity[label] + gradient
            stored[label] = stored[label] - settings.lr_img * velocity[label]
        order = torch.randperm(len(queue), generator=generator(seed, "queue", number, "trained"))
        for place in order[: settings.queue_trained].tolist():
            queue[place].train(everything, targets, settings, (seed, "queue", number, place))
    return stored, queue, sampled


@pytest.mark.parametrize(
    "changes",
    [
        {"iterations": 1},
        {"iterations": 2},
        {},
        {"style_weight": 500.0},
        {"ce_weight": 0.0},
        {"queue_start": 1, "queue_size": 2, "queue_every": 1},
        {"accuracy_every": 2},
        {"real_batch": 50, "batch_net": 100},
        {"siamese_augment": None},
        {"norm": "batch"},
        {"queue_steps": 0},
        {"queue_trained": 9, "momentum_net": 0.0},
    ],
    ids=lambda changes: "-".join(changes) or "idm",
)
def test_the_engine_equals_a_loop_over_networks_and_classes(pixels, changes):
    real = RealImages(*pixels(each=[12, 9, 12]), NORMALIZATION)
    settings, counts = replace(IDM_TINY, **changes), {0: 2, 1: 1, 2: 2}
    expected, queue, percents = slow_condense(real, counts, settings, seed=3)
    some = engine(real, settings, counts)
    found = some.run().images
    start = engine(real, settings, counts).images()
    for label in real.classes:
        way = (expected[label] - start[label]).norm()
        assert way > 0.02 and (found[label] - expected[label]).norm() < 1e-4 * way
    members = some.networks.members(some.iteration)
    assert [float(m.accuracy) for m in members] == pytest.approx([one.percent() for one in after(queue, settings)])
    if settings.queue_steps and settings.iterations > 2 and not changes.get("accuracy_every"):
        assert max(percents) > 30, "the cross-entropy must have counted"


def after(queue, settings):
    """The slow loop appends before an iteration, the queue after one: what both are once all is done."""
    queue = list(queue)
    if settings.iterations % settings.queue_every == 0:
        queue = [*queue, SlowNetwork(queue[0].network)][-settings.queue_size :]
    if settings.iterations % settings.accuracy_every == 0:
        for one in queue:
            one.right = one.seen = 0
    return queue


# ---------------------------------------------------------------- networks that learn


def test_networks_learn_the_classes_and_the_accuracy_says_so(real):
    some = engine(real, replace(IDM_TINY, queue_start=2, queue_every=100, queue_steps=10, batch_net=36)).networks
    for number in range(6):
        some.advance(number)
    assert [member.trainings for member in some.members(6)] == [6, 6]
    for member in some.members(6):
        some._put(member)
        some.network.eval()
        logits = some.network(real.normalise(some.images))
        assert (logits.argmax(1) == some.labels).float().mean() > 0.9
        assert 50 < member.accuracy <= 100  # an average over the way there


# ---------------------------------------------------------------- bytes, resuming, Ctrl-C


def test_how_classes_lie_among_each_other_does_not_matter(pixels):
    images, labels = pixels()
    order = labels.argsort(stable=True)
    mixed, sorted_ = RealImages(images, labels, NORMALIZATION), RealImages(images[order], labels[order], NORMALIZATION)
    assert sorted_.images is engine(sorted_).networks.images, "where they lie in order, nothing is copied"
    assert_same_bytes(condensed(mixed), condensed(sorted_))


def test_a_part_of_an_experience_trains_on_its_own_classes_only(real):
    part = engine(real.subset([0, 2])).networks
    assert part.labels.tolist() == [0] * 12 + [1] * 12 and part.network.classifier.out_features == 2
    assert torch.equal(part.images, torch.cat([real.raw(0), real.raw(2)]))


PLACES = {
    "as a class moves": (IDM, "_step_group", 5, "before"),
    "after a class has moved": (IDM, "_step_group", 8, "after"),
    "as a network trains": (NetworkQueue, "_trained", 4, "before"),
    "after a network has trained": (NetworkQueue, "_trained", 5, "after"),
    "as a network joins": (NetworkQueue, "_fresh", 2, "before"),
    "after the queue has gone on": (NetworkQueue, "advance", 3, "after"),
    "as a network is taken": (NetworkQueue, "take", 4, "after"),
}


@pytest.fixture
def ctrl_c(monkeypatch):
    """``ctrl_c(place)``: the n-th call of a method is interrupted, before or after its work, once."""

    def press(place):
        owner, name, turn, moment = PLACES[place]
        work, calls = getattr(owner, name), []

        def interrupted(self, *arguments):
            calls.append(name)
            if len(calls) == turn and moment == "before":
                raise KeyboardInterrupt
            result = work(self, *arguments)
            if len(calls) == turn and moment == "after":
                raise KeyboardInterrupt
            return result

        monkeypatch.setattr(owner, name, interrupted)

    return press


@pytest.mark.parametrize("reuse", [1, 2])
@pytest.mark.parametrize("place", PLACES)
def test_ctrl_c_at_any_moment_loses_nothing(real, tmp_path, ctrl_c, place, reuse):
    settings = replace(IDM_TINY, network_reuse=reuse, iterations=4 * reuse)
    unbroken = engine(real, settings).run()
    keep = tmp_path / "work.progress"
    some = engine(real, settings)
    ctrl_c(place)
    with pytest.raises(KeyboardInterrupt):
        some.run(keep=keep)
    resumed = engine(real, settings).run(keep=keep)
    assert_same_bytes(resumed.images, unbroken.images)
    assert resumed.record == unbroken.record and not keep.exists()
    assert_same_bytes(some.run().images, unbroken.images)  # the one that was interrupted can go on, too


def test_iterations_that_share_a_network_see_it_untrained_and_the_queue_goes_on_once(real):
    some, seen = engine(real, replace(IDM_TINY, network_reuse=3)), []
    for _ in range(4):
        some.step()
        member = some.networks.members(some.networks._number - 1)[some.networks.chosen(some.networks._number - 1)]
        seen.append((member.weights, some.networks._members))
    assert seen[0][0] is seen[1][0] is seen[2][0] and seen[0][1] is seen[2][1]
    assert seen[3][1] is not seen[2][1]


# ---------------------------------------------------------------- ways to compute the same


@pytest.mark.skipif(failure() is not None, reason="no native kernels here")
@pytest.mark.parametrize("style", [0.0, 500.0])
def test_native_kernels_work_with_learned_norms(pixels, style):
    real = RealImages(*pixels(2, 12, size=16), NORMALIZATION)
    settings = replace(IDM_TINY, width=16, style_weight=style, queue_steps=10, iterations=4)
    eager, native = engine(real, mixed(settings, kernels="eager")), engine(real, mixed(settings, kernels="native"))
    start = eager.images()
    found, expected = native.run().images, eager.run().images
    norms = [block.norm for block in native.networks.network.blocks]
    native.networks.take(4)
    assert max(float((norm.weight - 1).abs().max()) for norm in norms) > 1e-3, "the scales must have been learned"
    for label in real.classes:
        way = (expected[label] - start[label]).norm()
        assert way > 0.02 and (found[label] - expected[label]).norm() < 1e-3 * way


def test_classes_in_threads_give_the_same_bytes(pixels):
    real = RealImages(*pixels(5, 12), NORMALIZATION)
    plain = condensed(real, mixed(SM_TINY, parallel="operators"))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        some = engine(real, mixed(SM_TINY, parallel="classes"))
        torch.set_num_threads(1)  # of the queue's training
        assert_same_bytes(some.run().images, plain)
    finally:
        torch.set_num_threads(before)


def test_out_of_memory_halves_the_group_and_every_class_keeps_its_output(pixels, monkeypatch, caplog):
    real = RealImages(*pixels(5, 12), NORMALIZATION)
    settings = mixed(IDM_TINY, classes_at_once=5, ce_weight=2.0)
    plain, features = condensed(real, settings), MatchingEngine._features

    def limited(self, images, group, within):
        if len(images) > 2:
            raise torch.OutOfMemoryError("faked")
        return features(self, images, group, within)

    monkeypatch.setattr(MatchingEngine, "_features", limited)
    small = engine(real, settings)
    images = small.run().images
    assert sorted(len(group.labels) for group in small.groups) == [1, 2, 2] and "out of memory" in caplog.text
    for label in real.classes:
        torch.testing.assert_close(images[label], plain[label], rtol=1e-4, atol=1e-4)


def test_choices_are_tried_without_training_the_queue(real, monkeypatch):
    monkeypatch.setattr(calibration, "WORTH_MEASURING", 0.0)
    monkeypatch.setattr(NetworkQueue, "_trained", lambda *_: pytest.fail("trained"))
    settings = replace(IDM_TINY, width=16)
    counts = dict.fromkeys(real.classes, 2)
    found, execution = choose_image_execution(settings, Execution(), real, counts, CPU)
    assert "auto" not in vars(execution).values() and execution.classes_at_once is not None
    assert found == settings


# ---------------------------------------------------------------- in memories and recipes


def test_a_memory_counts_what_is_stored_and_trains_on_four_times_as_many(real):
    memory = ReplayMemory(images_per_class=2, normalization=NORMALIZATION)
    condense_experience(memory, real, ConfiguredMethod(METHODS["idm"], IDM_TINY), seed=3, device=CPU)
    plain = ReplayMemory(images_per_class=2, normalization=NORMALIZATION)
    dm = load_recipe("dm").settings("smoke", {"width": 4, "depth": 2})
    condense_experience(plain, real, ConfiguredMethod(METHODS["matching"], dm), seed=3, device=CPU)
    assert len(memory) == len(plain) == 6 and memory.memory_bytes == plain.memory_bytes
    assert memory.images.shape == (24, 3, 8, 8) and memory.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert {slot.decoding for slot in memory.slots.values()} == {"tiles2"}
    stored = torch.cat(list(condensed(real).values()))
    span = stored.amax() - stored.amin()
    torch.testing.assert_close(memory.images, decoder("tiles2")(stored), rtol=0, atol=float(span) / 255)


def test_diversity_counts_expanded_images(real):
    terms = engine(real, replace(IDM_TINY, diversity_weight=1.0), count=1).groups[0].terms
    assert [term.name for term in terms] == ["mean_matching", "diversity", "cross_entropy"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ce_weight": -0.1}, "ce_weight must not be negative, got -0.1"),
        ({"queue_start": 0}, "queue_start must be at least 1, got 0"),
        ({"queue_start": 5, "queue_size": 4}, "queue_start must be at most queue_size 4, got 5"),
        ({"queue_every": 0}, "queue_every must be at least 1, got 0"),
        ({"queue_trained": 0}, "queue_trained must be at least 1, got 0"),
        ({"queue_steps": -1}, "queue_steps must not be negative, got -1"),
        ({"batch_net": 0}, "batch_net must be at least 1, got 0"),
        ({"accuracy_every": 0}, "accuracy_every must be at least 1, got 0"),
        ({"lr_net": 0.0}, "lr_net must be positive, got 0.0"),
        ({"momentum_net": 1.0}, r"momentum_net must be within \[0, 1\), got 1.0"),
        ({"decay_net": -1.0}, "decay_net must not be negative, got -1.0"),
        ({"lr_img": 0.0}, "lr_img must be positive, got 0.0"),
        ({"width": 0}, "width must be at least 1, got 0"),
    ],
)
def test_a_setting_out_of_range_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(IDM_TINY, **changes)


@pytest.mark.parametrize("name", ["idm", "idm+sm"])
def test_the_recipe_has_the_published_values(name):
    recipe = load_recipe(name)
    paper = {count: recipe.settings("paper", None, "cifar10", count) for count in (1, 10, 50)}
    assert [paper[count].ce_weight for count in (1, 10, 50)] == [0.5, 0.5, 0.1]
    assert [(s.real_batch, s.queue_every) for s in paper.values()] == [(5000, 5), (256, 30), (256, 30)]
    published = {  # cross-entropy, image updates between accuracies' new starts, network updates a visit, at 1, 10, 50
        "cifar10": ([0.5, 0.5, 0.1], [100, 100, 500], [10, 10, 10]),
        "cifar100": ([0.5, 0.1, 0.1], [100, 100, 500], [10, 50, 10]),
        "tinyimagenet": ([0.5, 0.5, 0.8], [100, 500, 1000], [10, 10, 50]),
    }
    for dataset, values in published.items():
        settings = [recipe.settings("paper", None, dataset, n) for n in (1, 10, 50)]
        for name_of, expected in zip(("ce_weight", "accuracy_every", "queue_steps"), values):
            assert [getattr(one, name_of) for one in settings] == expected, (dataset, name_of)
        assert {one.depth for one in settings} == ({3} if dataset == "tinyimagenet" else {None})
    assert set(recipe.content["settings"]) < set(recipe.keys())
    plain = paper[10]
    assert (plain.lr_img, plain.momentum_img, plain.iterations, plain.real_batch) == (0.2, 0.5, 20000, 256)
    assert (plain.queue_start, plain.queue_size, plain.queue_trained, plain.queue_steps) == (4, 100, 2, 10)
    assert (plain.lr_net, plain.momentum_net, plain.decay_net, plain.batch_net) == (0.01, 0.9, 5e-4, 256)
    assert (plain.style_weight > 0) == (name == "idm+sm")
    for preset in PRESETS:
        recipe.settings(preset)


# ---------------------------------------------------------------- does it help


def learned(memory, data, seed):
    settings = TrainingSettings(width=16, updates=60, batch_size=128, lr=0.05)
    network = settings.build(data.num_classes, *data.train.images.shape[1:3])
    train(network, memory.images, memory.labels, settings, (seed, "digits"))
    return accuracy(network, data.test, data.normalization, CPU)


@pytest.mark.slow
def test_idm_beats_random_images_at_equal_stored_images_a_class():
    data = load_dataset("digits")
    margins = []
    for seed in range(3):
        reached = {}
        for name, changes in {"random": {}, "idm": {"iterations": 8}}.items():
            options = {"normalization": data.normalization, "seed": seed, "device": "cpu", **changes}
            memory = condense(data.train.images, data.train.labels, name, 1, preset="smoke", **options)
            assert len(memory) == 10
            reached[name] = learned(memory, data, seed)
        margins.append(reached["idm"] - reached["random"])
    assert min(margins) > 5, margins
