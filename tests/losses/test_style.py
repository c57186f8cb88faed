"""Moments and correlations of feature maps against loops over images."""

import math
from dataclasses import replace

import pytest
import slow_losses as slow
import torch
from slow_losses import REAL, SYNTHETIC, assert_equals_slow, fast_loss, features

from clreplay.losses import style
from clreplay.losses.style import CorrelationMatching, MomentMatching, StyleMatching, channel_moments, gram
from clreplay.networks.base import TAP_POINTS

# ---------------------------------------------------------------- moments


@pytest.mark.parametrize("layers", [None, (0,), (1,), (0, 1)], ids=str)
@pytest.mark.parametrize("channels", ["mean", "sum"])
@pytest.mark.parametrize("spread", ["std", "biased_std", "var"])
@pytest.mark.parametrize("sigma_of", ["image", "mean_map"])
@pytest.mark.parametrize(("relative", "over_layers"), [(False, "sum"), (True, "mean")])
def test_moment_matching_equals_eq_4(sigma_of, spread, channels, layers, relative, over_layers):
    how = {"sigma_of": sigma_of, "spread": spread, "channels": channels, "layers": layers}
    how.update(relative=relative, over_layers=over_layers)
    term = MomentMatching(1.0, **how)
    assert_equals_slow(term, slow.moment_matching, features(REAL), features(SYNTHETIC, seed=1), **how)


def test_moments_of_one_image_are_the_same_in_both_readings():
    maps = features(1).taps[0]
    for one, other in zip(channel_moments(maps, "image"), channel_moments(maps, "mean_map")):
        torch.testing.assert_close(one, other)


def test_the_spread_of_the_mean_map_is_smaller_than_the_mean_spread():
    maps = features(64).taps[0]
    assert (channel_moments(maps, "mean_map")[1] < 0.5 * channel_moments(maps, "image")[1]).all()


# ---------------------------------------------------------------- correlation


@pytest.mark.parametrize("layers", [None, (0,), (1,)], ids=str)
@pytest.mark.parametrize(("quarter", "over_layers"), [(False, "sum"), (True, "sum"), (False, "mean")])
def test_correlation_matching_equals_eq_6(quarter, over_layers, layers):
    how = {"quarter": quarter, "layers": layers, "over_layers": over_layers}
    term = CorrelationMatching(1.0, **how)
    assert_equals_slow(term, slow.correlation_matching, features(REAL), features(SYNTHETIC, seed=1), **how)


@pytest.mark.parametrize("way", [gram, style._gram_by_image, style._gram_tall])  # the last is a GPU's
def test_the_gram_matrix_is_that_of_the_formula_and_symmetric(way):
    maps = features(REAL).taps[0]
    found = way(maps)
    torch.testing.assert_close(found, torch.stack([slow.gram(one) for one in maps]))
    torch.testing.assert_close(found, found.transpose(1, 2))


@pytest.mark.parametrize(
    "term", [MomentMatching(layers=(2,)), CorrelationMatching(layers=(0, 2)), MomentMatching(layers=(-1,))]
)
def test_a_layer_the_network_lacks_is_an_error(term):
    with pytest.raises(ValueError, match=r"layers must be within 0\.\.1 for this network, got (2|-1)"):
        term.statistics(features(2))


def test_maps_of_a_single_pixel_have_no_spread():
    mean, sigma = channel_moments(torch.full((1, 2, 3, 1, 1), 2.0, requires_grad=True))
    torch.testing.assert_close(mean, torch.full((1, 3), 2.0))
    torch.testing.assert_close(sigma, torch.full((1, 3), math.sqrt(1e-5)))


@pytest.mark.parametrize("tap", TAP_POINTS)
def test_maps_are_read_where_the_term_says(tap):
    real, synthetic = features(REAL), features(SYNTHETIC, seed=1)
    others = [features(REAL, seed=2), features(SYNTHETIC, seed=3)]
    if tap == "act":
        mixed = [one._replace(elsewhere={}) for one in (real, synthetic)]
    else:  # the maps of the one after the activation, those of the other where the term reads
        pairs = zip(others, (real, synthetic))
        mixed = [one._replace(elsewhere={tap: (other.taps, None)}) for one, other in pairs]
    for term in StyleMatching(1.0, tap=tap).parts(SYNTHETIC):
        expected = fast_loss(replace(term, tap="act"), real)(synthetic)
        assert torch.equal(fast_loss(term, mixed[0])(mixed[1]), expected)
    with pytest.raises(ValueError, match="tap must be one of conv, norm, act, pool, got 'relu'"):
        StyleMatching(tap="relu")
