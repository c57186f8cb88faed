"""Training together gives what training one after another gives."""

import copy

import pytest
import torch
from torch import nn

from clreplay.data import ImageSet, Normalization
from clreplay.networks import ConvNet, reinitialize
from clreplay.training import stacked as training_together
from clreplay.training.evaluate import accuracies_together, accuracy
from clreplay.training.loop import train
from clreplay.training.settings import TrainingSettings
from clreplay.training.stacked import should_stack, train_together

NORMALIZATION = Normalization((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
CPU = torch.device("cpu")
EXACT = "color_crop_cutout_flip"  # scale and rotate work in float32 only
TINY = TrainingSettings(width=4, depth=2, updates=6, batch_size=16, lr=0.05)


def networks_of(count=3, dtype=torch.float32, **options):
    networks = [ConvNet(3, image_size=8, **{"width": 4, "depth": 2, **options}) for _ in range(count)]
    for seed, network in enumerate(networks):
        reinitialize(network, seed)
    return [network.to(dtype) for network in networks]


def keys_of(count=3):
    return [(seed, "train", 0) for seed in range(count)]


def state(networks):
    return [{name: tensor.clone() for name, tensor in network.state_dict().items()} for network in networks]


def both_ways(images, labels, settings, normalization=None, count=3, dtype=torch.float32, **options):
    """States after training one after another, and after training together."""
    alone, together = (networks_of(count, dtype, **options) for _ in range(2))
    for network, key in zip(alone, keys_of(count)):
        train(network, images, labels, settings, key, normalization)
    train_together(together, images, labels, settings, keys_of(count), normalization)
    return state(alone), state(together)


# ---------------------------------------------------------------- one after another and together


@pytest.mark.parametrize(
    "options",
    [
        {"augment": EXACT},
        {"augment": None},
        {"augment": "color+crop+flip"},
        {"augment": EXACT, "updates": None, "epochs": 4},
        {"augment": EXACT, "lr_drop": 1.0, "momentum": 0.0},
        {"augment": EXACT, "batch_size": 256},
    ],
    ids=str,
)
def test_weights_equal_those_of_training_one_after_another(options, pixels):
    """Several epochs with the drop in the middle; 36 images in batches of 16 leave 4 for the last."""
    images, labels = pixels()
    images = NORMALIZATION.apply(images).double()
    settings = TrainingSettings(**{"updates": 14, "batch_size": 16, "lr": 0.05, "weight_decay": 0.01, **options})
    before = state(networks_of(dtype=torch.float64))
    alone, together = both_ways(images, labels, settings, dtype=torch.float64)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)
    name = "classifier.weight"
    moved = min((new[name] - old[name]).abs().max() for new, old in zip(together, before))
    apart = min((together[i][name] - together[j][name]).abs().max() for i, j in ((0, 1), (0, 2), (1, 2)))
    assert moved > 0.01 and apart > 0.01


def test_pixel_codes_and_every_operator_in_single_precision(pixels):
    alone, together = both_ways(*pixels(), TINY, NORMALIZATION)
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [{"norm": norm} for norm in ("batch", "layer", "group", "none")]
    + [{"pooling": "max"}, {"pooling": "none"}, {"activation": "swish"}, {"activation": "leakyrelu"}],
    ids=str,
)
def test_every_network_of_the_house_can_be_stacked(options, pixels):
    """With batch norm its running statistics and its count of batches are in the state too."""
    images, labels = pixels()
    settings = TrainingSettings(updates=8, batch_size=16, lr=0.02, augment=EXACT)
    images = NORMALIZATION.apply(images).double()
    alone, together = both_ways(images, labels, settings, dtype=torch.float64, **options)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-9)


def test_one_network_alone_is_a_stack_too(pixels):
    images, labels = pixels()
    images = NORMALIZATION.apply(images).double()
    settings = TrainingSettings(updates=8, batch_size=16, lr=0.05, augment=EXACT)
    alone, together = both_ways(images, labels, settings, count=1, dtype=torch.float64)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)


def test_batches_are_bitwise_those_of_every_network_alone(pixels):
    images, labels = pixels()
    keys = keys_of(9)
    batches = training_together._Batches(images, labels, TINY, keys, NORMALIZATION)
    for epoch in range(3):
        stacked = list(batches.epoch(epoch))
        for i, key in enumerate(keys):
            source = training_together.BatchSource(images, labels, 16, TINY.augment, key, NORMALIZATION)
            for (got, got_labels), (wanted, wanted_labels) in zip(stacked, source.epoch(epoch), strict=True):
                assert torch.equal(got[i], wanted) and torch.equal(got_labels[i], wanted_labels)


