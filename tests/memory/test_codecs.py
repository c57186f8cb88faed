"""Mosaics of pictures in image codecs: what goes in comes out, and nothing damaged or oversized is decoded."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from memory_helpers import codes
from PIL import Image

from clreplay.memory import codecs
from clreplay.memory.codecs import CODECS, check_codec, decode_mosaics, encode_mosaics, grid, split_bytes

LOSSY = ["jpeg", "webp", "avif"]


def smooth(count, channels=3, size=16, seed=0):
    """Pictures that a codec can code: slow waves of their own colour."""
    chance = np.random.RandomState(seed)
    places = np.linspace(0, 3, size)
    phase = chance.rand(count, 1, 1, 1) * 6 + chance.rand(1, channels, 1, 1)
    waves = 128 + 90 * np.sin(places[:, None] * chance.rand(count, 1, 1, 1) * 3 + places[None, :] + phase)
    return torch.from_numpy(waves.astype(np.uint8))


@given(count=st.integers(1, 11), side=st.integers(1, 3), channels=st.sampled_from([1, 3]), size=st.integers(1, 6))
def test_lossless_mosaics_give_the_very_pictures_back_in_their_order(count, side, channels, size):
    pictures = codes(count, channels, size)
    mosaics = encode_mosaics(pictures, "png", None, side)
    counts = [len(part) for part in pictures.split(side**2)]
    assert len(mosaics) == len(counts)
    assert torch.equal(decode_mosaics(mosaics, counts, "png", (channels, size, size), side), pictures)


def test_a_mosaic_is_a_picture_that_anybody_can_open():
    """Row by row, side by side; what is left over repeats the last picture."""
    pictures = codes(5, 3, 4)
    (mosaic,) = encode_mosaics(pictures, "png", None, 3)
    pixels = np.array(Image.open(io.BytesIO(mosaic)))
    assert pixels.shape == (2 * 4, 3 * 4, 3) and grid(5, 3) == (2, 3)
    for place in range(6):
        row, column = divmod(place, 3)
        cell = pixels[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert np.array_equal(cell, pictures[min(place, 4)].permute(1, 2, 0).numpy())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", LOSSY)
def test_lossy_codecs_err_little_and_less_at_a_higher_quality_for_more_bytes(name, channels):
    pictures, shape = smooth(20, channels), (channels, 16, 16)
    found = {}
    for quality in (20, 90):
        mosaics = encode_mosaics(pictures, name, quality)
        error = decode_mosaics(mosaics, [20], name, shape).float() - pictures.float()
        found[quality] = error.square().mean().sqrt().item(), len(mosaics[0])
    assert found[90][0] < found[20][0] < 20 and found[90][0] < 8
    assert found[20][1] < found[90][1] < pictures.numel()


@pytest.mark.parametrize("name", sorted(CODECS))
def test_mosaics_share_their_headers(name):
    pictures = smooth(16)
    together, apart = (sum(map(len, encode_mosaics(pictures, name, None, side))) for side in (4, 1))
    assert together < 0.9 * apart


@pytest.mark.parametrize("name", sorted(CODECS))
def test_what_is_coded_is_the_same_again_whatever_the_threads(name):
    pictures, before = smooth(300, size=8), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(encode_mosaics(pictures, name, None))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] and len(found[0]) == 5


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("name", "quality", "message"),
    [
        ("png", 5, "store 'png' loses nothing and takes no quality, got 5"),
        ("jpeg", 0, "quality of store 'jpeg' must be an integer within 1 and 95, got 0"),
        ("avif", 101, "quality of store 'avif' must be an integer within 0 and 100, got 101"),
        ("webp", 50.5, "quality of store 'webp' must be an integer within 0 and 100, got 50.5"),
        ("webp", True, "quality of store 'webp' must be an integer within 0 and 100, got True"),
    ],
)
def test_a_quality_out_of_range_is_named(name, quality, message):
    with pytest.raises(ValueError, match=message):
        check_codec(name, quality)


def test_a_codec_that_this_pillow_lacks_is_named(monkeypatch):
    monkeypatch.setattr(codecs, "available", lambda name: name != "avif")
    with pytest.raises(ValueError, match="store 'avif' needs a Pillow with AVIF, which this one lacks; upgrade Pillow"):
        check_codec("avif", None)
    assert check_codec("webp", None) == 75


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(ValueError, match="store 'avif' codes pictures of 1 or 3 channels, got 2; use uint8 or float32"):
        encode_mosaics(codes(2, 2), "avif", None)


@pytest.mark.parametrize("name", sorted(CODECS))
def test_damaged_and_foreign_bytes_are_an_error_of_ours(name):
    (whole,) = encode_mosaics(smooth(9), name, None)
    other = encode_mosaics(smooth(9), "png" if name != "png" else "webp", None)[0]
    for damaged in (b"", b"nothing", whole[: len(whole) // 2], other):
        with pytest.raises(ValueError, match=f"a coded image is no {CODECS[name].format} that can be read"):
            decode_mosaics([damaged], [9], name, (3, 16, 16))


@pytest.mark.parametrize("name", sorted(CODECS))
def test_a_mosaic_of_another_size_is_refused_by_its_header(name, monkeypatch):
    (large,) = encode_mosaics(smooth(64, size=32), name, None)

    def never(*_, **__):
        raise AssertionError("pixels were asked for")

    monkeypatch.setattr(Image.Image, "convert", never)
    with pytest.raises(ValueError, match="must be 48 x 48 pixels for 9 pictures of 16 x 16, its header says 256 x 256"):
        decode_mosaics([large], [9], name, (3, 16, 16), side=3)


def test_joined_bytes_are_split_by_their_lengths():
    joined = torch.tensor(list(b"abcdef"), dtype=torch.uint8)
    assert list(split_bytes(joined, [1, 3, 2])) == [b"a", b"bcd", b"ef"]
