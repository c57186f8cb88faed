"""Differentiable augmentation: every operator against a slow version of one image, and who shares what."""

import math

import numpy as np
import pytest
import torch

from clreplay.runtime.seeding import generator
from clreplay.training.augmentation import (
    DSA_STRATEGY,
    OPERATORS,
    Strategy,
    augment_classes,
    augment_images,
    augment_shared,
    draw,
    parse_strategy,
)

NAMES = ("color", "crop", "cutout", "flip", "scale", "rotate")
ALMOST_ONE = 1 - 2**-24  # the largest float32 that a uniform draw gives


# ---------------------------------------------------------------- slow versions: one image (c, h, w), u has 3 numbers


def slow_color(image, u):
    image = image + (u[0] - 0.5) * 1.0
    grey = np.stack([sum(image[c] for c in range(len(image))) / len(image)] * len(image))
    image = (image - grey) * (2.0 * u[1]) + grey
    level = image.sum() / image.size
    return (image - level) * (0.5 + u[2]) + level


def slow_crop(image, u):
    c, h, w = image.shape
    reach_y, reach_x = int(0.125 * h + 0.5), int(0.125 * w + 0.5)
    dy = math.floor(u[0] * (2 * reach_y + 1)) - reach_y
    dx = math.floor(u[1] * (2 * reach_x + 1)) - reach_x
    result = np.zeros_like(image)
    for i in range(h):
        for j in range(w):
            if 0 <= i + dy < h and 0 <= j + dx < w:
                result[:, i, j] = image[:, i + dy, j + dx]
    return result


