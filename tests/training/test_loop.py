"""Training from scratch, and a little further, against a slow loop; keyed chance, momentum, progress, errors."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from slow_training import SlowSGD, in_bfloat16, slow_epoch, slow_training
from training_helpers import CPU, NORMALIZATION, TINY, AllSettings, assert_same, network_of, state, weights

from clreplay.data import ImageSet
from clreplay.networks import ConvNet, reinitialize
from clreplay.training.evaluate import accuracy, share_right
from clreplay.training.loop import train, train_further
from clreplay.training.settings import TrainingSettings

# ---------------------------------------------------------------- from scratch


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"updates": None, "epochs": 4},
        {"augment": None, "weight_decay": 0.1},
        {"augment": "color+crop+flip", "lr_drop": 1.0},
        {"nesterov": True, "drop_resets_momentum": False, "norm": "batch"},
    ],
    ids=str,
)
def test_training_equals_the_slow_loop(options, pixels):
    images, labels = pixels()
    images = NORMALIZATION.apply(images)
    settings = AllSettings(**{"width": 4, "depth": 2, "updates": 12, "batch_size": 16, "lr": 0.05, **options})
    fast, slow = network_of(norm=settings.norm), network_of(norm=settings.norm)
    train(fast, images, labels, settings, (0, "train"))
    slow_training(slow, images, labels, settings, (0, "train"))
    torch.testing.assert_close(state(fast), state(slow), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("fused", "tolerance"), [(True, 0.05), (False, 0.1)])
def test_a_training_in_bfloat16_rounds_what_convolutions_read_and_write(fused, tolerance, pixels):
    """Weights, loss and updates stay single: only then do two ways of computing it keep together for long."""
    images, labels = pixels()
    images = NORMALIZATION.apply(images)
    settings = TrainingSettings(width=16, depth=2, updates=8, batch_size=16, lr=0.05, precision="bfloat16")
    low, slow, single = (network_of(width=16) for _ in range(3))
    before = weights(low)
    train(low.fuse() if fused else low, images, labels, settings, (0, "train"))
    slow_training(slow, images, labels, settings, (0, "train"), in_bfloat16(slow))
    train(single, images, labels, replace(settings, precision="float32"), (0, "train"))
    moved, apart = (weights(one) - before for one in (slow, single))
    assert low.blocks[0].conv.weight.dtype == torch.float32
    assert (weights(low) - weights(slow)).norm() < tolerance * moved.norm()
    assert 0 < (weights(low) - weights(single)).norm() < 0.2 * apart.norm()


def test_a_precision_that_is_none_is_an_error():
    with pytest.raises(ValueError, match="precision must be one of float32, tf32, bfloat16, got 'half'"):
        TrainingSettings(precision="half")


def test_every_batch_can_be_watched_before_its_update(pixels):
    images, labels = pixels()
    images, histories = NORMALIZATION.apply(images), [[] for _ in labels]

    def watch(rows, targets, logits):
        assert torch.equal(targets, labels[rows]) and not logits.requires_grad
        for row, right in zip(rows.tolist(), (logits.argmax(1) == targets).tolist()):
            histories[row].append(right)

    train(network_of(), images, labels, TINY, (0,), watch=watch)
    assert histories == slow_training(network_of(), images, labels, TINY, (0,))


def test_the_momentum_starts_anew_at_the_drop(pixels):
    """At a rate of zero after the drop nothing moves: no velocity is carried over."""
    images, labels = pixels()
    images, network, seen = NORMALIZATION.apply(images), network_of(), []
    settings = TrainingSettings(width=4, depth=2, updates=6, batch_size=36, lr=0.05, lr_drop=0.0)
    train(network, images, labels, settings, (0,), progress=lambda *_: seen.append(weights(network)))
    assert len(seen) == 6 and settings.drops_after(36) == {2}
    assert not torch.equal(seen[1], seen[2])
    assert all(torch.equal(later, seen[2]) for later in seen[3:])


def test_training_is_a_function_of_its_key_and_leaves_the_global_chance_alone(pixels, global_chance_untouched):
    images, labels = pixels()
    images = NORMALIZATION.apply(images)
    networks = [network_of() for _ in range(3)]
    for network, key in zip(networks, ((1, "a"), (1, "a"), (1, "b"))):
        torch.rand(11)
        with global_chance_untouched():
            train(network, images, labels, TINY, key)
    assert torch.equal(weights(networks[0]), weights(networks[1]))
    assert not torch.equal(weights(networks[0]), weights(networks[2]))


def test_pixel_codes_and_floats_train_the_same_network(pixels):
    images, labels = pixels()
    one, other = network_of(), network_of()
    train(one, images, labels, TINY, (0,), NORMALIZATION)
    train(other, NORMALIZATION.apply(images), labels, TINY, (0,))
    assert torch.equal(weights(one), weights(other))


def test_training_reports_its_progress_and_ends_in_train_mode(pixels):
    reports, (images, labels) = [], pixels()
    network = network_of().eval()
    train(network, NORMALIZATION.apply(images), labels, TINY, (0,), progress=lambda *report: reports.append(report))
    assert reports == [(1, 2), (2, 2)]
    assert network.training


def test_a_network_can_learn_a_tiny_set_by_heart(pixels):
    images, labels = pixels(3, 6)
    settings = TrainingSettings(width=8, depth=2, updates=150, batch_size=18, lr=0.05, augment=None)
    network = settings.build(3, 3, 8)
    reinitialize(network, 0)
    known = ImageSet(images, torch.randperm(18) % 3)  # labels without a pattern
    before = accuracy(network, known, NORMALIZATION, CPU)
    train(network, images, known.labels, settings, (0,), NORMALIZATION)
    assert before < 80 and accuracy(network, known, NORMALIZATION, CPU) == 100


def test_diverged_training_is_an_error_that_names_the_cure(pixels):
    images, labels = pixels()
    settings = TrainingSettings(width=4, depth=2, updates=30, lr=1e30, augment=None)
    with pytest.raises(FloatingPointError, match=r"training diverged \(loss .*lower lr \(now 1e\+30\)"):
        train(network_of(), NORMALIZATION.apply(images), labels, settings, (0,))


def test_the_loss_is_the_mean_over_a_batch(pixels):
    """One step without momentum or decay moves the weights by the gradient of the mean cross-entropy."""
    images, labels = pixels(3, 2)
    images = NORMALIZATION.apply(images)
    settings = TrainingSettings(updates=1, batch_size=6, lr=0.1, momentum=0.0, weight_decay=0.0, augment=None)
    network, other = network_of(), network_of()
    train(network, images, labels, settings, (0,))
    gradients = torch.autograd.grad(F.cross_entropy(other(images), labels), list(other.parameters()))
    moved = weights(other) - 0.1 * torch.cat([gradient.flatten() for gradient in gradients])
    torch.testing.assert_close(weights(network), moved)


# ---------------------------------------------------------------- a little further

KEY = (3, "inner", 7)


@pytest.fixture
def task():
    """A network, ten images of three classes, and their labels; all in double precision, as are the draws."""
    torch.set_default_dtype(torch.float64)
    images = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    yield ConvNet(3, 3, 8, 4, 2), images, torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    torch.set_default_dtype(torch.float32)


def sgd(network, **options):
    return torch.optim.SGD(network.parameters(), **{"lr": 0.1, **options})


@pytest.mark.parametrize("augment", [None, "color_crop_cutout_flip_scale_rotate"])
@pytest.mark.parametrize("batch_size", [4, 64])
def test_epochs_equal_a_slow_loop(task, augment, batch_size, global_chance_untouched):
    network, images, labels = task
    images.requires_grad_()
    other, momentum = copy.deepcopy(network), {"momentum": 0.9, "weight_decay": 0.01}
    optimizer, slow = sgd(network, **momentum), SlowSGD(other, 0.1, **momentum)
    with global_chance_untouched():
        share = train_further(network, images, labels, optimizer, KEY, epochs=3, batch_size=batch_size, augment=augment)
    seen = [
        right
        for epoch in range(3)
        for _, right in slow_epoch(other, images.detach(), labels, slow, KEY, epoch, batch_size, augment)
    ]
    assert_same(weights(network), weights(other), 1e-10)
    assert float(share) == pytest.approx(sum(seen) / len(seen))
    assert images.grad is None and all(parameter.grad is None for parameter in network.parameters())


def test_steps_are_the_first_of_the_epochs(task):
    network, images, labels = task
    other = copy.deepcopy(network)
    train_further(network, images, labels, sgd(network), KEY, steps=6, batch_size=4)  # two epochs of three
    train_further(other, images, labels, sgd(other), KEY, epochs=2, batch_size=4)
    assert torch.equal(weights(network), weights(other))
    train_further(other, images, labels, sgd(other), KEY, steps=1, batch_size=4)
    assert not torch.equal(weights(network), weights(other))


def test_a_step_is_one_update_and_gives_the_share_right_before_it(task):
    network, images, labels = task
    before = share_right(network, images, labels)
    assert float(train_further(network, images, labels, sgd(network), KEY, steps=1)) == pytest.approx(float(before))
    for _ in range(60):
        after = train_further(network, images, labels, sgd(network), KEY, steps=1)
    assert float(after) == 1.0


def test_the_optimiser_s_momentum_goes_on_from_call_to_call(task):
    network, images, labels = task
    fresh = copy.deepcopy(network)
    optimizer = sgd(network, momentum=0.9)
    for _ in range(2):
        train_further(network, images, labels, optimizer, KEY, steps=1)
        train_further(fresh, images, labels, sgd(fresh, momentum=0.9), KEY, steps=1)
    assert not torch.allclose(weights(network), weights(fresh), atol=1e-6)


def test_chance_is_the_key_s(task):
    network, images, labels = task
    others = [copy.deepcopy(network) for _ in range(2)]
    for other, key in zip((network, *others), (KEY, KEY, (3, "inner", 8))):
        train_further(other, images, labels, sgd(other), key, epochs=2, batch_size=3, augment="color+flip")
    assert torch.equal(weights(network), weights(others[0]))
    assert not torch.equal(weights(network), weights(others[1]))


def test_batch_norm_is_trained_in_its_mode():
    network = ConvNet(2, 1, 8, 4, 1, norm="batch").eval()
    images, labels = torch.randn(6, 1, 8, 8), torch.arange(6) % 2
    before = network.blocks[0].norm.running_mean.clone()
    train_further(network, images, labels, sgd(network), KEY, steps=1)
    assert not torch.equal(network.blocks[0].norm.running_mean, before) and network.training


@pytest.mark.parametrize(
    ("length", "message"),
    [
        ({}, "give either epochs or steps, got epochs=None and steps=None"),
        ({"epochs": 1, "steps": 1}, "give either epochs or steps, got epochs=1 and steps=1"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"steps": -1}, "steps must be at least 1, got -1"),
    ],
)
def test_a_wrong_length_is_an_error(task, length, message):
    network, images, labels = task
    with pytest.raises(ValueError, match=message):
        train_further(network, images, labels, sgd(network), KEY, **length)
