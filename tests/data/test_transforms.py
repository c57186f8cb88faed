"""Transforms of domains: each against a slow or obvious reference, and what bad texts get."""

import math

import pytest
import torch

from clreplay.data.transforms import TRANSFORMS, DomainView, register_transform


def pictures(n=3, channels=2, height=24, width=40, seed=0):
    chance = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, height, width), generator=chance, dtype=torch.uint8)


def view(text, images, part="train"):
    return DomainView.parse(text)(images, part)


def slow_rotated(image, degrees):
    """Every pixel of the turned picture, bilinearly from where it was; black from outside."""
    height, width = image.shape
    turn, result = math.radians(degrees), torch.zeros(height, width)
    for row in range(height):
        for column in range(width):
            x, y = column - (width - 1) / 2, row - (height - 1) / 2
            u = math.cos(turn) * x - math.sin(turn) * y + (width - 1) / 2
            v = math.sin(turn) * x + math.cos(turn) * y + (height - 1) / 2
            for r, c in (
                (r, c) for r in (math.floor(v), math.floor(v) + 1) for c in (math.floor(u), math.floor(u) + 1)
            ):
                if 0 <= r < height and 0 <= c < width:
                    result[row, column] += max(0, 1 - abs(v - r)) * max(0, 1 - abs(u - c)) * float(image[r, c])
    return result


@pytest.mark.parametrize("degrees", [30, -75, 180])
@pytest.mark.parametrize("size", [(24, 40), (17, 16)])
def test_rotation_turns_counter_clockwise_about_the_centre_in_the_right_aspect(degrees, size):
    images = pictures(1, 1, *size)
    turned = view(f"rotate:{degrees}", images)[0, 0].float()
    assert (turned - slow_rotated(images[0, 0], degrees)).abs().max() <= 1.01


def test_blur_is_the_gaussian_mean_of_the_neighbourhood():
    images, sigma = pictures(1, 1, 20, 30), 1.5
    blurred, width = view(f"blur:{sigma}", images)[0, 0].float(), math.ceil(3 * sigma)
    weights = torch.tensor([math.exp(-(i**2) / 2 / sigma**2) for i in range(-width, width + 1)])
    weights = torch.outer(weights, weights) / weights.sum() ** 2
    for row, column in ((10, 15), (6, 20), (12, 7)):
        around = images[0, 0, row - width : row + width + 1, column - width : column + width + 1].float()
        assert abs(blurred[row, column] - (weights * around).sum()) <= 1
    assert blurred.std() < images.float().std() / 2


def test_a_blur_wider_than_the_image_is_as_wide_as_it_allows():
    assert view("blur:20", pictures(2, 1, 4, 9)).shape == (2, 1, 4, 9)


def test_inversion_comes_back():
    images = pictures()
    assert torch.equal(view("invert", images), 255 - images) and torch.equal(view("invert+invert", images), images)


def test_a_background_lies_behind_what_is_brighter_and_is_another_for_every_image():
    images = torch.zeros(4, 2, 24, 40, dtype=torch.uint8)
    images[:, :, 10:12] = 255
    seen = view("background:0.5", images)
    assert (seen[:, :, 10:12] == 255).all() and int(seen[:, :, :10].max()) <= 128
    assert int(seen[:, :, :10].max()) > 90 and (seen[0] != seen[1]).float().mean() > 0.5
    assert torch.equal(seen, view("background:0.5", images))  # chance is keyed: the same again
    assert not torch.equal(seen, view("background:0.5", images, "test"))
    steps = (seen[:, :, :10, 1:].int() - seen[:, :, :10, :-1].int()).abs()
    assert int(steps.max()) <= 30, "smooth"


def test_transforms_come_one_after_another_and_the_global_generator_stays_untouched():
    images, before = pictures(), torch.random.get_rng_state()
    both = view("rotate:90+invert", images)
    assert torch.equal(both, 255 - view("rotate:90", images))
    view("background", images)
    assert torch.equal(torch.random.get_rng_state(), before)
    for name in TRANSFORMS:
        text = f"{name}:30" if name == "rotate" else name
        seen = view(text, images)
        assert seen.dtype == torch.uint8 and seen.shape == images.shape
        assert torch.equal(seen, images) == (name == "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rotat:3", "there is no transform 'rotat' .*did you mean 'rotate'"),
        ("rotate", "rotate takes a number, rotate:DEGREES, got 'rotate'"),
        ("rotate:left", "takes a number, rotate:DEGREES, got 'rotate:left'"),
        ("rotate:nan", "takes a number"),
        ("invert:2", "invert takes no number, got 'invert:2'"),
        ("blur:0", "takes a number within 0.1 and 64, blur.:PIXELS., got 'blur:0'"),
        ("background:2", "takes a number within 0.01 and 1"),
        ("none+", "there is no transform ''"),
    ],
)
def test_a_bad_text_is_told_with_the_cure(text, message):
    with pytest.raises(ValueError, match=message):
        DomainView.parse(text)


def test_a_transform_of_ones_own_is_known_by_its_name(monkeypatch):
    monkeypatch.setattr("clreplay.data.transforms.TRANSFORMS", dict(TRANSFORMS))
    register_transform("dim", "FACTOR", (0.0, 1.0))(lambda images, factor, key: (images * factor).to(torch.uint8))
    images = pictures()
    assert torch.equal(view("dim:0.5", images), images // 2)
    with pytest.raises(ValueError, match="transform 'dim' is there already"):
        register_transform("dim")