def slow_cutout(image, u):
    c, h, w = image.shape
    size_y, size_x = int(0.5 * h + 0.5), int(0.5 * w + 0.5)
    # For an even square the upper index h itself can be drawn.
    centre_y = math.floor(u[0] * (h + (1 - size_y % 2)))
    centre_x = math.floor(u[1] * (w + (1 - size_x % 2)))
    result = image.copy()
    for i in range(centre_y - size_y // 2, centre_y - size_y // 2 + size_y):
        for j in range(centre_x - size_x // 2, centre_x - size_x // 2 + size_x):
            if 0 <= i < h and 0 <= j < w:
                result[:, i, j] = 0
    return result


def slow_flip(image, u):
    return image[:, :, ::-1].copy() if u[0] < 0.5 else image


def slow_sample(image, theta):
    """Bilinear sampling by hand: pixel centres at (2 i + 1) / side - 1, zeros outside."""
    c, h, w = image.shape
    result = np.zeros_like(image)
    for i in range(h):
        for j in range(w):
            x, y = theta @ np.array([(2 * j + 1) / w - 1, (2 * i + 1) / h - 1])
            column, row = ((x + 1) * w - 1) / 2, ((y + 1) * h - 1) / 2
            for a in (math.floor(row), math.floor(row) + 1):
                for b in (math.floor(column), math.floor(column) + 1):
                    if 0 <= a < h and 0 <= b < w:
                        result[:, i, j] += image[:, a, b] * (1 - abs(row - a)) * (1 - abs(column - b))
    return result


def slow_scale(image, u):
    sx, sy = (1 / 1.2 + u[axis] * (1.2 - 1 / 1.2) for axis in (0, 1))
    return slow_sample(image, np.array([[sx, 0.0], [0.0, sy]]))


def slow_rotate(image, u):
    """By pixels about the centre, whatever the sides."""
    angle = math.radians(-15 + 30 * u[0])
    (h, w), result = image.shape[1:], np.zeros_like(image)
    for i in range(h):
        for j in range(w):
            down, right = i - (h - 1) / 2, j - (w - 1) / 2
            column = math.cos(angle) * right - math.sin(angle) * down + (w - 1) / 2
            row = math.sin(angle) * right + math.cos(angle) * down + (h - 1) / 2
            for a in (math.floor(row), math.floor(row) + 1):
                for b in (math.floor(column), math.floor(column) + 1):
                    if 0 <= a < h and 0 <= b < w:
                        result[:, i, j] += image[:, a, b] * (1 - abs(row - a)) * (1 - abs(column - b))
    return result


SLOW = {name: globals()[f"slow_{name}"] for name in NAMES}
EDGES = [[0.0, 0.0, 0.0], [ALMOST_ONE] * 3, [0.5, 0.5, 0.5], [0.0, ALMOST_ONE, 0.5]]


def rows(n=12, seed=1):
    """Parameters of n images: the borders of their range, then random ones; float32 numbers held in float64."""
    random = torch.rand(n - len(EDGES), 3, generator=torch.Generator().manual_seed(seed)).double()
    return torch.cat([torch.tensor(EDGES, dtype=torch.float64), random])


@pytest.mark.parametrize("size", [(7, 7), (8, 8), (16, 16), (24, 40), (15, 8)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_operator_equals_its_slow_version(name, size):
    u = rows()
    images = torch.randn(len(u), 2 if size == (24, 40) else 3, *size, dtype=torch.float64)
    expected = np.stack([SLOW[name](image.numpy(), row.tolist()) for image, row in zip(images, u)])
    torch.testing.assert_close(OPERATORS[name](images, u), torch.from_numpy(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_every_operator_gives_the_same_in_float32(name):
    u, images = rows(), torch.randn(12, 3, 8, 8)
    exact = OPERATORS[name](images.double(), u)
    torch.testing.assert_close(OPERATORS[name](images, u.float()), exact.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_flow_through_every_operator(name):
    images = torch.randn(4, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: OPERATORS[name](x, rows(8)[3:7]), images)
    assert torch.autograd.gradcheck(lambda x: shared(name, x, [0.3, 0.6, 0.9]), images)


@pytest.mark.parametrize("name", NAMES)
def test_one_channel_images_are_augmented_too(name):
    u, images = rows(), torch.randn(12, 1, 8, 8, dtype=torch.float64)
    expected = np.stack([SLOW[name](image.numpy(), row.tolist()) for image, row in zip(images, u)])
    torch.testing.assert_close(OPERATORS[name](images, u), torch.from_numpy(expected), rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------- the range of the parameters


def spot(size, row, column):
    image = torch.zeros(1, 1, size, size)
    image[0, 0, row, column] = 1
    return image


@pytest.mark.parametrize(("size", "reach"), [(8, 1), (28, 4), (32, 4), (64, 8)])
def test_crop_shifts_by_up_to_an_eighth_and_every_shift_is_as_likely(size, reach):
    middle = size // 2
    grid = (torch.arange(1000) + 0.5) / 1000
    u = torch.stack([grid, grid.flip(0), grid], 1)
    places = OPERATORS["crop"](spot(size, middle, middle).expand(1000, -1, -1, -1), u)[:, 0].flatten(1).argmax(1)
    for shifts in (places // size - middle, places % size - middle):
        values, counts = shifts.unique(return_counts=True)
        assert values.tolist() == list(range(-reach, reach + 1))
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(
    ("u", "rows_cut"),
    [
        (0.0, range(0, 8)),  # centre 0: 16 rows from -8
        (0.5, range(8, 24)),  # centre 16
        (31.5 / 33, range(23, 32)),  # centre 31
        (ALMOST_ONE, range(24, 32)),  # centre 32, the upper border itself
    ],
)
def test_the_cutout_square_is_16_wide_at_32_pixels_and_clipped_at_the_border(u, rows_cut):
    cut = OPERATORS["cutout"](torch.ones(1, 1, 32, 32), torch.tensor([[u, 0.5, 0.0]]))[0, 0] == 0
    assert cut.any(1).nonzero().flatten().tolist() == list(rows_cut)
    assert cut.any(0).nonzero().flatten().tolist() == list(range(8, 24))
    assert cut.sum() == len(rows_cut) * 16


def test_an_odd_cutout_square_is_centred_inside_the_image():
    hole = OPERATORS["cutout"](torch.ones(1, 1, 9, 9), torch.tensor([[ALMOST_ONE, 0.0, 0.0]]))[0, 0] == 0
    assert hole.any(1).nonzero().flatten().tolist() == [6, 7, 8]  # side 5, centre 8
    assert hole.any(0).nonzero().flatten().tolist() == [0, 1, 2]  # centre 0


def test_more_than_one_shrinks_the_content_and_less_magnifies_it():
    ones = torch.ones(2, 1, 32, 32)
    shrunk, magnified = OPERATORS["scale"](ones, torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    assert shrunk[0, 0].abs().max() == 0  # zeros come in from outside
    torch.testing.assert_close(magnified, ones[0])


def test_scale_stretches_the_two_directions_independently():
    wide, high = OPERATORS["scale"](torch.ones(2, 1, 32, 32), torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    assert wide[0, :, 0].abs().max() == 0 and wide[0, 0, 16] == 1
    assert high[0, 0, :].abs().max() == 0 and high[0, 16, 0] == 1


# ---------------------------------------------------------------- shared, by class, by image


def shared(name, images, parameters):
    return augment_shared(images, torch.tensor([0.0, *parameters]), Strategy((name,)))


@pytest.mark.parametrize("row", EDGES + [[0.31, 0.77, 0.12], [0.49, 0.05, 0.95]])
@pytest.mark.parametrize("name", NAMES)
def test_the_three_ways_agree_when_the_parameters_are_equal(name, row):
    images = torch.randn(2, 3, 3, 8, 8)
    strategy = Strategy((name,))
    draws = torch.tensor([[0.2, *row]] * 2)
    by_class = augment_classes(images, draws, strategy).flatten(0, 1)
    by_image = augment_images(images.flatten(0, 1), 0.2, draws[:1, 1:].expand(6, 3), strategy)
    as_one = augment_shared(images.flatten(0, 1), draws[0], strategy)
    torch.testing.assert_close(by_class, by_image)
    torch.testing.assert_close(by_class, as_one)


@pytest.mark.parametrize("text", [DSA_STRATEGY, "crop_flip", "crop+flip", "color+scale+cutout", None])
def test_a_batch_of_classes_comes_out_as_one_class_at_a_time(text):
    strategy = parse_strategy(text)
    images = torch.randn(14, 2, 3, 8, 8)
    draws = draw(14, strategy, generator("classes"))
    together = augment_classes(images, draws, strategy)
    for one, row, got in zip(images, draws, together):
        torch.testing.assert_close(got, augment_shared(one, row, strategy), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(got, augment_classes(one[None], row[None], strategy)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_real_and_synthetic_batches_of_any_size_share_their_parameters(name):
    """Siamese: an image comes out the same in a batch of 1, 3 and 20."""
    strategy = parse_strategy(DSA_STRATEGY)
    one_draw = torch.tensor([(NAMES.index(name) + 0.5) / 6, 0.43, 0.21, 0.4])
    image = torch.randn(1, 3, 8, 8)
    expected = torch.from_numpy(SLOW[name](image[0].numpy(), one_draw[1:].tolist()))
    assert not torch.equal(expected, image[0])
    for n in (1, 3, 20):
        batch = torch.cat([image, torch.randn(n - 1, 3, 8, 8)])
        torch.testing.assert_close(augment_shared(batch, one_draw, strategy)[0], expected, rtol=1e-4, atol=1e-5)


def test_gradients_of_a_batch_of_classes_flow_to_every_class():
    strategy = parse_strategy(DSA_STRATEGY)
    draws = torch.rand(6, 4, dtype=torch.float64)
    draws[:, 0] = (torch.arange(6).flip(0) + 0.5) / 6  # every operator once
    images = torch.randn(6, 2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: augment_classes(x, draws, strategy), images)


def test_every_image_of_a_training_batch_has_its_own_parameters():
    strategy, images = parse_strategy("crop"), spot(32, 16, 16).expand(50, -1, -1, -1)
    places = augment_images(images, 0.0, torch.rand(50, 3), strategy).flatten(1).argmax(1)
    assert len(places.unique()) > 20


def test_all_operators_of_a_plus_strategy_run_in_the_order_named():
    strategy = parse_strategy("crop+color")
    images, numbers = torch.randn(3, 3, 8, 8, dtype=torch.float64), torch.rand(3, 6, dtype=torch.float64)
    expected = [
        slow_color(slow_crop(image.numpy(), row[:3].tolist()), row[3:].tolist()) for image, row in zip(images, numbers)
    ]
    found = augment_images(images, 0.9, numbers, strategy)
    torch.testing.assert_close(found, torch.from_numpy(np.stack(expected)), rtol=1e-9, atol=1e-9)
    alone = augment_shared(images[:1], torch.cat([torch.tensor([0.9]).double(), numbers[0]]), strategy)
    torch.testing.assert_close(alone, found[:1])


# ---------------------------------------------------------------- strategies and draws


def test_the_strategy_of_the_papers_is_read():
    assert parse_strategy(DSA_STRATEGY) == Strategy(NAMES)
    assert set(OPERATORS) == set(NAMES)


@pytest.mark.parametrize(
    ("text", "strategy"),
    [
        (None, Strategy(())),
        ("", Strategy(())),
        ("None", Strategy(())),
        ("flip", Strategy(("flip",))),
        ("Crop_FLIP", Strategy(("crop", "flip"))),
        ("crop+flip", Strategy(("crop", "flip"), every=True)),
    ],
)
def test_strategies_are_read(text, strategy):
    assert parse_strategy(text) == strategy


@pytest.mark.parametrize("text", ["colour", "crop_flip_", "crop flip", "crop_flip+color", "crop++flip", "brightness"])
def test_an_unknown_operator_is_an_error_that_lists_the_known(text):
    with pytest.raises(ValueError, match="color, crop, cutout, flip, scale, rotate") as error:
        parse_strategy(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize("text", ["crop_crop", "flip+crop+flip"])
def test_an_operator_named_twice_is_an_error(text):
    with pytest.raises(ValueError, match="twice"):
        parse_strategy(text)


def test_no_strategy_leaves_images_as_they_are():
    strategy, images = parse_strategy(None), torch.randn(2, 3, 3, 8, 8)
    draws = draw(2, strategy, generator(0))
    assert torch.equal(augment_classes(images, draws, strategy), images)
    assert torch.equal(augment_shared(images[0], draws[0], strategy), images[0])
    assert torch.equal(augment_images(images[0], 0.3, draws[:, 1:].expand(2, 3), strategy), images[0])


def test_every_operator_is_drawn_equally_often():
    strategy = parse_strategy(DSA_STRATEGY)
    numbers = draw(6000, strategy, generator("frequencies"))
    counts = {name: 0 for name in NAMES}
    for choice in numbers[:, 0].tolist():
        (name,) = strategy.chosen(choice)
        counts[name] += 1
    assert sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 20.5  # chi squared, 5 degrees, p = 0.001
    assert numbers.min() >= 0 and numbers.max() < 1


@pytest.mark.parametrize("choice", [0.0, ALMOST_ONE, 1.0])
def test_the_ends_of_the_choice_lead_to_an_operator(choice):
    assert parse_strategy(DSA_STRATEGY).chosen(choice) == ["rotate" if choice else "color"]


def test_half_of_the_draws_flip():
    numbers = draw(1000, Strategy(("flip",)), generator(1))[:, 1:]
    flipped = OPERATORS["flip"](spot(2, 0, 0).expand(1000, -1, -1, -1), numbers)
    assert abs(int(flipped[:, 0, 0, 1].sum()) - 500) < 3.3 * math.sqrt(250)


@pytest.mark.parametrize("text", [DSA_STRATEGY, "crop+flip"])
def test_augmenting_leaves_the_global_chance_and_its_input_alone(text, global_chance_untouched):
    strategy, images = parse_strategy(text), torch.randn(6, 2, 3, 8, 8)
    before = images.clone()
    with global_chance_untouched():
        draws = draw(6, strategy, generator(0))
        augment_classes(images, draws, strategy)
        for one, row in zip(images, draws):
            augment_shared(one, row, strategy)
            augment_images(one, float(row[0]), row[None, 1:].expand(2, -1), strategy)
    assert torch.equal(images, before)


@pytest.mark.parametrize("strategy", [True, 3, ["crop"]])
def test_an_augmentation_that_is_no_text_is_told(strategy):
    with pytest.raises(ValueError, match="augment must be a text such as 'color_crop_flip', or None"):
        parse_strategy(strategy)
