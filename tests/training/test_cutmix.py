"""CutMix against a slow reference, and training on mixed batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from slow_training import SlowSGD
from training_helpers import NORMALIZATION, assert_same, network_of, weights

from clreplay.training import cutmix
from clreplay.training.cutmix import CutMixSettings, batches, cut_and_mix, train_with_cutmix
from clreplay.training.loop import train

PLAIN = CutMixSettings(width=4, depth=2, updates=12, batch_size=8, lr=0.05)


def slow_cutmix(images, others, share, row, column):
    """Pixel by pixel: a pixel is the other image's where it lies in the box."""
    n, c, h, w = images.shape
    side = np.sqrt(1 - share)
    reach_h, reach_w = int(h * side) // 2, int(w * side) // 2
    middle = int(row * h), int(column * w)
    mixed, replaced = images.clone(), 0
    for y in range(h):
        for x in range(w):
            if middle[0] - reach_h <= y < middle[0] + reach_h and middle[1] - reach_w <= x < middle[1] + reach_w:
                mixed[:, :, y, x] = others[:, :, y, x]
                replaced += 1
    return mixed, 1 - replaced / (h * w)


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_equals_a_loop_over_pixels(seed):
    chance = torch.Generator().manual_seed(seed)
    images, others = torch.rand(2, 3, 3, 8, 8, generator=chance)
    drawn = torch.rand(3, generator=chance).tolist()
    mixed, share = cut_and_mix(images, others, *drawn)
    expected, expected_share = slow_cutmix(images, others, *drawn)
    assert torch.equal(mixed, expected) and share == pytest.approx(expected_share)


def test_the_corners_of_cutmix():
    images, others = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    assert cut_and_mix(images, others, 0.0, 0.5, 0.5)[1] == 0  # everything is the other image's
    mixed, share = cut_and_mix(images, others, 0.999, 0.5, 0.5)
    assert share == 1 and not mixed.any()
    assert cut_and_mix(images, others, 0.0, 0.0, 0.0)[1] == 0.75  # what stands out of the image is cut off


def test_an_epoch_shows_every_image_once_with_both_labels(pixels):
    images, labels = pixels(each=7)
    images = NORMALIZATION.apply(images)
    settings = replace(PLAIN, augment=None, mix=0.0)
    seen = list(batches(images, labels, settings, (0, "epoch", 0), None))
    assert [len(batch) for batch, *_ in seen] == [8, 8, 5] and {share for *_, share in seen} == {1.0}
    stacked = torch.cat([batch for batch, *_ in seen])
    assert torch.equal(stacked.sum((1, 2, 3)).sort().values, images.sum((1, 2, 3)).sort().values)
    mixed = list(batches(images, labels, replace(settings, mix=1.0), (0, "epoch", 0), None))
    for (plain, targets, others, _), (batch, same, other, share) in zip(seen, mixed):
        assert torch.equal(targets, same) and torch.equal(others, other)
        assert sorted(others.tolist()) == sorted(targets.tolist())  # a permutation of the batch
        moved = (plain != batch).any(1).float().mean((1, 2)).max()
        assert 0 <= share <= 1 and float(moved) <= 1 - share + 1e-6


def test_half_of_the_batches_are_mixed_and_flip_and_color_always_apply(pixels, monkeypatch):
    images, labels = pixels(each=60)
    images, applied = NORMALIZATION.apply(images), []
    noted = {name: lambda x, u, name=name: applied.append(name) or x for name in cutmix.OPERATORS}
    monkeypatch.setattr(cutmix, "OPERATORS", noted)
    shares = [share for e in range(20) for *_, share in batches(images, labels, PLAIN, (0, "epoch", e), None)]
    assert 0.4 < np.mean([share < 1 for share in shares]) < 0.6
    count = len(shares)
    assert applied[0::3] == ["flip"] * count and applied[1::3] == ["color"] * count
    picked = applied[2::3]
    assert set(picked) == {"crop", "scale", "rotate"}
    assert all(0.2 < picked.count(name) / count < 0.47 for name in set(picked))


def trained(images, labels, settings, key=(0,), normalization=None):
    network = network_of()
    train_with_cutmix(network, images, labels, settings, key, normalization)
    return weights(network)


def test_without_mixing_augmentation_and_drops_it_is_plain_training(pixels):
    """The same order cannot be expected of another chance: one batch an epoch has none."""
    images, labels = pixels(each=4)
    images = NORMALIZATION.apply(images).double()
    settings = replace(PLAIN, augment=None, mix=0.0, lr_drop=1.0, batch_size=64, updates=6)
    ours, theirs = (network_of(dtype=torch.float64) for _ in range(2))
    train_with_cutmix(ours, images, labels, settings, (0,))
    train(theirs, images, labels, settings, (0,))
    assert_same(weights(ours), weights(theirs), 1e-10)


def test_one_mixed_step_weighs_both_labels_and_the_learning_rate_drops_twice(pixels):
    images, labels = pixels(each=4)
    images = NORMALIZATION.apply(images).double()
    settings = replace(PLAIN, augment=None, mix=1.0, batch_size=64, updates=6, momentum=0.5, weight_decay=0.01)
    ours, slow = (network_of(dtype=torch.float64) for _ in range(2))
    train_with_cutmix(ours, images, labels, settings, (0,))
    sgd = SlowSGD(slow, 0.05, 0.5, 0.01)
    for epoch, sgd.lr in enumerate([0.05, 0.05, 0.05, 0.05, 0.01, 0.002]):
        ((batch, targets, others, share),) = batches(images, labels, settings, (0, "epoch", epoch), None)
        log = slow(batch).log_softmax(1)
        rows = torch.arange(len(batch))
        sgd.step(-(share * log[rows, targets] + (1 - share) * log[rows, others]).mean())
    assert_same(weights(ours), weights(slow), 1e-10)


def test_chance_is_keyed_and_pixel_codes_do_as_well(pixels, global_chance_untouched):
    codes, labels = pixels()
    images = NORMALIZATION.apply(codes)
    with global_chance_untouched():
        first = trained(images, labels, PLAIN)
    torch.rand(7)
    assert torch.equal(first, trained(images, labels, PLAIN))
    assert torch.equal(first, trained(codes, labels, PLAIN, normalization=NORMALIZATION))
    assert not torch.equal(first, trained(images, labels, PLAIN, key=(1,)))


def test_a_diverged_training_is_an_error(pixels):
    images, labels = pixels()
    with pytest.raises(FloatingPointError, match="training diverged .* lower lr"):
        trained(NORMALIZATION.apply(images), labels, replace(PLAIN, lr=1e30, augment=None))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"mix": 1.5}, "mix must be within"), ({"augment": "crop+flip"}, "augment must join operators with '_'")],
)
def test_wrong_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        CutMixSettings(**change)
