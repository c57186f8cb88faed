"""Accuracy of one network against a slow loop, of several at once, and of a network under way."""

import pytest
import torch
from training_helpers import CPU, NORMALIZATION, assert_same, network_of, networks_of, state, states

from clreplay.data import ImageSet
from clreplay.training.evaluate import accuracies_together, accuracy, share_right


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
    found = accuracy(network, test, NORMALIZATION, CPU, batch_size)
    assert found == pytest.approx(slow_accuracy(network.eval(), test))
    assert 0 < found < 100


def test_unseen_outputs_are_not_masked(pixels):
    images, labels = pixels()
    network = network_of(classes=10)
    with torch.no_grad():
        network.classifier.bias[7] = 1e6
    assert accuracy(network, ImageSet(images, labels), NORMALIZATION, CPU) == 0
    assert accuracy(network, ImageSet(images, labels * 0 + 7), NORMALIZATION, CPU) == 100


def test_accuracy_leaves_mode_statistics_and_gradients_as_they_were(pixels):
    test, network = ImageSet(*pixels()), network_of(norm="batch")
    network.train()
    network.blocks[0].norm.eval()  # frozen statistics, as some learners have them
    before = state(network)
    accuracy(network, test, NORMALIZATION, CPU)
    assert network.training and network.blocks[1].norm.training and not network.blocks[0].norm.training
    assert_same(state(network), before)
    assert all(parameter.grad is None for parameter in network.parameters())
    accuracy(network.eval(), test, NORMALIZATION, CPU)
    assert not any(module.training for module in network.modules())


# ---------------------------------------------------------------- several networks at once


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("batch_size", [1, 7, 2048])
def test_accuracies_equal_those_of_every_network(batch_size, norm, pixels, global_chance_untouched):
    test, networks = ImageSet(*pixels()), networks_of(4, norm=norm)
    for network in networks:
        network.train()(torch.randn(8, 3, 8, 8))
    expected = [accuracy(network, test, NORMALIZATION, CPU) for network in networks]
    with global_chance_untouched():
        assert accuracies_together(networks, test, NORMALIZATION, CPU, batch_size) == expected
    assert accuracies_together(networks, test, NORMALIZATION, CPU, batch_size, max_together=3) == expected
    assert len(set(expected)) > 1
    assert accuracies_together([], test, NORMALIZATION, CPU) == []


def test_accuracies_leave_modes_and_statistics_as_they_were(pixels):
    networks = networks_of(norm="batch")
    networks[0].eval()
    networks[1].blocks[0].norm.eval()
    modes = [module.training for network in networks for module in network.modules()]
    before = states(networks)
    accuracies_together(networks, ImageSet(*pixels()), NORMALIZATION, CPU)
    assert [module.training for network in networks for module in network.modules()] == modes
    assert_same(states(networks), before)


# ---------------------------------------------------------------- a network under way


def test_share_right_is_the_share_whatever_the_batches_in_the_mode_of_the_network(pixels):
    images, labels = pixels()
    images, network = NORMALIZATION.apply(images), network_of(norm="batch").eval()
    before, whole = state(network), share_right(network, images, labels)
    assert float(whole) == pytest.approx(float((network(images).argmax(1) == labels).double().mean()))
    assert all(torch.equal(share_right(network, images, labels, size), whole) for size in (1, 3, 10))
    assert_same(state(network), before)
    share_right(network.train(), images, labels)
    assert not torch.equal(network.blocks[0].norm.running_mean, before["blocks.0.norm.running_mean"])
