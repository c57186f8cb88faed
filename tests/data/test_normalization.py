"""Pixel codes to floats and back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clreplay.data import NORMALIZATIONS, Normalization, recognise_pixels

ALL_CODES = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
known = pytest.mark.parametrize("name", sorted(NORMALIZATIONS))


def random_codes(n=6, channels=3, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8, generator=generator)


def bits(images):
    return images.contiguous().view(torch.int32)


@known
def test_apply_equals_torchvision_bit_for_bit_on_every_code(name):
    from PIL import Image
    from torchvision import transforms

    normalization = NORMALIZATIONS[name]
    channels = len(normalization.mean)
    codes = ALL_CODES.repeat(1, channels, 1, 1)
    reference = transforms.Compose([transforms.ToTensor(), transforms.Normalize(normalization.mean, normalization.std)])
    picture = Image.fromarray(codes[0].permute(1, 2, 0).squeeze(-1).numpy())
    assert torch.equal(bits(normalization.apply(codes)[0]), bits(reference(picture)))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(NORMALIZATIONS)), st.integers(0, 5), st.integers(1, 5), st.integers(1, 5), st.data())
def test_invert_returns_the_codes_that_were_normalised(name, n, height, width, data):
    normalization = NORMALIZATIONS[name]
    shape = (n, len(normalization.mean), height, width)
    count = int(np.prod(shape))
    codes = torch.tensor(list(data.draw(st.binary(min_size=count, max_size=count))), dtype=torch.uint8).view(shape)
    recovered = normalization.invert(normalization.apply(codes))
    assert recovered.dtype == torch.uint8
    assert torch.equal(recovered, codes)


@known
def test_invert_gives_none_when_one_value_is_off_by_the_smallest_step(name):
    normalization = NORMALIZATIONS[name]
    images = normalization.apply(random_codes(channels=len(normalization.mean)))
    images[3, 0, 2, 1] = torch.nextafter(images[3, 0, 2, 1], torch.tensor(torch.inf))
    assert normalization.invert(images) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -0.0, -1.0, 1.5])
def test_invert_gives_none_for_values_no_code_has(value):
    plain = Normalization((0.0,), (1.0,))
    images = plain.apply(ALL_CODES)
    images[0, 0, 0, 0] = value
    assert plain.invert(images) is None


def test_invert_reads_every_image_of_a_large_set():
    normalization = NORMALIZATIONS["cifar10"]
    codes = random_codes(n=5000, size=2)
    images = normalization.apply(codes)
    assert torch.equal(normalization.invert(images), codes)
    images[-1, -1, -1, -1] += 1e-3
    assert normalization.invert(images) is None


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_layout_and_gradient_do_not_matter(layout):
    normalization = NORMALIZATIONS["cifar10"]
    codes = random_codes()
    images = normalization.apply(codes.contiguous(memory_format=layout)).requires_grad_()
    assert torch.equal(images, normalization.apply(codes))
    assert torch.equal(normalization.invert(images), codes)


def test_apply_leaves_its_input_alone():
    codes = random_codes()
    before = codes.clone()
    NORMALIZATIONS["cifar10"].apply(codes)
    assert torch.equal(codes, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_bits():
    normalization = NORMALIZATIONS["cifar10"]
    codes = random_codes(n=64)
    images = normalization.apply(codes.cuda())
    assert torch.equal(bits(images.cpu()), bits(normalization.apply(codes)))
    assert torch.equal(normalization.invert(images).cpu(), codes)


def test_half_precision_holds_no_exact_codes():
    assert Normalization((0.0,), (1.0,)).invert(torch.zeros(1, 1, 2, 2, dtype=torch.float16)) is None


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.5, 0.5), (0.5,), "got 2 and 1"),
        ((), (), "got 0 and 0"),
        ((0.5,), (0.0,), "std must be positive"),
        ((0.5,), (-1.0,), "std must be positive"),
        ((0.5,), (1e-50,), "std must be positive"),
        ((0.5,), (float("inf"),), "std must be positive and finite"),
        ((float("nan"),), (1.0,), "mean must be finite"),
    ],
)
def test_constants_that_cannot_normalise_are_refused(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Normalization(mean, std)


def test_constants_may_come_as_a_list_and_stay_hashable():
    assert hash(Normalization([0.5], [1])) == hash(Normalization((0.5,), (1.0,)))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 4, 4), r"images must be uint8 \(n, c, h, w\), got float32 \(2, 3, 4, 4\)"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), r"got uint8 \(3, 4, 4\)"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), r"images must be \(n, 3, h, w\)"),
    ],
)
def test_apply_names_what_it_cannot_take(images, message):
    with pytest.raises(ValueError, match=message):
        NORMALIZATIONS["cifar10"].apply(images)


@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 1, 4, 4)])
def test_invert_names_a_shape_it_cannot_take(shape):
    with pytest.raises(ValueError, match=r"images must be \(n, 3, h, w\)"):
        NORMALIZATIONS["cifar10"].invert(torch.zeros(shape))


def test_expand_repeats_one_channel_only():
    assert NORMALIZATIONS["mnist"].expand(3) == Normalization((0.1307,) * 3, (0.3081,) * 3)
    assert NORMALIZATIONS["cifar10"].expand(3) is NORMALIZATIONS["cifar10"]
    with pytest.raises(ValueError, match="channels must be 3"):
        NORMALIZATIONS["cifar10"].expand(1)


@known
def test_every_known_normalisation_is_recognised(name):
    normalization = NORMALIZATIONS[name]
    codes = random_codes(channels=len(normalization.mean))
    recovered, found = recognise_pixels(normalization.apply(codes))
    assert found == normalization
    assert torch.equal(recovered, codes)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_plain_scale_is_recognised_for_any_number_of_channels(channels):
    codes = random_codes(channels=channels)
    recovered, found = recognise_pixels(codes.float() / 255)
    assert torch.equal(recovered, codes)
    assert found == Normalization((0.0,) * channels, (1.0,) * channels)


def test_grey_images_in_three_channels_are_recognised():
    codes = random_codes(channels=1).repeat(1, 3, 1, 1)
    recovered, found = recognise_pixels(NORMALIZATIONS["mnist"].expand(3).apply(codes))
    assert torch.equal(recovered, codes)
    assert found.mean == (0.1307,) * 3


def test_neighbouring_constants_are_told_apart():
    codes = random_codes()
    for name in ("cifar100", "avalanche_cifar100"):
        assert recognise_pixels(NORMALIZATIONS[name].apply(codes))[1] == NORMALIZATIONS[name]


def test_images_that_only_begin_like_pixels_are_not_recognised():
    images = NORMALIZATIONS["cifar10"].apply(random_codes(n=50))
    images[-1, 0, 0, 0] += 0.01
    assert recognise_pixels(images) is None


def test_condensed_images_and_empty_sets_are_not_recognised():
    assert recognise_pixels(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))) is None
    assert recognise_pixels(torch.empty(0, 3, 8, 8)) is None
    assert recognise_pixels(torch.rand(4, 3, 8, 8, dtype=torch.float64)) is None


def test_recognising_names_what_it_cannot_take():
    with pytest.raises(ValueError, match="images must be floating point.*got uint8"):
        recognise_pixels(random_codes())
    with pytest.raises(ValueError, match=r"images must be \(n, c, h, w\), got float32 \(3, 8, 8\)"):
        recognise_pixels(torch.zeros(3, 8, 8))


def test_measuring_in_parts_changes_nothing(monkeypatch):
    from clreplay.data import normalization

    images = torch.randint(0, 256, (11, 2, 5, 5), dtype=torch.uint8)
    whole = normalization.measured_normalization(images)
    monkeypatch.setattr(normalization, "_MEASURED_AT_ONCE", 100)
    assert normalization.measured_normalization(images) == whole
