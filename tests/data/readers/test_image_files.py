"""Encoded images to pixel codes: sizes and colours are brought into line as torchvision does."""

import warnings

import numpy as np
import pytest
from data_helpers import as_torchvision_does, assert_refused, encoded, load_folder, picture, write
from PIL import Image


@pytest.mark.parametrize("size", [16, 20, 37])
def test_odd_sizes_are_resized_as_torchvision_does(pets, size):
    for number, shape in enumerate([(31, 20), (20, 31), (7, 50), (64, 64)]):
        write(pets / "train" / "dog" / f"odd_{number}.JPEG", picture(77 + number, shape))
    dataset = load_folder(pets, f"@{size}")
    assert dataset.name == f"folder-pets-{size}"
    expected = [as_torchvision_does(path, size) for path in sorted((pets / "train").rglob("*.JPEG"))]
    assert np.array_equal(dataset.train.images.numpy(), np.stack(expected))


def colours(name: str) -> Image.Image:
    if name == "palette with a see-through colour":
        image = picture(9).quantize(8)
        image.info["transparency"] = bytes(range(0, 256, 32))
        return image
    mode = {"grey": "L", "one bit": "1", "CMYK": "CMYK", "with transparency": "RGBA", "grey with transparency": "LA"}
    return picture(9, mode="RGBA" if mode.get(name) == "RGBA" else "RGB").convert(mode.get(name, "P"))


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        ("grey", ".JPEG"),
        ("CMYK", ".JPEG"),
        ("grey", ".png"),
        ("one bit", ".png"),
        ("palette", ".png"),
        ("palette with a see-through colour", ".png"),
        ("with transparency", ".png"),
        ("grey with transparency", ".png"),
    ],
)
def test_images_of_other_colours_become_rgb(pets, kind, ending):
    path = write(pets / "train" / "cat" / f"a{ending}", colours(kind))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = load_folder(pets).train.images[0].numpy()
    assert Image.open(path).mode != "RGB"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(image, np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1))


def test_cmyk_is_not_inverted(pets):
    """Photoshop stores CMYK inverted and says so in a marker, which ImageNet's CMYK files have."""
    grey = Image.new("RGB", (20, 20), (200, 60, 30))
    write(pets / "train" / "cat" / "a.JPEG", encoded(grey.convert("CMYK")))
    pixels = load_folder(pets).train.images[0].double().mean((1, 2))
    assert pixels.tolist() == pytest.approx([200, 60, 30], abs=6)


def test_sixteen_bits_are_refused_instead_of_cut(pets):
    deep = Image.fromarray(np.full((20, 20), 40_000, np.uint16))
    write(pets / "train" / "cat" / "deep.png", encoded(deep, "PNG"))
    assert_refused(pets, r"deep.png: image has more than 8 bits a channel \(mode I")


def test_one_channel_makes_colours_grey(pets):
    dataset = load_folder(pets, channels=1)
    path = sorted((pets / "train").rglob("*.JPEG"))[0]
    assert dataset.train.images.shape == (9, 1, 20, 20)
    assert np.array_equal(dataset.train.images[0, 0].numpy(), np.asarray(Image.open(path).convert("L")))
    assert len(dataset.normalization.mean) == 1
    with pytest.raises(ValueError, match="channels must be 3 or 1 for folder:.*, got 2"):
        load_folder(pets, channels=2)
