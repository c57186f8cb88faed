"""Coding of condensed images in uint8: within half a step, never clipped, each by its own range."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from memory_helpers import codes, floats

from clreplay.memory.quantization import decode, encode
from clreplay.memory.slot import Slot
from clreplay.memory.stores import find_store


def slow_decode(images):
    """Code and decode one value at a time, in float64."""
    result = np.empty(images.shape)
    for i, c in itertools.product(range(images.shape[0]), range(images.shape[1])):
        low, high = float(images[i, c].min()), float(images[i, c].max())
        step = (high - low) / 255
        for y, x in itertools.product(range(images.shape[2]), range(images.shape[3])):
            value = float(images[i, c, y, x])
            code = round((value - low) / step) if step else 0
            assert 0 <= code <= 255
            result[i, c, y, x] = code * step + low
    return result


def test_coding_equals_the_formula():
    images = floats(3)
    found = decode(*encode(images)).double().numpy()
    np.testing.assert_allclose(found, slow_decode(images), atol=1e-5)


float32s = st.floats(-50, 50, width=32)


@given(st.lists(float32s, min_size=9, max_size=9), st.sampled_from([1e-3, 1.0, 10.0, 1e4]))
def test_coding_errs_by_at_most_half_a_step_and_never_clips(values, factor):
    images = torch.tensor(values).view(1, 1, 3, 3) * factor
    stored, scale, offset = encode(images)
    assert stored.dtype == torch.uint8 and scale.dtype == offset.dtype == torch.float32
    assert scale.shape == offset.shape == (1, 1)
    step = float(images.double().max() - images.double().min()) / 255
    slack = 4 * torch.finfo(torch.float32).eps * float(images.abs().max())
    decoded = decode(stored, scale, offset).double()
    assert float((decoded - images.double()).abs().max()) <= step / 2 * (1 + 1e-4) + slack
    assert float(decoded.max() - images.double().max()) == pytest.approx(0, abs=slack)
    assert float(decoded.min() - images.double().min()) == pytest.approx(0, abs=slack)


@pytest.mark.parametrize("value", [0.0, -2.7, 10.0, 1e6])
def test_a_constant_channel_comes_back_exactly(value):
    images = floats(2)
    images[1, 2] = value
    decoded = decode(*encode(images))
    assert torch.equal(decoded[1, 2], images[1, 2])
    assert torch.isfinite(decoded).all()


def test_every_image_and_channel_is_coded_by_its_own_range():
    images = floats(2)
    images[0, 0] *= 1000
    decoded = decode(*encode(images))
    error = (decoded - images).abs().amax((2, 3))
    assert error[0, 0] > 0.5
    error[0, 0] = 0
    assert error.max() < 0.1


def test_a_slot_is_not_changed_by_asking_for_more_than_it_has():
    slot = Slot(find_store("uint8"), {"codes": codes(2)}, 2, (3, 4, 4))
    assert slot.first(2) is slot and slot.first(5) is slot and len(slot.first(1)) == 1
