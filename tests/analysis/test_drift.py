"""Style drift: the equations map by map, no drift at all, and the whole of it."""

import pytest
import torch

from clreplay.analysis.drift import StyleDrift, accuracy_under_drift, drift
from clreplay.data import ImageSet
from clreplay.data.sets.digits import load_digits
from clreplay.networks import ConvNet, reinitialize
from clreplay.runtime.seeding import key_seed
from clreplay.training.evaluate import accuracy
from clreplay.training.loop import train
from clreplay.training.settings import TrainingSettings

SMALL = TrainingSettings(width=8, depth=2, updates=20, batch_size=16, lr=0.05)


def test_the_drift_equals_the_equations_map_by_map():
    chance = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 4, 5, 5, generator=chance, dtype=torch.float64)
    means, variances = (torch.rand(3, 4, generator=chance, dtype=torch.float64) for _ in range(2))
    for gamma in (0.3, 1.0):
        found = drift(maps, means, variances, gamma)
        for n in range(3):
            for channel in range(4):
                one = maps[n, channel]
                mu, sigma = one.mean(), ((one - one.mean()) ** 2).mean()
                mu_d = (1 - gamma) * mu + gamma * means[n, channel]
                sigma_d = (1 - gamma) * sigma + gamma * variances[n, channel]
                expected = sigma_d.sqrt() * (one - mu) / sigma.sqrt() + mu_d
                torch.testing.assert_close(found[n, channel], expected, rtol=1e-5, atol=1e-6)
    # The whole drift leaves a map with the statistics of the target.
    torch.testing.assert_close(found.mean((2, 3)), means)
    torch.testing.assert_close(found.var((2, 3), correction=0), variances, rtol=1e-5, atol=1e-6)


def test_a_flat_channel_moves_and_stays_finite():
    maps = torch.zeros(1, 1, 4, 4, requires_grad=True)
    found = drift(maps, torch.tensor([[2.0]]), torch.tensor([[3.0]]), 0.5)
    found.sum().backward()
    assert torch.equal(found, torch.ones(1, 1, 4, 4)) and torch.isfinite(maps.grad).all()


@pytest.mark.parametrize("layer", [1, 2])
def test_logits_are_those_of_the_drifted_map_with_the_mean_style_of_the_target_s_class(layer):
    network = ConvNet(2, 3, 8, width=4, depth=2).eval()
    reinitialize(network, 1)
    chance = torch.Generator().manual_seed(2)
    images = torch.randn(4, 3, 8, 8, generator=chance)
    target = {0: torch.randn(2, 3, 8, 8, generator=chance), 1: torch.randn(3, 3, 8, 8, generator=chance)}
    outputs = torch.tensor([1, 0, 0, 1])
    found = StyleDrift(network, target, 0.7, layer).logits("float32", images, outputs)
    for image, output, logits in zip(images, outputs.tolist(), found):
        styles = []
        for other in target[output]:
            maps = network.features(other[None])[1][layer - 1][0]
            styles.append((maps.mean((1, 2)), maps.var((1, 2), correction=0)))
        means, variances = (sum(values) / len(values) for values in zip(*styles))
        maps = image[None]
        for number, block in enumerate(network.blocks, start=1):
            maps = block.activation(block.norm(block.conv(maps)))
            if number == layer:
                maps = drift(maps, means[None], variances[None], 0.7)
            maps = block.pool(maps)
        torch.testing.assert_close(logits, network.classifier(maps.flatten(1))[0], rtol=1e-4, atol=1e-5)
    assert not network.blocks[layer - 1].activation._forward_hooks


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    images = {label: data.normalization.apply(data.train.class_images(label)[:10]) for label in (1, 4, 8)}
    return data, images


def test_without_drift_it_is_the_plain_training_to_the_bit(digits):
    data, images = digits
    (row,) = accuracy_under_drift(
        images, images, data.test, data.normalization, SMALL, (0.0,), networks=1, seed=5
    ).itertuples()
    network = SMALL.build(3, 1, 32)
    reinitialize(network, key_seed(5, "drift", "weights", 0))
    outputs = torch.arange(3).repeat_interleave(10)
    train(network, torch.cat(list(images.values())), outputs, SMALL, (5, "drift", 0))
    part = data.test.of_classes([1, 4, 8])
    placed = ImageSet(part.images, torch.searchsorted(torch.tensor([1, 4, 8]), part.labels))
    assert row.accuracy == accuracy(network, placed, data.normalization, torch.device("cpu"))


def test_drifted_to_a_style_without_any_contrast_nothing_can_be_learned(digits):
    data, images = digits
    flat = {label: torch.zeros(2, 1, 32, 32) for label in images}
    settings = TrainingSettings(width=8, depth=1, updates=60, batch_size=16, lr=0.05)
    gone = []
    rows = accuracy_under_drift(
        images, flat, data.test, data.normalization, settings, (0.0, 1.0), networks=2,
        progress=lambda done, total: gone.append((done, total)),
    )  # fmt: skip
    means = rows.groupby("gamma").accuracy.mean()
    assert len(rows) == 4 and gone == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert means[0.0] > 70 and means[1.0] < 55


def test_what_cannot_be_is_said(digits):
    data, images = digits
    network = ConvNet(3, 1, 32, width=4, depth=2)
    with pytest.raises(ValueError, match="gamma must be within"):
        StyleDrift(network, images, 1.5)
    with pytest.raises(ValueError, match="layer must be within 1 and 2, got 3"):
        StyleDrift(network, images, 0.5, 3)
    with pytest.raises(ValueError, match=r"towards must have the classes \[1, 4, 8\], got \[1\]"):
        accuracy_under_drift(images, {1: images[1]}, data.test, data.normalization, SMALL)
    other = TrainingSettings(network="mlp", updates=1)
    with pytest.raises(ValueError, match="network must be a ConvNet, .* got mlp"):
        accuracy_under_drift(images, images, data.test, data.normalization, other)
