"""The table of decoders, and four images in one against a slow reference."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from memory_helpers import floats
from slow_tiles import tiles_by_hand
from torch.autograd import gradcheck, gradgradcheck

from clreplay.memory.decoders import decoder, register_decoder, tiles2
from clreplay.memory.replay_memory import ReplayMemory

# ---------------------------------------------------------------- four images in one


@pytest.mark.parametrize("size", [2, 4, 6, 10])
def test_tiles_have_the_values_and_gradients_of_a_slow_reference(size):
    stored = floats(2, channels=2, size=size, dtype=torch.float64).requires_grad_()
    weights = floats(8, channels=2, size=size, seed=1, dtype=torch.float64)
    results = []
    for decode in (tiles2, tiles_by_hand):
        images = decode(stored)
        (gradient,) = torch.autograd.grad((weights * images.square()).sum(), stored)
        results.append((images.detach(), gradient))
    for mine, slow in zip(*results):
        torch.testing.assert_close(mine, slow, rtol=1e-12, atol=1e-12)


def test_tiles_can_be_differentiated_twice():
    stored = floats(1, channels=1, size=4, dtype=torch.float64).requires_grad_()
    assert gradcheck(tiles2, stored) and gradgradcheck(lambda x: tiles2(x).pow(3), stored)


def test_nothing_of_a_quadrant_leaks_into_another():
    colours = torch.arange(8.0).reshape(2, 1, 2, 2)  # upper left, upper right, lower left, lower right
    images = tiles2(colours.repeat_interleave(8, 2).repeat_interleave(8, 3))
    assert torch.equal(images, torch.arange(8.0)[:, None, None, None].expand(8, 1, 16, 16))


@given(st.integers(1, 4), st.integers(0, 4), st.sampled_from([2, 6, 8]))
def test_fewer_stored_images_give_a_prefix(kept, more, size):
    stored = floats(kept + more, size=size)
    assert torch.equal(tiles2(stored)[: 4 * kept], tiles2(stored[:kept]))


@pytest.mark.parametrize("shape", [(5, 5), (4, 5), (1, 1)])
def test_tiles_of_odd_sizes_are_refused(shape):
    with pytest.raises(
        ValueError,
        match=rf"tiles2 needs images whose height and width are multiples of 2, got {shape[0]} x {shape[1]}; resize",
    ):
        tiles2(torch.zeros(1, 3, *shape))


# ---------------------------------------------------------------- the table


def test_stored_images_that_need_no_decoding_stay_themselves():
    stored = floats(3)
    assert decoder("none")(stored) is stored and decoder("none").images_each == 1


def test_an_unknown_decoder_is_an_error_that_names_the_known_ones():
    with pytest.raises(
        ValueError, match="unknown decoding 'tiles9'; known: none, tiles2, tiles3, tiles4.*registered first"
    ):
        decoder("tiles9")


def test_a_name_is_taken_once_and_only_by_its_own_function(tables):
    with pytest.raises(ValueError, match="decoder 'tiles2' is registered already; choose another name"):
        register_decoder("tiles2", 4)(lambda stored: stored)
    register_decoder("tiles2", 4)(tiles2)  # the same file imported twice
    with pytest.raises(ValueError, match="images_each must be at least 1, got 0"):
        register_decoder("nothing", 0)


def test_a_decoder_that_gives_another_shape_is_found_out(tables):
    register_decoder("halves", 2)(lambda stored: stored)
    with pytest.raises(ValueError, match=r"'halves' must give 2 image\(s\).*\(6, 3, 4, 4\) here, got \(3, 3, 4, 4\)"):
        decoder("halves")(floats(3))
    memory = ReplayMemory(images_per_class=2)
    with pytest.raises(ValueError, match="'halves' must give"):
        memory.add({0: floats(2)}, decoding="halves")
    assert memory.classes == []
