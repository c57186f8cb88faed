"""Training together gives what training one after another gives."""

import copy
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from training_helpers import (
    CPU,
    NORMALIZATION,
    TINY,
    AllSettings,
    assert_same,
    keys_of,
    networks_of,
    states,
)

from clreplay.data import ImageSet
from clreplay.networks.settings import NetworkSettings
from clreplay.training import stacked
from clreplay.training.evaluate import accuracies_together
from clreplay.training.loop import train
from clreplay.training.network_stack import NetworkStack
from clreplay.training.settings import TrainingSettings
from clreplay.training.stacked import should_stack, train_together

EXACT = "color_crop_cutout_flip"  # scale and rotate work in float32 only
EXACT_TINY = replace(TINY, augment=EXACT)


@pytest.fixture(scope="module")
def exact():
    """36 images of three classes and their labels, in double precision."""
    images = torch.randn(36, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return images, torch.arange(36) % 3


def both_ways(images, labels, settings, normalization=None, count=3, dtype=torch.float32, **options):
    """States after training one after another, and after training together."""
    alone, together = (networks_of(count, dtype, **options) for _ in range(2))
    for network, key in zip(alone, keys_of(count)):
        train(network, images, labels, settings, key, normalization)
    train_together(together, images, labels, settings, keys_of(count), normalization)
    return states(alone), states(together)


# ---------------------------------------------------------------- one after another and together

VARIED = {
    "epochs": st.integers(1, 4),
    "updates": st.none() | st.integers(1, 14),
    "lr": st.sampled_from([0.01, 0.05]),
    "momentum": st.sampled_from([0.0, 0.5, 0.9]),
    "weight_decay": st.sampled_from([0.0, 0.01]),
    "lr_drop": st.sampled_from([0.0, 0.1, 1.0]),
    "batch_size": st.sampled_from([16, 36, 256]),  # 36 images leave 4 for the last batch, or are one batch
    "augment": st.sampled_from([EXACT, None, "color+crop+flip"]),
    "nesterov": st.booleans(),
    "drop_resets_momentum": st.booleans(),
    "precision": st.sampled_from(["float32", "tf32"]),  # bfloat16 below: nothing of it is exact
}


def test_every_setting_of_training_is_varied():
    own = {field.name for field in fields(AllSettings)} - {field.name for field in fields(NetworkSettings)}
    assert own == set(VARIED)
    assert own >= {name for name in TrainingSettings.__annotations__}


@given(st.fixed_dictionaries(VARIED), st.sampled_from(["instance", "batch"]))
def test_weights_equal_those_of_training_one_after_another(exact, options, norm):
    settings = AllSettings(**{**options, "nesterov": options["nesterov"] and options["momentum"] > 0})
    alone, together = both_ways(*exact, settings, dtype=torch.float64, norm=norm)
    assert_same(together, alone, 1e-9)


def test_networks_move_and_move_apart(exact):
    networks, before = networks_of(dtype=torch.float64), networks_of(dtype=torch.float64)
    train_together(networks, *exact, EXACT_TINY, keys_of())
    name = "classifier.weight"
    new, old = ([one[name] for one in states(some)] for some in (networks, before))
    assert min((a - b).abs().max() for a, b in zip(new, old)) > 0.01
    assert min((new[i] - new[j]).abs().max() for i, j in ((0, 1), (0, 2), (1, 2))) > 0.01


def test_pixel_codes_and_every_operator_in_single_precision(pixels):
    alone, together = both_ways(*pixels(), TINY, NORMALIZATION)
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)


def test_bfloat16_is_that_of_a_network_alone(pixels):
    settings = replace(TINY, precision="bfloat16")
    alone, together = both_ways(*pixels(), settings, NORMALIZATION)
    single, _ = both_ways(*pixels(), TINY, NORMALIZATION)
    name = "classifier.weight"
    for one, other, plain in zip(alone, together, single):
        assert one[name].dtype == other[name].dtype == torch.float32
        assert (one[name] - other[name]).norm() < 0.02 * one[name].norm()
        assert not torch.equal(other[name], plain[name])


@pytest.mark.parametrize(
    "options",
    [{"norm": norm} for norm in ("batch", "layer", "group", "none")]
    + [{"pooling": "max"}, {"pooling": "none"}, {"activation": "swish"}, {"activation": "leakyrelu"}],
    ids=str,
)
def test_every_kind_of_layer_can_be_stacked(options, exact):
    """With batch norm its running statistics and its count of batches are in the state too."""
    settings = TrainingSettings(updates=8, batch_size=16, lr=0.02, augment=EXACT)
    alone, together = both_ways(*exact, settings, dtype=torch.float64, **options)
    assert_same(together, alone, 1e-9)


