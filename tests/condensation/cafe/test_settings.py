"""Settings of CAFE: what is refused, the learning rate of the images, and the recipe."""

from dataclasses import asdict, replace

import pytest

from clreplay.condensation.cafe.settings import CafeSettings
from clreplay.recipes.recipe import load_recipe
from clreplay.training.augmentation import parse_strategy


def test_the_learning_rate_of_the_images_halves_where_the_authors_halve_it_and_in_proportion():
    paper = CafeSettings()
    rates = {1199: 0.1, 1200: 0.05, 1599: 0.05, 1600: 0.025, 1799: 0.025, 1800: 0.0125, 1999: 0.0125}
    assert {iteration: paper.lr_at(iteration) for iteration in rates} == rates
    short = replace(paper, iterations=10)
    assert [short.lr_at(i) for i in (5, 6, 7, 8, 9)] == [0.1, 0.05, 0.05, 0.025, 0.0125]
    assert {replace(paper, halve_at=()).lr_at(i) for i in range(2000)} == {0.1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"max_image_steps": 0}, "max_image_steps must be at least 1, got 0"),
        ({"max_epochs": 0}, "max_epochs must be at least 1, got 0"),
        ({"accuracy_images": 0}, "accuracy_images must be at least 1, got 0"),
        ({"window": 1}, "window must be at least 2 accuracies, got 1"),
        ({"lr_img": 0.0}, "lr_img must be positive, got 0.0"),
        ({"lr_net": -1.0}, "lr_net must be positive, got -1.0"),
        ({"momentum_img": 1.0}, r"momentum_img must be within \[0, 1\), got 1.0"),
        ({"halve_at": (0.5, 1.0)}, r"halve_at must hold parts of the iterations within \(0, 1\), got 1.0"),
        ({"settled_within": -0.1}, "settled_within must not be negative, got -0.1"),
        ({"discrimination_weight": -1.0}, "discrimination_weight must not be negative, got -1.0"),
        ({"init": "zeros"}, "init must be one of real, noise, got 'zeros'"),
        ({"siamese_augment": "blur"}, "siamese_augment must join operators.*'blur'"),
        (
            dict.fromkeys(("earlier_weight", "last_weight", "embedding_weight", "discrimination_weight"), 0.0),
            "every term has weight zero",
        ),
    ],
)
def test_a_setting_out_of_range_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(CafeSettings(), **changes)


def test_the_recipe_is_cafe_with_siamese_augmentation_and_can_be_had_without():
    recipe = load_recipe("cafe")
    paper = asdict(recipe.settings())
    expected = {
        "iterations": 2000, "lr_img": 0.1, "momentum_img": 0.5, "halve_at": (0.6, 0.8, 0.9), "real_batch": 256,
        "init": "noise", "siamese_augment": "color_crop_cutout_flip_scale_rotate", "earlier_weight": 0.1,
        "last_weight": 1.0, "embedding_weight": 2.0, "discrimination_weight": 0.01, "lr_net": 0.01,
        "accuracy_images": 128, "window": 10, "settled_within": 0.04, "moved_beyond": 0.03, "norm": "instance",
    }  # fmt: skip
    assert {key: paper[key] for key in expected} == expected
    plain = recipe.settings(overrides={"siamese_augment": "none"})
    assert replace(plain, siamese_augment=None) == CafeSettings()
    assert not parse_strategy(plain.siamese_augment).names
    assert "flip" not in recipe.settings(dataset="digits").siamese_augment
