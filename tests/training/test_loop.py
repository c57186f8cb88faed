"""Training on a memory: the protocol's length, the optimiser, keyed batches, accuracy."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clreplay.data import ImageSet, Normalization
from clreplay.networks import ConvNet, reinitialize
from clreplay.networks.settings import NetworkSettings
from clreplay.training.augmentation import augment_images, parse_strategy
from clreplay.training.batches import BatchSource
from clreplay.training.evaluate import accuracy
from clreplay.training.loop import train
from clreplay.training.settings import TrainingSettings

NORMALIZATION = Normalization((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
PAPER = TrainingSettings()
TINY = TrainingSettings(width=4, depth=2, updates=6, batch_size=16, lr=0.05)


def network_of(seed=0, classes=3, norm="instance"):
    network = ConvNet(classes, image_size=8, width=4, depth=2, norm=norm)
    reinitialize(network, seed)
    return network


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


# ---------------------------------------------------------------- length


def test_1001_epochs_run_for_1000_and_the_rate_drops_after_index_501():
    for images in (100, 400, 2000, 5000):
        assert PAPER.epochs_for(images) == 1001
        assert PAPER.drop_after(images) == 501


@pytest.mark.parametrize(
    ("updates", "images", "epochs", "drop_after"),
    [(250, 400, 125, 61), (250, 2000, 32, 15), (250, 256, 250, 124), (30, 10, 30, 14), (3, 400, 2, 0), (1, 400, 1, -1)],
)
def test_updates_are_rounded_up_to_whole_epochs_and_the_rate_drops_at_half(updates, images, epochs, drop_after):
    settings = TrainingSettings(updates=updates)
    steps = math.ceil(images / 256)
    assert settings.epochs_for(images) == epochs and epochs * steps >= updates > (epochs - 1) * steps
    assert settings.drop_after(images) == drop_after
    assert drop_after + 1 == epochs // 2  # epochs before the drop


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"updates": 0}, r"updates must be at least 1 \(or null for epochs\), got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be positive, got 0.0"),
        ({"momentum": -0.1}, r"momentum must be within \[0, 1\), got -0.1"),
        ({"momentum": 1.0}, "momentum must be within"),
        ({"weight_decay": -1e-4}, "weight_decay must not be negative"),
        ({"lr_drop": -1.0}, "lr_drop must not be negative"),
        ({"augment": "blur"}, "augment must join operators"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"norm": "instanse"}, "norm must be one of instance.*'instanse'"),
        ({"activation": "gelu"}, "activation must be one of"),
        ({"pooling": "mean"}, "pooling must be one of"),
        ({"norm": "group", "width": 6}, "width must be a multiple of 4"),
    ],
)
def test_a_setting_that_would_only_fail_later_is_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**options)


def test_settings_build_their_network_and_leave_the_global_chance_alone(global_chance_untouched):
    settings = NetworkSettings(width=4, depth=2, norm="batch", activation="swish", pooling="max")
    with global_chance_untouched():
        network = settings.build(5, 1, 16)
    assert (network.num_classes, network.channels, network.image_size) == (5, 1, 16)
    assert (network.width, network.depth, network.norm) == (4, 2, "batch")
    assert isinstance(network.blocks[0].activation, nn.SiLU) and isinstance(network.blocks[0].pool, nn.MaxPool2d)
    assert NetworkSettings(width=4).build(5, 3, 64).depth == 4


# ---------------------------------------------------------------- the loop


def slow_train(network, images, labels, settings, key):
    """The authors' loop: SGD from formulas, a new optimiser (no momentum) and a tenth of the rate after half."""
    source = BatchSource(images, labels, settings.batch_size, settings.augment, key)
    parameters = list(network.parameters())
    velocity, rate = [torch.zeros_like(p) for p in parameters], settings.lr
    for epoch in range(settings.epochs_for(len(images))):
        for batch, targets in source.epoch(epoch):
            log_probabilities = network(batch).log_softmax(1)
            loss = -sum(row[target] for row, target in zip(log_probabilities, targets)) / len(targets)
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for p, v, g in zip(parameters, velocity, gradients):
                    v.mul_(settings.momentum).add_(g + settings.weight_decay * p)
                    p.sub_(rate * v)
        if epoch == settings.drop_after(len(images)):
            velocity, rate = [torch.zeros_like(p) for p in parameters], rate * settings.lr_drop


