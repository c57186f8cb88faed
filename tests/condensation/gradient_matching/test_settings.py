"""Settings of gradient matching: the published loops, what is refused, and the recipes of DC and DSA."""

from dataclasses import asdict, replace

import pytest

from clreplay.condensation.gradient_matching.settings import PUBLISHED_LOOPS, GradientSettings
from clreplay.recipes.recipe import load_recipe

STRATEGY = "color_crop_cutout_flip_scale_rotate"
DSA = GradientSettings(init="real", siamese_augment=STRATEGY, inner_augment=STRATEGY)


@pytest.mark.parametrize(
    ("images_per_class", "given", "expected"),
    [(count, {}, loops) for count, loops in PUBLISHED_LOOPS.items()]
    + [
        (100, {}, (50, 10)),
        (250, {}, (50, 10)),
        (10, {"outer_loops": 3}, (3, 50)),
        (10, {"inner_epochs": 3}, (10, 3)),
        (7, {"outer_loops": 4, "inner_epochs": 2}, (4, 2)),
    ],
)
def test_the_loops_are_the_published_ones_unless_given(images_per_class, given, expected):
    assert GradientSettings(**given).loops(images_per_class) == expected


def test_the_published_loops_are_those_of_the_authors():
    assert PUBLISHED_LOOPS == {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"outer_loops": 0}, "outer_loops must be at least 1, got 0"),
        ({"inner_epochs": 0}, "inner_epochs must be at least 1, got 0"),
        ({"real_batch": 0}, "real_batch must be at least 1, got 0"),
        ({"batch_net": 0}, "batch_net must be at least 1, got 0"),
        ({"statistics_batch": 0}, "statistics_batch must be at least 1, got 0"),
        ({"lr_img": 0.0}, "lr_img must be positive, got 0.0"),
        ({"lr_net": -1.0}, "lr_net must be positive, got -1.0"),
        ({"momentum_img": 1.0}, r"momentum_img must be within \[0, 1\), got 1.0"),
        ({"init": "zeros"}, "init must be one of real, noise, got 'zeros'"),
        ({"distance": "l2"}, "distance must be one of row_cosine, whole_cosine, squared, got 'l2'"),
        ({"siamese_augment": "blur"}, "siamese_augment must join operators.*'blur'"),
        ({"inner_augment": "blur"}, "inner_augment must join operators.*'blur'"),
        ({"norm": "instanse"}, "norm"),
    ],
)
def test_a_setting_out_of_range_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(DSA, **changes)


def test_the_recipes_are_dc_s_and_dsa_s_and_differ_in_start_and_augmentation_alone():
    dc, dsa = (load_recipe(name) for name in ("dc", "dsa"))
    assert (dc.label, dsa.label) == ("DC", "DSA")
    assert dc.settings() == GradientSettings()
    paper = asdict(dsa.settings())
    expected = {
        "iterations": 1000,
        "outer_loops": None,
        "inner_epochs": None,
        "lr_img": 0.1,
        "momentum_img": 0.5,
        "lr_net": 0.01,
        "batch_net": 256,
        "real_batch": 256,
        "init": "real",
        "siamese_augment": STRATEGY,
        "inner_augment": STRATEGY,
        "distance": "row_cosine",
        "statistics_batch": 16,
        "width": 128,
        "norm": "instance",
    }
    assert {key: paper[key] for key in expected} == expected
    plain = asdict(dc.settings())
    assert {key for key in paper if paper[key] != plain[key]} == {"init", "siamese_augment", "inner_augment"}
    for preset in ("cpu", "smoke"):  # any number of images a class
        for recipe in (dc, dsa):
            recipe.settings(preset).loops(7)
    digits = dsa.settings("cpu", dataset="digits")
    assert "flip" not in digits.siamese_augment + digits.inner_augment and digits.init == "real"
