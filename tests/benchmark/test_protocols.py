"""How networks are trained under each protocol."""

from dataclasses import asdict, replace

import pytest

from clreplay.benchmark.protocols import AUTHORS, Training, search_trainings, training_of
from clreplay.recipes.recipe import PRESETS, recipe_names, training_settings
from clreplay.training.cutmix import CutMixSettings

# ---------------------------------------------------------------- protocols


@pytest.mark.parametrize("preset", PRESETS)
def test_the_common_protocol_is_the_learner_s_recipe_for_every_method(preset):
    for recipe in recipe_names():
        assert training_of("common", recipe, "ConvNet", preset) == Training("dm", training_settings(preset))


def test_all_real_images_have_a_length_of_their_own():
    paper = training_of("common", "whole", "ConvNet", "paper")
    assert paper == Training("dm", replace(training_settings("paper"), epochs=200))
    assert training_of("authors", "whole", "ConvNet", "paper") == paper
    assert training_of("common", "whole", "ConvNet", "cpu").settings.updates == 2000
    assert training_of("common", "whole", "ConvNet", "paper", {"epochs": 7}).settings.epochs == 7


def test_networks_without_a_width_keep_its_default_under_small_presets():
    settings = training_of("common", "dm", "ResNet18", "smoke").settings
    assert (settings.network, settings.width) == ("resnet18", 128)
    assert training_of("common", "dm", "ConvNet", "smoke").settings.width == 16


@pytest.mark.parametrize(
    ("recipe", "epochs", "batch", "augments"),
    [
        ("random", 300, 256, False),
        ("herding", 300, 256, False),
        ("forgetting", 300, 256, False),
        ("dc", 300, 256, False),
        ("dsa", 1000, 256, True),
        ("dm", 1000, 256, True),
        ("ddm", 1000, 256, True),
        ("cafe", 1000, 256, True),
        ("idm", 1000, 256, True),
        ("datadam", 1800, 64, True),
        ("datadam+sm", 1800, 64, True),
    ],
)
def test_authors_evaluate_as_their_papers_and_codes_say(recipe, epochs, batch, augments):
    training = training_of("authors", recipe, "ConvNet", "paper")
    s = training.settings
    assert training.loop == "dm"
    assert (s.epochs, s.batch_size, s.augment is not None) == (epochs, batch, augments)
    assert s.norm == ("batch" if recipe.startswith("datadam") else "instance")
    assert training_of("authors", recipe, "ResNet18", "paper").settings.network == "resnet18"  # its norm is in its name


def test_authors_lengths_are_scaled_where_a_preset_counts_updates():
    assert training_of("authors", "dc", "ConvNet", "cpu").settings.updates == 90
    assert training_of("authors", "datadam", "ConvNet", "cpu").settings.updates == 540
    assert training_of("authors", "dm", "ConvNet", "cpu") == training_of("common", "dm", "ConvNet", "cpu")
    assert set(AUTHORS) <= set(recipe_names())


def test_dd_s_own_evaluation_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="steps and step sizes that were learned"):
        training_of("authors", "dd", "ConvNet", "paper")


def test_idc_s_evaluation_has_idc_s_numbers_for_everybody():
    training = training_of("idc", "ddm", "ConvNet", "paper")
    assert training == Training("cutmix", CutMixSettings())
    s = training.settings
    assert (s.epochs, s.batch_size, s.lr, s.momentum, s.weight_decay) == (1000, 64, 0.01, 0.9, 5e-4)
    assert (s.lr_drop, s.mix, s.augment) == (0.2, 0.5, "color_crop_flip_scale_rotate")
    assert s.epochs_for(100) == 1000 and s.drops_after(100) == {665, 832}
    assert training_of("authors", "dance", "ConvNet", "paper") == training
    small = training_of("idc", "ddm", "ConvNet", "cpu", {"mix": 0.25}).settings
    assert (small.width, small.updates, small.mix, small.batch_size) == (32, 300, 0.25, 64)


def test_a_training_survives_being_plain_values():
    for training in (training_of("common", "dm", "VGG11", "cpu"), training_of("idc", "dm", "ConvNet", "smoke")):
        assert Training.from_plain(training.as_plain()) == training


def test_a_search_trains_both_ways_for_200_epochs():
    options = {"width": 64, "depth": 2, "norm": "batch", "activation": "sigmoid", "pooling": "max"}
    condensed, real = search_trainings(options, "paper")
    assert condensed == real
    assert condensed.settings == replace(training_settings("paper"), epochs=200, **options)
    condensed, real = search_trainings(options, "cpu")
    assert (condensed.settings.updates, real.settings.updates, condensed.settings.width) == (60, 400, 64)


def test_settings_name_everything_that_decides():
    assert set(asdict(CutMixSettings())) >= set(asdict(training_settings())) | {"mix"}