@pytest.mark.parametrize(
    "options", [{}, {"updates": None, "epochs": 4}, {"augment": None, "weight_decay": 0.1}, {"lr_drop": 1.0}], ids=str
)
def test_training_equals_the_slow_loop(options, pixels):
    images, labels = pixels()
    images = NORMALIZATION.apply(images)
    settings = TrainingSettings(**{"width": 4, "depth": 2, "updates": 12, "batch_size": 16, "lr": 0.05, **options})
    fast, slow = network_of(), network_of()
    train(fast, images, labels, settings, (0, "train"))
    slow_train(slow, images, labels, settings, (0, "train"))
    torch.testing.assert_close(weights(fast), weights(slow), rtol=1e-4, atol=1e-5)


def test_the_momentum_starts_anew_at_the_drop(pixels):
    """At a rate of zero after the drop nothing moves: no velocity is carried over."""
    images, labels = pixels()
    images, network, seen = NORMALIZATION.apply(images), network_of(), []
    settings = TrainingSettings(width=4, depth=2, updates=6, batch_size=36, lr=0.05, lr_drop=0.0)
    train(network, images, labels, settings, (0,), progress=lambda *_: seen.append(weights(network)))
    assert len(seen) == 6 and settings.drop_after(36) == 2
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


def test_training_tells_its_progress_and_ends_in_train_mode(pixels):
    told, (images, labels) = [], pixels()
    network = network_of().eval()
    train(network, NORMALIZATION.apply(images), labels, TINY, (0,), progress=lambda *report: told.append(report))
    assert told == [(1, 2), (2, 2)]
    assert network.training


def test_a_network_can_learn_a_tiny_set_by_heart(pixels):
    images, labels = pixels(3, 6)
    settings = TrainingSettings(width=8, depth=2, updates=150, batch_size=18, lr=0.05, augment=None)
    network = settings.build(3, 3, 8)
    reinitialize(network, 0)
    known = ImageSet(images, torch.randperm(18) % 3)  # labels without a pattern
    before = accuracy(network, known, NORMALIZATION, torch.device("cpu"))
    train(network, images, known.labels, settings, (0,), NORMALIZATION)
    assert before < 80 and accuracy(network, known, NORMALIZATION, torch.device("cpu")) == 100


def test_diverged_training_is_an_error_that_names_the_cure(pixels):
    images, labels = pixels()
    settings = TrainingSettings(width=4, depth=2, updates=30, lr=1e30, augment=None)
    with pytest.raises(FloatingPointError, match=r"training diverged \(loss .*lower lr \(now 1e\+30\)"):
        train(network_of(), NORMALIZATION.apply(images), labels, settings, (0,))


# ---------------------------------------------------------------- batches


def numbered(n):
    """Images that carry their own number, with their number as label."""
    return torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1).expand(n, 3, 8, 8), torch.arange(n)


@pytest.mark.parametrize(("n", "sizes"), [(10, [4, 4, 2]), (8, [4, 4]), (3, [3]), (9, [4, 4, 1])])
def test_an_epoch_covers_every_image_once(n, sizes):
    source = BatchSource(*numbered(n), 4, None, (0,))
    for epoch in (0, 5):
        batches = list(source.epoch(epoch))
        assert [len(labels) for _, labels in batches] == sizes and len(source) == len(sizes)
        assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == list(range(n))
        assert all(torch.equal(images[:, 0, 0, 0].long(), labels) for images, labels in batches)


