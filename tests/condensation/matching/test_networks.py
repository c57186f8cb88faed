"""Condensing with, and training of, networks other than the ConvNet: the engine and the stacks take them all."""

import math

import pytest
import torch
from torch import nn

from clreplay.condensation import RealImages
from clreplay.condensation.matching.engine import MatchingEngine, MatchingSettings
from clreplay.data import NORMALIZATIONS, ImageSet
from clreplay.networks import build_network, reinitialize
from clreplay.runtime.seeding import generator
from clreplay.training.evaluate import accuracies_together, accuracy
from clreplay.training.loop import train
from clreplay.training.settings import TrainingSettings
from clreplay.training.stacked import train_together

NORMALIZATION = NORMALIZATIONS["cifar10"]
CPU = torch.device("cpu")
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


def slow_network(name):
    """The network of the first iteration in double precision, drawn layer by layer."""
    network = build_network(name, 1, image_size=SIZES[name])
    numbers = torch.empty(sum(p.numel() for p in network.parameters()))
    numbers.uniform_(-1, 1, generator=generator(SEED, "network", 0))
    with torch.no_grad():
        for module in network.modules():
            for kind, parameter in module.named_parameters(recurse=False):
                values, numbers = numbers[: parameter.numel()], numbers[parameter.numel() :]
                if isinstance(module, nn.Conv2d | nn.Linear):
                    parameter.copy_(values.view_as(parameter) / math.sqrt(module.weight[0].numel()))
                else:
                    parameter.fill_(1.0 if kind == "weight" else 0.0)
    return network.double().requires_grad_(False)


def channel_statistics(tap):
    pixels = tap.flatten(2)
    count = pixels.shape[2]
    deviations = (pixels - pixels.mean(2, keepdim=True)).square().sum(2)
    return pixels.mean((0, 2)), (deviations / max(count - 1, 1) + 1e-5).sqrt().mean(0)


def gram_of(tap):
    return sum(image.flatten(1) @ image.flatten(1).T / image.numel() for image in tap) / len(tap)


def slow_moments(theirs, ours):
    loss = 0.0
    for target, value in zip(theirs, ours, strict=True):
        for one, other in zip(channel_statistics(target), channel_statistics(value)):
            loss = loss + 0.5 * (one - other).square().mean()
    return loss


def slow_correlation(theirs, ours):
    return sum((gram_of(a) - gram_of(b)).square().sum() for a, b in zip(theirs, ours, strict=True))


def slow_diversity(embedding):
    """At three images a class every image has one neighbour: the nearest."""
    total = 0.0
    for i, one in enumerate(embedding):
        others = [other for j, other in enumerate(embedding) if j != i]
        nearest = min(others, key=lambda other: float((one - other).detach().norm()))
        total = total - torch.sum(one.softmax(0) * (one.log_softmax(0) - nearest.log_softmax(0)))
    return total / len(embedding)


WEIGHTS = {"mean_matching": 1.0, "moment_matching": 5000.0, "correlation_matching": 5000.0, "diversity": 10.0}


def slow_terms(network, real, synthetic):
    """Sums over classes. Each side is one pass: without batch norm the same as class by class, with it classes mix."""
    sides = []
    for images in (real, synthetic):
        embedding, taps = network.features(torch.cat(images))
        sizes = [len(part) for part in images]
        sides.append(list(zip(embedding.split(sizes), zip(*(tap.split(sizes) for tap in taps)))))
    terms = dict.fromkeys(WEIGHTS, 0.0)
    for (their_embedding, their_taps), (our_embedding, our_taps) in zip(*sides):
        terms["mean_matching"] += (their_embedding.mean(0) - our_embedding.mean(0)).square().sum()
        terms["moment_matching"] += slow_moments(their_taps, our_taps)
        terms["correlation_matching"] += slow_correlation(their_taps, our_taps)
        terms["diversity"] += slow_diversity(our_embedding)
    return terms


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
    terms = slow_terms(slow_network(name), theirs, synthetic)
    chosen = list(WEIGHTS) if method == "ddm" else ["mean_matching"]
    assert sorted(values) == sorted(chosen)
    for term in chosen:
        assert values[term].item() == pytest.approx(terms[term].item() / len(real.classes), rel=1e-3, abs=1e-7), term
    gradients = torch.autograd.grad(sum(WEIGHTS[term] * terms[term] for term in chosen), synthetic)
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