def test_global_chance_and_order_of_networks_do_not_matter(pixels, global_chance_untouched):
    images, labels = pixels()
    images = NORMALIZATION.apply(images).double()
    settings = TrainingSettings(updates=6, batch_size=16, lr=0.05, augment=EXACT)
    one, other = networks_of(dtype=torch.float64), networks_of(dtype=torch.float64)
    with global_chance_untouched():
        train_together(one, images, labels, settings, keys_of())
    torch.rand(7)
    train_together(other[::-1], images, labels, settings, keys_of()[::-1])
    torch.testing.assert_close(state(one), state(other), rtol=0, atol=1e-10)


def test_networks_keep_their_parameters_and_end_in_train_mode(pixels):
    images, labels = pixels()
    networks = networks_of(norm="batch")
    parameters = [list(network.parameters()) for network in networks]
    networks[1].eval()
    train_together(networks, images, labels, TINY, keys_of(), NORMALIZATION)
    assert all(module.training for network in networks for module in network.modules())
    assert all(a is b for network, kept in zip(networks, parameters) for a, b in zip(network.parameters(), kept))


def test_frozen_weights_stay(pixels):
    images, labels = pixels()
    networks = networks_of()
    for network in networks:
        network.blocks[0].conv.weight.requires_grad_(False)
    before = state(networks)
    train_together(networks, images, labels, TINY, keys_of(), NORMALIZATION)
    for old, new in zip(before, state(networks)):
        assert torch.equal(old["blocks.0.conv.weight"], new["blocks.0.conv.weight"])
        assert not torch.equal(old["blocks.1.conv.weight"], new["blocks.1.conv.weight"])


# ---------------------------------------------------------------- stacks


@pytest.mark.parametrize("max_together", [1, 2, 3])
def test_smaller_stacks_give_the_same_weights(max_together, pixels):
    images, labels = pixels()
    images = NORMALIZATION.apply(images).double()
    settings = TrainingSettings(updates=6, batch_size=16, lr=0.05, augment=EXACT)
    some, all_at_once = networks_of(5, torch.float64), networks_of(5, torch.float64)
    train_together(some, images, labels, settings, keys_of(5), max_together=max_together)
    train_together(all_at_once, images, labels, settings, keys_of(5))
    torch.testing.assert_close(state(some), state(all_at_once), rtol=0, atol=1e-10)


def test_progress_counts_the_epochs_of_all_networks(pixels):
    told, (images, labels) = [], pixels()
    networks = networks_of()
    train_together(networks, images, labels, TINY, keys_of(), NORMALIZATION, lambda *x: told.append(x), max_together=2)
    assert told == [(2, 6), (4, 6), (5, 6), (6, 6)]


def full_above(limit, monkeypatch):
    """A device on which a stack of more than ``limit`` networks runs out of memory in its first epoch."""
    trained, real = [], training_together._train_stack

    def with_limit(networks, *rest):
        if len(networks) > limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        trained.append(len(networks))
        return real(networks, *rest)

    monkeypatch.setattr(training_together, "_train_stack", with_limit)
    return trained


def test_stacks_are_halved_until_they_fit(pixels, monkeypatch):
    images, labels = pixels()
    expected = networks_of(5)
    train_together(expected, images, labels, TINY, keys_of(5), NORMALIZATION)
    networks, trained = networks_of(5), full_above(2, monkeypatch)
    train_together(networks, images, labels, TINY, keys_of(5), NORMALIZATION)
    assert trained == [2, 2, 1]
    torch.testing.assert_close(state(networks), state(expected), rtol=1e-3, atol=1e-4)


def test_a_network_that_does_not_fit_alone_is_an_error(pixels, monkeypatch):
    full_above(0, monkeypatch)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        train_together(networks_of(), *pixels(), TINY, keys_of(), NORMALIZATION)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("max_together", [1, 20])
def test_the_network_that_diverged_is_named_and_the_others_before_it_are_trained(max_together, pixels):
    images, labels = pixels()
    expected, networks = networks_of(), networks_of()
    train_together(expected, images, labels, TINY, keys_of(), NORMALIZATION)
    with torch.no_grad():
        networks[1].classifier.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"training of network 1 diverged \(loss nan\); lower lr \(now 0.05"):
        train_together(networks, images, labels, TINY, keys_of(), NORMALIZATION, max_together=max_together)
    torch.testing.assert_close(state(networks[:1]), state(expected[:1]), rtol=1e-3, atol=1e-4)