def test_every_epoch_is_shuffled_anew_and_keyed_by_its_number(global_chance_untouched):
    source = BatchSource(*numbered(20), 20, "crop_flip", (0, "x"))
    with global_chance_untouched():
        epochs = [source.rows(epoch)[0] for epoch in (0, 1)]
        late = BatchSource(*numbered(20), 20, "crop_flip", (0, "x")).rows(1)[0]
        other = BatchSource(*numbered(20), 20, "crop_flip", (0, "y")).rows(1)[0]
    assert not torch.equal(epochs[0][0], epochs[1][0])
    assert torch.equal(late[0], epochs[1][0]) and late[1] == epochs[1][1] and torch.equal(late[2], epochs[1][2])
    assert not torch.equal(other[0], epochs[1][0])


def test_one_operator_a_batch_and_parameters_an_image(pixels):
    images, labels = pixels(2, 30)
    source = BatchSource(images, labels, 16, "color_crop_scale", (0,), NORMALIZATION)
    choices = []
    for rows, choice, parameters in source.rows(0):
        assert parameters.shape == (len(rows), 3) and len(parameters.unique(dim=0)) == len(rows)
        batch, targets = source.batch(rows, choice, parameters)
        plain = NORMALIZATION.apply(images[rows])
        expected = augment_images(plain, choice, parameters, parse_strategy("color_crop_scale"))
        assert torch.equal(batch, expected) and torch.equal(targets, labels[rows])
        choices.append(choice)
    assert len(set(choices)) == 4


def test_the_operator_of_a_batch_is_uniform():
    source = BatchSource(*numbered(40), 1, "color_crop_cutout_flip_scale_rotate", (0,))
    names = [source.strategy.chosen(choice)[0] for epoch in range(50) for _, choice, _ in source.rows(epoch)]
    counts = [names.count(name) for name in source.strategy.names]
    expected = len(names) / 6
    assert sum((count - expected) ** 2 / expected for count in counts) < 20.5  # chi squared, 5 degrees, p = 0.001


# ---------------------------------------------------------------- accuracy


def slow_accuracy(network, test):
    right = 0
    for image, label in zip(test.images, test.labels):
        value = image.float() / 255
        for c in range(3):
            value[c] = (value[c] - NORMALIZATION.mean[c]) / NORMALIZATION.std[c]
        with torch.no_grad():
            logits = network(value[None])[0].tolist()
        right += logits.index(max(logits)) == label
    return 100 * right / len(test)


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("batch_size", [7, 512])
def test_accuracy_equals_a_slow_loop(batch_size, norm, pixels):
    test, network = ImageSet(*pixels()), network_of(norm=norm)
    network.train()(torch.randn(8, 3, 8, 8))
    found = accuracy(network, test, NORMALIZATION, torch.device("cpu"), batch_size)
    assert found == pytest.approx(slow_accuracy(network.eval(), test))
    assert 0 < found < 100


def test_unseen_outputs_are_not_masked(pixels):
    images, labels = pixels()
    network = network_of(classes=10)
    with torch.no_grad():
        network.classifier.bias[7] = 1e6
    assert accuracy(network, ImageSet(images, labels), NORMALIZATION, torch.device("cpu")) == 0
    assert accuracy(network, ImageSet(images, labels * 0 + 7), NORMALIZATION, torch.device("cpu")) == 100


def test_accuracy_leaves_mode_statistics_and_gradients_as_they_were(pixels):
    test, network = ImageSet(*pixels()), network_of(norm="batch")
    network.train()
    network.blocks[0].norm.eval()  # frozen statistics, as some learners have them
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    accuracy(network, test, NORMALIZATION, torch.device("cpu"))
    assert network.training and network.blocks[1].norm.training and not network.blocks[0].norm.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    accuracy(network.eval(), test, NORMALIZATION, torch.device("cpu"))
    assert not any(module.training for module in network.modules())


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
