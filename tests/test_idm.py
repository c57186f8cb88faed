"""IDM against a slow loop written from the paper: expansion, the term, a queue that trains, whole iterations."""

import copy
import functools
import math
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from clreplay.augment import augment_shared, parse_strategy
from clreplay.chance import BLOCK, generator
from clreplay.condensation import METHODS, RealImages, calibration, condense, condense_experience
from clreplay.condensation.idm import IDM, IDMSettings, condense_by_idm, settle_images
from clreplay.condensation.matching import Matching
from clreplay.condensation.network_queue import NetworkQueue, QueueSettings
from clreplay.condensation.tiled_start import tiled_images
from clreplay.data import NORMALIZATIONS, load_dataset
from clreplay.decoding import decoder, tiles2
from clreplay.losses import TrustedCrossEntropy, class_cross_entropy
from clreplay.losses.features import Features
from clreplay.memory import ReplayMemory
from clreplay.native import failure
from clreplay.networks import ConvNet
from clreplay.recipes import PRESETS, load_recipe
from clreplay.training import TrainingSettings, accuracy, train

NORMALIZATION = NORMALIZATIONS["cifar10"]
CPU = torch.device("cpu")
IDM_TINY = IDMSettings(
    width=4, depth=2, iterations=6, real_batch=7, lr_img=0.5, queue_every=2, queue_steps=3, batch_net=8, lr_net=0.1
)
SM_TINY = replace(IDM_TINY, style_weight=500.0)


def engine(real, settings=IDM_TINY, count=2, seed=3):
    counts = count if isinstance(count, dict) else dict.fromkeys(real.classes, count)
    return IDM(real, counts, settings, seed, CPU)


def condensed(real, settings=IDM_TINY, count=2, seed=3):
    return engine(real, settings, count, seed).run().images


def assert_same_bytes(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[label], other[label]) for label in one)


@pytest.fixture
def real(pixels):
    return RealImages(*pixels(3, 12), NORMALIZATION)


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


