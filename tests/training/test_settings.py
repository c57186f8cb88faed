"""The length of a training and its drops; settings that are refused."""

import math

import pytest

from clreplay.training.settings import TrainingSettings


def test_1001_epochs_run_for_1000_and_the_rate_drops_after_index_501():
    for images in (100, 400, 2000, 5000):
        assert TrainingSettings().epochs_for(images) == 1001
        assert TrainingSettings().drops_after(images) == {501}


@pytest.mark.parametrize(
    ("updates", "images", "epochs", "drop_after"),
    [(250, 400, 125, 61), (250, 2000, 32, 15), (250, 256, 250, 124), (30, 10, 30, 14), (3, 400, 2, 0), (1, 400, 1, -1)],
)
def test_updates_are_rounded_up_to_whole_epochs_and_the_rate_drops_at_half(updates, images, epochs, drop_after):
    settings = TrainingSettings(updates=updates)
    steps = math.ceil(images / 256)
    assert settings.epochs_for(images) == epochs and epochs * steps >= updates > (epochs - 1) * steps
    assert settings.drops_after(images) == {drop_after}
    assert drop_after + 1 == epochs // 2  # epochs before the drop


def test_a_factor_of_one_is_no_drop():
    assert TrainingSettings(lr_drop=1.0).drops_after(100) == TrainingSettings(lr_drop=1.0, updates=9).drops_after(9)
    assert not TrainingSettings(lr_drop=1.0).drops_after(100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"updates": 0}, r"updates must be at least 1 \(or null for epochs\), got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be positive, got 0.0"),
        ({"momentum": -0.1}, r"momentum must be within \[0, 1\), got -0.1"),
        ({"momentum": 1.0}, "momentum must be within"),
        ({"weight_decay": -1e-4}, "weight_decay must not be negative"),
        ({"lr_drop": -1.0}, "lr_drop must not be negative"),
        ({"augment": "blur"}, "augment must join operators"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"norm": "instanse"}, "norm must be one of instance.*'instanse'"),
        ({"activation": "gelu"}, "activation must be one of"),
        ({"pooling": "mean"}, "pooling must be one of"),
        ({"norm": "group", "width": 6}, "width must be a multiple of 4"),
    ],
)
def test_a_setting_that_would_only_fail_later_is_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**options)
