"""The gradient distances against slow loops; values, gradients and what must not change them."""

import math

import pytest
import slow_losses as slow
import torch
from hypothesis import given
from hypothesis import strategies as st

from clreplay.losses.gradient_distance import DISTANCES, gradient_distance, is_compared

SHAPES = [(4, 3, 3, 3), (4,), (4, 5, 5), (6, 8), (6,)]
"""A convolution, its bias, a layer norm, a linear layer, its bias."""


def gradients(classes=3, seed=0, shapes=SHAPES):
    chance = torch.Generator().manual_seed(seed)
    return [torch.randn(classes, *shape, generator=chance, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("distance", DISTANCES)
def test_values_and_gradients_equal_the_loop(distance):
    real, synthetic = gradients(seed=1), [tensor.requires_grad_() for tensor in gradients(seed=2)]
    found = gradient_distance(real, synthetic, distance)
    classes = [([t[c] for t in real], [t[c] for t in synthetic]) for c in range(3)]
    expected = torch.stack([slow.gradient_distance(*sides, distance) for sides in classes])
    assert found.shape == (3,)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    sides = [torch.autograd.grad((v * weights).sum(), synthetic, allow_unused=True) for v in (found, expected)]
    for ours, theirs in zip(*sides):
        if theirs is None:
            assert ours is None
        else:
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_row_cosine_is_the_default():
    real, synthetic = gradients(seed=1), gradients(seed=2)
    assert torch.equal(gradient_distance(real, synthetic), gradient_distance(real, synthetic, "row_cosine"))


def test_opposite_rows_count_two_and_orthogonal_rows_one():
    real = [torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]], dtype=torch.float64)]
    synthetic = [torch.tensor([[[5.0, 0.0], [0.0, -1.0], [0.0, 1.0]]], dtype=torch.float64)]
    assert float(gradient_distance(real, synthetic)) == pytest.approx(0 + 2 + 1, abs=1e-5)


@given(seed=st.integers(0, 1000), factor=st.floats(0.1, 1e3))
def test_cosines_do_not_see_the_length_of_a_gradient(seed, factor):
    real, synthetic = gradients(seed=seed), gradients(seed=seed + 1)
    for distance in ("row_cosine", "whole_cosine"):
        scaled = gradient_distance(real, [factor * tensor for tensor in synthetic], distance)
        torch.testing.assert_close(scaled, gradient_distance(real, synthetic, distance), rtol=0, atol=1e-3)
    rows = [tensor * torch.rand(3, tensor.shape[1], *[1] * (tensor.ndim - 2)).add(0.5) for tensor in synthetic]
    own_lengths = gradient_distance(real, rows, "row_cosine")
    torch.testing.assert_close(own_lengths, gradient_distance(real, synthetic, "row_cosine"), rtol=0, atol=1e-3)


@given(seed=st.integers(0, 1000), distance=st.sampled_from(sorted(DISTANCES)))
def test_equal_gradients_are_at_zero_others_above_and_sides_can_be_swapped(seed, distance):
    real, synthetic = gradients(seed=seed), gradients(seed=seed + 1)
    assert gradient_distance(real, [t.clone() for t in real], distance).abs().max() < 1e-4
    apart = gradient_distance(real, synthetic, distance)
    assert apart.min() > 0.1
    torch.testing.assert_close(gradient_distance(synthetic, real, distance), apart)
    limit = {"row_cosine": 2 * (4 + 4 + 6), "whole_cosine": 2, "squared": math.inf}[distance]
    assert apart.max() <= limit


@given(seed=st.integers(0, 1000), order=st.permutations(range(4)), distance=st.sampled_from(sorted(DISTANCES)))
def test_classes_are_apart(seed, order, distance):
    real, synthetic = gradients(4, seed), gradients(4, seed + 1)
    whole = gradient_distance(real, synthetic, distance)
    swapped = gradient_distance([t[list(order)] for t in real], [t[list(order)] for t in synthetic], distance)
    torch.testing.assert_close(swapped, whole[list(order)])
    alone = gradient_distance([t[2:3] for t in real], [t[2:3] for t in synthetic], distance)
    torch.testing.assert_close(alone, whole[2:3])


def test_one_dimensional_parameters_count_in_all_but_the_rows():
    real, synthetic = gradients(seed=1), gradients(seed=2)
    other = [t if t.ndim > 2 else t + 1 for t in synthetic]
    for distance in DISTANCES:
        same = torch.equal(gradient_distance(real, other, distance), gradient_distance(real, synthetic, distance))
        assert same == (distance == "row_cosine")
        assert is_compared(torch.zeros(4), distance) == (distance != "row_cosine")
        assert is_compared(torch.zeros(4, 3), distance) and is_compared(torch.zeros(4, 5, 5), distance)


def test_without_a_matrix_no_row_is_compared():
    assert gradient_distance(gradients(shapes=[(4,)]), gradients(shapes=[(4,)], seed=1)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_gradient_of_zeros_has_a_finite_distance_and_slope(distance):
    real, synthetic = gradients(), [torch.zeros_like(t).requires_grad_() for t in gradients()]
    value = gradient_distance(real, synthetic, distance)
    if distance != "squared":
        assert value.tolist() == [14.0] * 3 if distance == "row_cosine" else [1.0] * 3
    slopes = torch.autograd.grad(value.sum(), synthetic, allow_unused=True)
    assert all(torch.isfinite(slope).all() for slope in slopes if slope is not None)


def test_an_unknown_distance_and_gradients_of_other_shapes_are_errors():
    real = gradients()
    with pytest.raises(ValueError, match="distance must be one of row_cosine, whole_cosine, squared, got 'cosine'"):
        gradient_distance(real, real, "cosine")
    for other in (gradients(1), real[:-1]):  # one class would broadcast, a parameter less be left out
        for distance in DISTANCES:
            with pytest.raises(ValueError, match="gradients must have the same shapes"):
                gradient_distance(real, other, distance)
