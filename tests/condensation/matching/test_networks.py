"""Condensing with, and training of, networks other than the ConvNet: the engine and the stacks take them all."""

import pytest
import slow
import torch
from engines import CPU, NORMALIZATION

from clreplay.condensation import RealImages
from clreplay.condensation.matching.engine import MatchingEngine, MatchingSettings
from clreplay.data import ImageSet
from clreplay.networks import build_network, reinitialize
from clreplay.training.evaluate import accuracies_together, accuracy
from clreplay.training.loop import train
from clreplay.training.settings import TrainingSettings
from clreplay.training.stacked import train_together

SEED, COUNT, RATE = 3, 3, 10.0
SIZES = {
    "MLP": 8,
    "LeNet": 18,
    "AlexNet": 16,
    "AlexNetBN": 16,
    "VGG11": 32,
    "VGG11BN": 32,
    "ResNet18": 25,
    "ResNet18BN": 25,
    "ResNet18_AP": 16,
    "ResNet18BN_AP": 16,
    "AlexCifarNet": 16,
    "ConvNetASwishBN": 8,
}


# ---------------------------------------------------------------- condensing


def every_network(but):
    """All names; those that take seconds and add little are left to the longer proofs."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in but else name for name in SIZES]


@pytest.mark.parametrize("method", ["dm", "ddm"])
@pytest.mark.parametrize("name", every_network(but=["VGG11BN", "ResNet18BN", "ResNet18_AP"]))
def test_an_update_follows_the_loss_on_the_network_s_own_taps(name, method, pixels):
    real = RealImages(*pixels(2, 4, size=SIZES[name]), NORMALIZATION)
    weights = {"style_weight": 5000.0, "diversity_weight": 10.0} if method == "ddm" else {}
    settings = MatchingSettings(network=name, iterations=1, lr_img=RATE, siamese_augment=None, **weights)
    engine = MatchingEngine(real, dict.fromkeys(real.classes, COUNT), settings, SEED, CPU)
    start = engine.images()
    values = engine.step()
    moved = engine.images()

    synthetic = [start[label].double().requires_grad_() for label in real.classes]
    theirs = [real.normalised(label).double() for label in real.classes]
    network = slow.drawn_network(build_network(name, 1, image_size=SIZES[name]), SEED, 0).double()
    network.requires_grad_(False)
    sides = zip(*(slow.features_of_classes(network, images) for images in (theirs, synthetic)))
    terms, expected = [slow.matching_terms(*pair, settings) for pair in sides], slow.matching_weights(settings)
    assert sorted(values) == sorted(term for term, weight in expected.items() if weight)
    for term, value in values.items():
        mean = sum(float(one[term].detach()) for one in terms) / len(terms)
        assert value.item() == pytest.approx(mean, rel=1e-3, abs=1e-7), term
    loss = sum(expected[term] * value for one in terms for term, value in one.items())
    gradients = torch.autograd.grad(loss, synthetic)
    for label, gradient in zip(real.classes, gradients):
        found = (start[label].double() - moved[label].double()) / RATE
        assert found.isfinite().all() and found.flatten(1).norm(dim=1).min() > 1e-6
        # A value that single precision puts on the other side of a ReLU's kink turns a deep gradient by a percent.
        assert (found - gradient).norm() < 0.03 * gradient.norm()


def test_bfloat16_reaches_every_network_s_layers(pixels):
    for name in ("AlexCifarNet", "ResNet18_AP", "AlexNetBN"):
        real = RealImages(*pixels(2, 4, size=16), NORMALIZATION)
        settings = MatchingSettings(network=name, style_weight=5000.0, precision="bfloat16", siamese_augment=None)
        exact = MatchingSettings(network=name, style_weight=5000.0, siamese_augment=None)
        low, high = (
            MatchingEngine(real, dict.fromkeys(real.classes, 2), s, SEED, CPU).step() for s in (settings, exact)
        )
        for term, value in low.items():
            assert value.dtype == torch.float32
            assert value.item() == pytest.approx(high[term].item(), rel=0.2), (name, term)
            assert value.item() != high[term].item()


# ---------------------------------------------------------------- training together


def drawn(name, count=2):
    networks = [build_network(name, 3, image_size=SIZES[name]) for _ in range(count)]
    for seed, network in enumerate(networks):
        reinitialize(network, seed)
    return [network.double() for network in networks]


@pytest.mark.parametrize(
    "name", every_network(but=["VGG11", "VGG11BN", "ResNet18", "ResNet18BN", "ResNet18_AP", "ResNet18BN_AP"])
)
def test_a_stack_of_any_network_is_trained_as_one_after_another(name, pixels):
    images, labels = pixels(3, 3, size=SIZES[name])
    images = NORMALIZATION.apply(images).double()
    settings = TrainingSettings(updates=2, batch_size=5, lr=0.01, augment="flip")
    keys = [(0, "train"), (1, "train")]
    before, alone, together = drawn(name), drawn(name), drawn(name)
    for network, key in zip(alone, keys):
        train(network, images, labels, settings, key)
    train_together(together, images, labels, settings, keys)
    for old, one, other in zip(before, alone, together):
        torch.testing.assert_close(other.state_dict(), one.state_dict(), rtol=0, atol=1e-8)
        assert not torch.allclose(old.classifier.weight, one.classifier.weight, atol=1e-4)


@pytest.mark.parametrize("name", ["MLP", "AlexNetBN", "AlexCifarNet", "ResNet18BN_AP"])
def test_accuracies_of_a_stack_are_those_of_every_network(name, pixels):
    test = ImageSet(*pixels(3, 6, size=SIZES[name]))
    networks = [network.float() for network in drawn(name)]
    for network in networks:
        network(torch.randn(8, 3, SIZES[name], SIZES[name]))  # batch norm's statistics are not at their start
    expected = [accuracy(network, test, NORMALIZATION, CPU) for network in networks]
    assert accuracies_together(networks, test, NORMALIZATION, CPU) == expected


def test_networks_of_two_names_are_no_stack(pixels):
    images, labels = pixels(3, 3, size=16)
    networks = [build_network(name, 3, image_size=16) for name in ("AlexNet", "AlexNetBN")]
    with pytest.raises(ValueError, match="networks must be of one architecture, .*train it on its own"):
        train_together(networks, images, labels, TrainingSettings(updates=1), [(0,), (1,)], NORMALIZATION)