def test_a_rate_that_is_too_high_diverges(pixels):
    settings = TrainingSettings(updates=30, lr=1e30, augment=None)
    with pytest.raises(FloatingPointError, match=r"training of network 0 diverged .*lower lr \(now 1e\+30\)"):
        train_together(networks_of(), *pixels(), settings, keys_of(), NORMALIZATION)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 4}, r"blocks.0.conv is Conv2d\(3, 4, .* in network 3 and Conv2d\(3, 8, .* network 0; train it on"),
        ({"depth": 1}, "blocks.1 is nothing in network 3"),
        ({"norm": "group"}, r"blocks.0.norm is GroupNorm\(4, 8.* in network 3 and GroupNorm\(8, 8"),
        ({"activation": "swish"}, r"blocks.0.activation is SiLU\(\) in network 3 and ReLU\(\) in network 0"),
        ({"pooling": "max"}, r"blocks.0.pool is MaxPool2d"),
        ({"dtype": torch.float64}, r"blocks.0.conv.weight is .*torch.float64 on cpu, learned in network 3"),
    ],
    ids=str,
)
def test_networks_of_another_architecture_are_refused(options, message, pixels):
    networks = [*networks_of(3, width=8), *networks_of(1, **{"width": 8, **options})]
    before = state(networks)
    with pytest.raises(ValueError, match=message):
        train_together(networks, *pixels(), TINY, keys_of(4), NORMALIZATION)
    with pytest.raises(ValueError, match=message):
        accuracies_together(networks, ImageSet(*pixels()), NORMALIZATION, CPU)
    torch.testing.assert_close(state(networks), before, rtol=0, atol=0)


def test_networks_frozen_differently_are_refused(pixels):
    networks = networks_of()
    networks[2].classifier.bias.requires_grad_(False)
    with pytest.raises(ValueError, match="classifier.bias is .* in network 2 and .*, learned in network 0"):
        train_together(networks, *pixels(), TINY, keys_of(), NORMALIZATION)


def test_wrong_numbers_are_refused(pixels):
    networks = networks_of()
    with pytest.raises(ValueError, match="keys must be one a network, got 2 keys for 3 networks"):
        train_together(networks, *pixels(), TINY, keys_of(2), NORMALIZATION)
    with pytest.raises(ValueError, match="max_together must be at least 1, got 0"):
        train_together(networks, *pixels(), TINY, keys_of(), NORMALIZATION, max_together=0)
    with pytest.raises(ValueError, match="must not share weights, but 0 and 1 do"):
        train_together([networks[0], networks[0]], *pixels(), TINY, keys_of(2), NORMALIZATION)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(192, momentum=None)], ids=str)
def test_layers_that_cannot_be_stacked_are_refused(layer, pixels):
    networks = [nn.Sequential(nn.Flatten(), copy.deepcopy(layer), nn.Linear(192, 3)) for _ in range(2)]
    with pytest.raises(ValueError, match=r"networks with 1 = .* cannot be trained together; train them one after"):
        train_together(networks, *pixels(), TINY, keys_of(2), NORMALIZATION)


# ---------------------------------------------------------------- accuracy and choice


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


def test_accuracies_leave_modes_and_statistics_as_they_were(pixels):
    test, networks = ImageSet(*pixels()), networks_of(norm="batch")
    networks[0].eval()
    networks[1].blocks[0].norm.eval()
    modes = [module.training for network in networks for module in network.modules()]
    before = state(networks)
    accuracies_together(networks, test, NORMALIZATION, CPU)
    assert [module.training for network in networks for module in network.modules()] == modes
    torch.testing.assert_close(state(networks), before, rtol=0, atol=0)


def test_nothing_to_train_is_nothing_done(pixels):
    train_together([], *pixels(), TINY, [], NORMALIZATION)
    assert accuracies_together([], ImageSet(*pixels()), NORMALIZATION, CPU) == []


def test_it_is_worth_it_on_a_gpu_with_several_networks():
    assert should_stack("cuda", 2) and should_stack(torch.device("cuda:1"), 20)
    assert not should_stack("cuda", 1) and not should_stack(CPU, 20)
