"""The digits of scikit-learn: their split, how they are enlarged, and their constants."""

import hashlib

import numpy as np
import pytest
import torch

from clreplay.data import load_dataset


def test_digits_have_the_documented_shape_and_split():
    digits = load_dataset("digits")
    assert digits.train.images.shape == (1198, 1, 32, 32)
    assert digits.test.images.shape == (599, 1, 32, 32)
    assert digits.class_names == tuple("0123456789")
    for label in range(10):
        train, test = len(digits.train.class_images(label)), len(digits.test.class_images(label))
        assert train == round((train + test) * 2 / 3)


def test_digits_are_the_same_every_time_and_cover_scikit_learn():
    first, second = load_dataset("digits"), load_dataset("digits")
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.test.labels, second.test.labels)
    # A change of the split or of the pixels would change every recorded number.
    pixels = torch.cat([first.train.images, first.test.images]).numpy().tobytes()
    assert hashlib.sha256(pixels).hexdigest()[:16] == "796c522a00deeb15"


def test_digits_are_enlarged_bilinearly_and_rounded():
    from sklearn.datasets import load_digits

    from clreplay.data.sets.digits import _enlarge

    source = load_digits().images[:50]
    codes = np.rint(source * 255 / 16)
    edge = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7)
    low = np.minimum(edge.astype(int), 6)
    weight = np.zeros((32, 8))
    weight[np.arange(32), low], weight[np.arange(32), low + 1] = 1 - (edge - low), edge - low
    expected = np.rint(weight @ codes @ weight.T)
    assert np.array_equal(_enlarge(source)[:, 0].numpy(), expected)


def test_digits_constants_match_the_training_images():
    digits = load_dataset("digits")
    pixels = digits.train.images.double() / 255
    assert digits.normalization.mean[0] == pytest.approx(pixels.mean().item(), abs=5e-5)
    assert digits.normalization.std[0] == pytest.approx(pixels.std(correction=0).item(), abs=5e-5)


def test_digits_in_three_channels_repeat_the_grey_image():
    grey, colour = load_dataset("digits"), load_dataset("digits", channels=3)
    assert torch.equal(colour.test.images, grey.test.images.expand(-1, 3, -1, -1))
    assert colour.normalization == grey.normalization.expand(3)
    with pytest.raises(ValueError, match="channels must be 1 or 3 for digits, got 2"):
        load_dataset("digits", channels=2)