def test_quadrants_can_start_as_noise(pixels):
    real = RealImages(*pixels(2, 20), NORMALIZATION)
    start = engine(real, replace(IDM_TINY, init="noise"), count=20).images()
    assert not torch.equal(start[0], start[1])
    for images in start.values():
        assert abs(float(images.mean())) < 4 / math.sqrt(images.numel())
        assert float(images.std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("size", [7, 9])
def test_images_that_cannot_be_split_are_an_error_before_any_work(pixels, size, monkeypatch):
    monkeypatch.setattr(NetworkQueue, "__init__", lambda *_: pytest.fail("worked"))
    real = RealImages(*pixels(2, 5, size=size), NORMALIZATION)
    with pytest.raises(ValueError, match=f"height and width must be even, got {size} x {size}; pad or resize"):
        engine(real, count=1)


# ---------------------------------------------------------------- the term


class Judge:
    def __init__(self, percent, classes=3, dtype=torch.float64):
        self.network = ConvNet(classes, 3, 8, width=4, depth=2).to(dtype)
        self.accuracy = torch.tensor(percent, dtype=dtype)


def test_the_term_is_percent_times_the_mean_cross_entropy_of_a_class():
    judge = Judge(62.5)
    images = torch.randn(2, 5, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    features = Features.of(2, *judge.network.features(images.flatten(0, 1)))
    term = TrustedCrossEntropy(0.5, torch.tensor([2, 0]), judge)
    assert term.name == "cross_entropy" and term.weight == 0.5 and not term.reads_maps
    found = term.loss(term.statistics(features), term.statistics(features), features)
    slow = []
    for own, output in zip(images, (2, 0)):
        total = 0.0
        for image in own:
            logits = judge.network(image[None])[0]
            total = total - torch.log(torch.exp(logits[output]) / sum(torch.exp(logit) for logit in logits))
        slow.append(62.5 * total / 5)
    torch.testing.assert_close(found, torch.stack(slow))
    for one, other in zip(torch.autograd.grad(found.sum(), images), torch.autograd.grad(sum(slow), images)):
        torch.testing.assert_close(one, other)


def test_the_term_follows_its_judge():
    judge, embedding = Judge(10.0), torch.randn(3, 2, 16, dtype=torch.float64)
    term, features = TrustedCrossEntropy(1.0, torch.arange(3), judge), Features(embedding, [])
    first = term.loss((), (), features)
    judge.accuracy = torch.tensor(40.0, dtype=torch.float64)
    torch.testing.assert_close(term.loss((), (), features), 4 * first)
    judge.network.classifier.bias.data[0] += 100
    later = term.loss((), (), features)
    assert later[0] < 1e-9 and later[1] > 90 * 40


def test_cross_entropy_is_never_negative_and_log_of_the_outputs_where_nothing_is_known():
    flat = class_cross_entropy(torch.zeros(3, 4, 7), torch.tensor([0, 6, 2]))
    torch.testing.assert_close(flat, torch.full((3,), math.log(7)))
    assert (class_cross_entropy(torch.randn(3, 4, 7) * 50, torch.tensor([1, 1, 1])) >= 0).all()


# ---------------------------------------------------------------- the slow loop


def slow_fresh(settings, classes, seed, index):
    """Weights layer by layer from the keyed draw of the index-th network."""
    network = ConvNet(classes, 3, 8, settings.width, settings.depth, settings.norm)
    numbers = torch.empty(sum(p.numel() for p in network.parameters())).uniform_(
        -1, 1, generator=generator(seed, "network", index)
    )
    with torch.no_grad():
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                values, numbers = numbers[: parameter.numel()], numbers[parameter.numel() :]
                if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                    parameter.copy_(values.view_as(parameter) / math.sqrt(module.weight[0].numel()))
                else:
                    parameter.fill_(1.0 if name == "weight" else 0.0)
    return network.double()


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
                order, epoch = torch.randperm(len(images), generator=generator(*key, "epoch", epoch)).tolist(), epoch + 1
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


def slow_draw(real, label, settings, seed, number):
    """Rows of the real batch and augmentation draw of one class."""
    chance = generator(seed, real.keys[label], "match", number // BLOCK)
    draws = torch.rand(BLOCK, parse_strategy(settings.siamese_augment).draw_size, generator=chance)
    size = real.count(label)
    if settings.real_batch >= size:
        return list(range(size)), draws[number % BLOCK]
    uniform = torch.rand(BLOCK, size, generator=chance)[number % BLOCK]
    return sorted(range(size), key=lambda row: -uniform[row])[: settings.real_batch], draws[number % BLOCK]


def slow_style(theirs, ours):
    """Moments and correlation of every tap (n, channels, h, w): plain sums, as in test_matching."""

    def moments(tap):
        spread = (tap.flatten(2).var(2, unbiased=True) + 1e-5).sqrt().mean(0)
        return tap.mean((0, 2, 3)), spread

    def correlation(tap):
        return sum(image.flatten(1) @ image.flatten(1).T / image.numel() for image in tap) / len(tap)

    loss = 0.0
    for one, other in zip(theirs, ours):
        for target, value in zip(moments(one), moments(other)):
            loss = loss + 0.5 * (target - value).square().mean()
        loss = loss + (correlation(one) - correlation(other)).square().sum()
    return loss


def slow_condense(real, counts, settings, seed):
    """The loop of the paper in double precision: network after network, class after class."""
    strategy = parse_strategy(settings.siamese_augment)
    everything = torch.cat([real.normalised(label) for label in real.classes]).double()
    targets = torch.cat([torch.full((real.count(label),), i) for i, label in enumerate(real.classes)])
    stored = {c: tiled_images(real, c, counts[c], "real", seed).double() for c in real.classes}
    velocity = {label: torch.zeros_like(images) for label, images in stored.items()}
    queue = [SlowNetwork(slow_fresh(settings, len(real.classes), seed, i)) for i in range(settings.queue_start)]
    made, sampled = settings.queue_start, []
    for number in range(settings.iterations):
        if number and number % settings.queue_every == 0:
            queue.append(SlowNetwork(slow_fresh(settings, len(real.classes), seed, made)))
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
            rows, draw = slow_draw(real, label, settings, seed, number)
            leaf = stored[label].clone().requires_grad_()
            expanded = augment_shared(slow_expand(leaf), draw, strategy)
            batch = real.normalised(label)[rows].double()
            with torch.no_grad():
                target, their_taps = one.network.features(augment_shared(batch, draw, strategy))
            embedding, taps = one.network.features(expanded)
            loss = settings.mean_weight * (target.mean(0) - embedding.mean(0)).square().sum()
            loss = loss + settings.style_weight * slow_style(their_taps, taps)
            wrong = -one.network.classifier(embedding).log_softmax(1)[:, output].mean()
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
