"""How networks are trained under each protocol, and CutMix against a slow reference."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from clreplay.benchmark.protocols import AUTHORS, Training, search_trainings, training_of
from clreplay.data import Normalization
from clreplay.networks import ConvNet, reinitialize
from clreplay.recipes.recipe import PRESETS, recipe_names, training_settings
from clreplay.training.cutmix import CutMixSettings, batches, cut_and_mix, train_with_cutmix
from clreplay.training.loop import train

NORMALIZATION = Normalization((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
PLAIN = CutMixSettings(width=4, depth=2, updates=12, batch_size=8, lr=0.05)


# ---------------------------------------------------------------- protocols


@pytest.mark.parametrize("preset", PRESETS)
def test_the_common_protocol_is_the_learner_s_recipe_for_every_method(preset):
    for recipe in recipe_names():
        assert training_of("common", recipe, "ConvNet", preset) == Training("dm", training_settings(preset))


def test_all_real_images_have_a_length_of_their_own():
    paper = training_of("common", "whole", "ConvNet", "paper")
    assert paper == Training("dm", replace(training_settings("paper"), epochs=200))
    assert training_of("authors", "whole", "ConvNet", "paper") == paper
    assert training_of("common", "whole", "ConvNet", "cpu").settings.updates == 2000
    assert training_of("common", "whole", "ConvNet", "paper", {"epochs": 7}).settings.epochs == 7


def test_networks_without_a_width_keep_its_default_under_small_presets():
    settings = training_of("common", "dm", "ResNet18", "smoke").settings
    assert (settings.network, settings.width) == ("resnet18", 128)
    assert training_of("common", "dm", "ConvNet", "smoke").settings.width == 16


@pytest.mark.parametrize(
    ("recipe", "epochs", "batch", "augments"),
    [
        ("random", 300, 256, False),
        ("herding", 300, 256, False),
        ("forgetting", 300, 256, False),
        ("dc", 300, 256, False),
        ("dsa", 1000, 256, True),
        ("dm", 1000, 256, True),
        ("ddm", 1000, 256, True),
        ("cafe", 1000, 256, True),
        ("idm", 1000, 256, True),
        ("datadam", 1800, 64, True),
        ("datadam+sm", 1800, 64, True),
    ],
)
def test_authors_evaluate_as_their_papers_and_codes_say(recipe, epochs, batch, augments):
    training = training_of("authors", recipe, "ConvNet", "paper")
    s = training.settings
    assert training.loop == "dm"
    assert (s.epochs, s.batch_size, s.augment is not None) == (epochs, batch, augments)
    assert s.norm == ("batch" if recipe.startswith("datadam") else "instance")
    assert training_of("authors", recipe, "ResNet18", "paper").settings.network == "resnet18"  # its norm is in its name


def test_authors_lengths_are_scaled_where_a_preset_counts_updates():
    assert training_of("authors", "dc", "ConvNet", "cpu").settings.updates == 90
    assert training_of("authors", "datadam", "ConvNet", "cpu").settings.updates == 540
    assert training_of("authors", "dm", "ConvNet", "cpu") == training_of("common", "dm", "ConvNet", "cpu")
    assert set(AUTHORS) <= set(recipe_names())


def test_dd_s_own_evaluation_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="steps and step sizes that were learned"):
        training_of("authors", "dd", "ConvNet", "paper")


def test_idc_s_evaluation_has_idc_s_numbers_for_everybody():
    training = training_of("idc", "ddm", "ConvNet", "paper")
    assert training == Training("cutmix", CutMixSettings())
    s = training.settings
    assert (s.epochs, s.batch_size, s.lr, s.momentum, s.weight_decay) == (1000, 64, 0.01, 0.9, 5e-4)
    assert (s.lr_drop, s.mix, s.augment) == (0.2, 0.5, "color_crop_flip_scale_rotate")
    assert s.epochs_for(100) == 1000 and s.drops_after(100) == {665, 832}
    assert training_of("authors", "dance", "ConvNet", "paper") == training
    small = training_of("idc", "ddm", "ConvNet", "cpu", {"mix": 0.25}).settings
    assert (small.width, small.updates, small.mix, small.batch_size) == (32, 300, 0.25, 64)


def test_a_training_survives_being_plain_values():
    for training in (training_of("common", "dm", "VGG11", "cpu"), training_of("idc", "dm", "ConvNet", "smoke")):
        assert Training.from_plain(training.as_plain()) == training


def test_a_search_trains_both_ways_for_200_epochs():
    options = {"width": 64, "depth": 2, "norm": "batch", "activation": "sigmoid", "pooling": "max"}
    condensed, real = search_trainings(options, "paper")
    assert condensed == real
    assert condensed.settings == replace(training_settings("paper"), epochs=200, **options)
    condensed, real = search_trainings(options, "cpu")
    assert (condensed.settings.updates, real.settings.updates, condensed.settings.width) == (60, 400, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"mix": 1.5}, "mix must be within"), ({"augment": "crop+flip"}, "augment must join operators with '_'")],
)
def test_wrong_cutmix_settings_are_told(change, message):
    with pytest.raises(ValueError, match=message):
        CutMixSettings(**change)


# ---------------------------------------------------------------- CutMix


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
    from clreplay.training import cutmix

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


def network(seed=0):
    with torch.random.fork_rng():
        made = ConvNet(3, image_size=8, width=4, depth=2)
    reinitialize(made, seed)
    return made


def trained(images, labels, settings, key=(0,), normalization=None, train_it=train_with_cutmix):
    made = network()
    train_it(made, images, labels, settings, key, normalization)
    return torch.cat([parameter.detach().flatten() for parameter in made.parameters()])


def test_without_mixing_augmentation_and_drops_it_is_plain_training(pixels):
    """The same order cannot be expected of another chance: one batch an epoch has none."""
    images, labels = pixels(each=4)
    images = NORMALIZATION.apply(images).double()
    settings = replace(PLAIN, augment=None, mix=0.0, lr_drop=1.0, batch_size=64, updates=6)
    ours = network().double()
    theirs = network().double()
    train_with_cutmix(ours, images, labels, settings, (0,))
    train(theirs, images, labels, settings, (0,))
    for one, other in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_one_mixed_step_weighs_both_labels_and_the_learning_rate_drops_twice(pixels):
    images, labels = pixels(each=4)
    images = NORMALIZATION.apply(images).double()
    settings = replace(PLAIN, augment=None, mix=1.0, batch_size=64, updates=6, momentum=0.5, weight_decay=0.01)
    ours, slow = network().double(), network().double()
    train_with_cutmix(ours, images, labels, settings, (0,))
    velocity = [torch.zeros_like(p) for p in slow.parameters()]
    for epoch, lr in enumerate([0.05, 0.05, 0.05, 0.05, 0.01, 0.002]):
        ((batch, targets, others, share),) = batches(images, labels, settings, (0, "epoch", epoch), None)
        log = slow(batch).log_softmax(1)
        rows = torch.arange(len(batch))
        loss = -(share * log[rows, targets] + (1 - share) * log[rows, others]).mean()
        gradients = torch.autograd.grad(loss, list(slow.parameters()))
        with torch.no_grad():
            for i, (parameter, gradient) in enumerate(zip(slow.parameters(), gradients)):
                velocity[i] = 0.5 * velocity[i] + gradient + 0.01 * parameter
                parameter -= lr * velocity[i]
    for one, other in zip(ours.parameters(), slow.parameters()):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_chance_is_keyed_and_pixel_codes_do_as_well(pixels, global_chance_untouched):
    codes, labels = pixels()
    images = NORMALIZATION.apply(codes)
    with global_chance_untouched():
        first = trained(images, labels, PLAIN)
    torch.rand(7)
    assert torch.equal(first, trained(images, labels, PLAIN))
    assert torch.equal(first, trained(codes, labels, PLAIN, normalization=NORMALIZATION))
    assert not torch.equal(first, trained(images, labels, PLAIN, key=(1,)))


def test_a_diverged_training_is_told(pixels):
    images, labels = pixels()
    with pytest.raises(FloatingPointError, match="training diverged .* lower lr"):
        trained(NORMALIZATION.apply(images), labels, replace(PLAIN, lr=1e30, augment=None))


def test_settings_name_everything_that_decides():
    assert set(asdict(CutMixSettings())) >= set(asdict(training_settings())) | {"mix"}
