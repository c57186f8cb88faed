"""Codes of fewer than 8 bits in bytes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clreplay.memory.packed import pack, unpack
from clreplay.memory.quantization import decode, encode


@given(st.sampled_from([2, 4]), st.integers(1, 3), st.integers(1, 13), st.integers(0, 5))
def test_codes_come_back_and_take_their_bits(bits, rows, count, seed):
    codes = torch.randint(0, 2**bits, (rows, count), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8 and packed.shape == (rows, -(-count * bits // 8))
    assert torch.equal(unpack(packed, bits, count), codes)


def test_the_first_code_is_in_the_lowest_bits():
    assert pack(torch.tensor([1, 2, 3, 0, 2], dtype=torch.uint8), 2).tolist() == [1 + 2 * 4 + 3 * 16, 2]
    assert pack(torch.tensor([1, 15, 7], dtype=torch.uint8), 4).tolist() == [1 + 15 * 16, 7]


@pytest.mark.parametrize("levels", [4, 16, 256])
def test_fewer_levels_err_by_half_a_larger_step(levels):
    images = 3 * torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    codes, scale, offset = encode(images, levels)
    error = (decode(codes, scale, offset) - images).abs()
    assert codes.max() == levels - 1 and (error <= scale[:, :, None, None] / 2 + 1e-5).all()
    step = (images.amax((2, 3)) - images.amin((2, 3))) / (levels - 1)
    torch.testing.assert_close(scale, step)
