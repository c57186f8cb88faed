"""Spatial attention matching (DataDAM) against a reference image by image, and what must hold for any maps."""

import pytest
import slow_losses as slow
import torch
from hypothesis import given
from hypothesis import strategies as st
from slow_losses import REAL, SYNTHETIC, assert_equals_slow, signed_features

from clreplay.losses.attention import AttentionMatching, attention_maps


@pytest.mark.parametrize("power", [1.0, 2.0, 3.5, 4.0])
@pytest.mark.parametrize("layers", [None, (0,), (2, 0)])
def test_values_and_gradients_equal_the_reference(power, layers):
    term = AttentionMatching(power=power, layers=layers)
    sets = signed_features(REAL), signed_features(SYNTHETIC, seed=1)
    assert_equals_slow(term, slow.attention_matching, *sets, power=power, layers=layers)


def test_the_last_layer_is_left_out_unless_asked_for():
    real, synthetic = signed_features(REAL), signed_features(SYNTHETIC, seed=1)
    other = synthetic._replace(taps=[*synthetic.taps[:-1], synthetic.taps[-1] * 2 + 1])

    def loss(layers, some):
        term = AttentionMatching(layers=layers)
        return term.loss(term.statistics(real), term.statistics(some), some)

    assert torch.equal(loss(None, synthetic), loss(None, other))
    assert not torch.equal(loss((2,), synthetic), loss((2,), other))
    torch.testing.assert_close(loss((0,), synthetic) + loss((1,), synthetic), loss(None, synthetic))


# ---------------------------------------------------------------- what must hold for any maps


maps_of = st.builds(
    lambda seed, n, c, s: torch.randn(2, n, c, s, s, generator=torch.Generator().manual_seed(seed)).double(),
    st.integers(0, 2**20),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 5),
)
powers = st.sampled_from([1.0, 1.5, 2.0, 4.0])


@given(maps_of, powers, st.floats(0.01, 100.0))
def test_a_map_has_length_one_and_knows_neither_scale_nor_sign_nor_order_of_channels(maps, power, scale):
    attention = attention_maps(maps, power)
    assert attention.shape == (*maps.shape[:2], maps.shape[3] * maps.shape[4])
    torch.testing.assert_close(attention.norm(dim=2), torch.ones(maps.shape[:2], dtype=maps.dtype))
    assert (attention >= 0).all()
    for same in (scale * maps, -maps, maps.flip(2)):
        torch.testing.assert_close(attention_maps(same, power), attention)


def test_a_higher_power_looks_where_a_single_channel_is_strong():
    spread, peaked = torch.tensor([2.0, 2.0]), torch.tensor([3.0, 0.0])
    maps = torch.stack([spread, peaked], 1).view(1, 1, 2, 1, 2)  # two channels at two positions
    low, high = attention_maps(maps, 1.0)[0, 0], attention_maps(maps, 4.0)[0, 0]
    assert low[0] > low[1] and high[0] < high[1]
    assert high[1] / high[0] == pytest.approx(3**4 / (2 * 2**4))


@pytest.mark.parametrize("power", [1.0, 1.5, 4.0])
def test_a_dead_map_has_no_attention_and_a_finite_gradient(power):
    maps = torch.randn(1, 3, 2, 2, 2)
    maps[0, 1] = 0
    leaf = maps.requires_grad_()
    attention = attention_maps(leaf, power)
    assert not attention[0, 1].any()
    attention.square().sum().backward()
    assert torch.isfinite(leaf.grad).all() and not leaf.grad[0, 1].any()


def test_a_power_below_one_is_refused():
    with pytest.raises(ValueError, match="power must be at least 1, got 0.9"):
        attention_maps(torch.ones(1, 1, 1, 1, 1), 0.9)
