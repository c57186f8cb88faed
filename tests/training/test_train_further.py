"""Training a network a little further: against a slow loop, and what goes on from call to call."""

import copy

import pytest
import torch

from clreplay.networks import ConvNet
from clreplay.runtime.seeding import generator
from clreplay.training.augmentation import OPERATORS, draw, parse_strategy
from clreplay.training.evaluate import share_right
from clreplay.training.loop import train_further

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


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def slow_training(network, images, labels, epochs, batch_size, augment, lr, momentum=0.0, decay=0.0):
    """Plain SGD, image after image; the share right before each update."""
    strategy, velocity, right = parse_strategy(augment), {}, 0
    for epoch in range(epochs):
        chance = generator(*KEY, "epoch", epoch)
        order = torch.randperm(len(images), generator=chance).tolist()
        starts = range(0, len(images), batch_size)
        choices = torch.rand(len(starts), generator=chance)
        parameters = draw(len(images), strategy, chance)[:, 1:]
        for start, choice in zip(starts, choices.tolist()):
            loss, rows = 0.0, order[start : start + batch_size]
            for place, row in enumerate(rows, start=start):
                image = images[row : row + 1]
                for name in strategy.chosen(choice):
                    image = OPERATORS[name](image, parameters[place : place + 1])
                logits = network(image)[0]
                right += int(logits.argmax()) == int(labels[row])
                loss = loss - logits.log_softmax(0)[labels[row]] / len(rows)
            slopes = torch.autograd.grad(loss, list(network.parameters()))
            with torch.no_grad():
                for i, (parameter, slope) in enumerate(zip(network.parameters(), slopes)):
                    velocity[i] = momentum * velocity.get(i, 0) + slope + decay * parameter
                    parameter.sub_(lr * velocity[i])
    return right / (epochs * len(images))


@pytest.mark.parametrize("augment", [None, "color_crop_cutout_flip_scale_rotate"])
@pytest.mark.parametrize("batch_size", [4, 64])
def test_epochs_equal_a_slow_loop(task, augment, batch_size, global_chance_untouched):
    network, images, labels = task
    images.requires_grad_()
    other = copy.deepcopy(network)
    optimizer = sgd(network, momentum=0.9, weight_decay=0.01)
    with global_chance_untouched():
        right = train_further(network, images, labels, optimizer, KEY, epochs=3, batch_size=batch_size, augment=augment)
    expected = slow_training(other, images.detach(), labels, 3, batch_size, augment, 0.1, 0.9, 0.01)
    torch.testing.assert_close(weights(network), weights(other), rtol=1e-9, atol=1e-11)
    assert float(right) == pytest.approx(expected)
    assert images.grad is None and all(parameter.grad is None for parameter in network.parameters())


def test_steps_are_the_first_of_the_epochs(task):
    network, images, labels = task
    other = copy.deepcopy(network)
    train_further(network, images, labels, sgd(network), KEY, steps=6, batch_size=4)  # two epochs of three
    train_further(other, images, labels, sgd(other), KEY, epochs=2, batch_size=4)
    assert torch.equal(weights(network), weights(other))
    train_further(other, images, labels, sgd(other), KEY, steps=1, batch_size=4)
    assert not torch.equal(weights(network), weights(other))


def test_a_step_is_one_update_and_tells_the_share_right_before_it(task):
    network, images, labels = task
    before = share_right(network, images, labels)
    assert float(before) == pytest.approx(float((network(images).argmax(1) == labels).double().mean()))
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


def test_batch_norm_is_trained_and_measured_in_its_mode():
    network = ConvNet(2, 1, 8, 4, 1, norm="batch").eval()
    images, labels = torch.randn(6, 1, 8, 8), torch.arange(6) % 2
    before = network.blocks[0].norm.running_mean.clone()
    share_right(network, images, labels)
    assert torch.equal(network.blocks[0].norm.running_mean, before)
    train_further(network, images, labels, sgd(network), KEY, steps=1)
    assert not torch.equal(network.blocks[0].norm.running_mean, before) and network.training


def test_share_right_does_not_depend_on_the_batches(task):
    network, images, labels = task
    whole = share_right(network, images, labels)
    assert all(torch.equal(share_right(network, images, labels, size), whole) for size in (1, 3, 10))


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