def test_one_network_alone_is_a_stack_too(exact):
    alone, together = both_ways(*exact, EXACT_TINY, count=1, dtype=torch.float64)
    assert_same(together, alone, 1e-10)


def test_global_chance_and_order_of_networks_do_not_matter(exact, global_chance_untouched):
    one, other = networks_of(dtype=torch.float64), networks_of(dtype=torch.float64)
    with global_chance_untouched():
        train_together(one, *exact, EXACT_TINY, keys_of())
    torch.rand(7)
    train_together(other[::-1], *exact, EXACT_TINY, keys_of()[::-1])
    assert_same(states(one), states(other), 1e-10)


def test_networks_keep_their_parameters_and_end_in_train_mode(pixels):
    networks = networks_of(norm="batch")
    parameters = [list(network.parameters()) for network in networks]
    networks[1].eval()
    train_together(networks, *pixels(), TINY, keys_of(), NORMALIZATION)
    assert all(module.training for network in networks for module in network.modules())
    assert all(a is b for network, same in zip(networks, parameters) for a, b in zip(network.parameters(), same))


def test_frozen_weights_stay(pixels):
    networks = networks_of()
    for network in networks:
        network.blocks[0].conv.weight.requires_grad_(False)
    before = states(networks)
    train_together(networks, *pixels(), TINY, keys_of(), NORMALIZATION)
    for old, new in zip(before, states(networks)):
        assert torch.equal(old["blocks.0.conv.weight"], new["blocks.0.conv.weight"])
        assert not torch.equal(old["blocks.1.conv.weight"], new["blocks.1.conv.weight"])


# ---------------------------------------------------------------- stacks


@pytest.mark.parametrize("max_together", [1, 2, 3])
def test_smaller_stacks_give_the_same_weights(max_together, exact):
    some, all_at_once = networks_of(5, torch.float64), networks_of(5, torch.float64)
    train_together(some, *exact, EXACT_TINY, keys_of(5), max_together=max_together)
    train_together(all_at_once, *exact, EXACT_TINY, keys_of(5))
    assert_same(states(some), states(all_at_once), 1e-10)


def test_progress_counts_the_epochs_of_all_networks(pixels):
    reports, report = [], lambda *counts: reports.append(counts)
    train_together(networks_of(), *pixels(), TINY, keys_of(), NORMALIZATION, report, max_together=2)
    assert reports == [(2, 6), (4, 6), (5, 6), (6, 6)]


def full_above(limit, monkeypatch):
    """A device on which a stack of more than ``limit`` networks runs out of memory."""
    trained = []

    def stack(networks):
        if len(networks) > limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        trained.append(len(networks))
        return NetworkStack(networks)

    monkeypatch.setattr(stacked, "NetworkStack", stack)
    return trained


def test_stacks_are_halved_until_they_fit(pixels, monkeypatch):
    expected = networks_of(5)
    train_together(expected, *pixels(), TINY, keys_of(5), NORMALIZATION)
    networks, trained = networks_of(5), full_above(2, monkeypatch)
    train_together(networks, *pixels(), TINY, keys_of(5), NORMALIZATION)
    assert trained == [2, 2, 1]
    torch.testing.assert_close(states(networks), states(expected), rtol=1e-3, atol=1e-4)


def test_a_network_that_does_not_fit_alone_is_an_error(pixels, monkeypatch):
    full_above(0, monkeypatch)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        train_together(networks_of(), *pixels(), TINY, keys_of(), NORMALIZATION)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("max_together", [1, 20])
def test_the_network_that_diverged_is_named_and_the_others_before_it_are_trained(max_together, pixels):
    expected, networks = networks_of(), networks_of()
    train_together(expected, *pixels(), TINY, keys_of(), NORMALIZATION)
    with torch.no_grad():
        networks[1].classifier.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"training of network 1 diverged \(loss nan\); lower lr \(now 0.05"):
        train_together(networks, *pixels(), TINY, keys_of(), NORMALIZATION, max_together=max_together)
    torch.testing.assert_close(states(networks[:1]), states(expected[:1]), rtol=1e-3, atol=1e-4)


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
    before = states(networks)
    with pytest.raises(ValueError, match=message):
        train_together(networks, *pixels(), TINY, keys_of(4), NORMALIZATION)
    with pytest.raises(ValueError, match=message):
        accuracies_together(networks, ImageSet(*pixels()), NORMALIZATION, CPU)
    assert_same(states(networks), before)


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


# ---------------------------------------------------------------- when


def test_no_network_is_no_work(pixels):
    train_together([], *pixels(), TINY, [], NORMALIZATION)


def test_several_networks_are_stacked_on_a_gpu_only():
    assert should_stack("cuda", 2) and should_stack(torch.device("cuda:1"), 20)
    assert not should_stack("cuda", 1) and not should_stack(CPU, 20)
