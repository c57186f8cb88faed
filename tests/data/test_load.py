"""Image sets, the names and places of data sets, and the digits."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clreplay.data import (
    Dataset,
    ImageSet,
    Normalization,
    data_root,
    load_dataset,
    register_dataset,
    registry,
)
from clreplay.data import (
    load as loading,
)

# --- ImageSet and Dataset ---------------------------------------------------------------------------------------


def image_set(labels=(0, 1, 0, 2)):
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    return ImageSet(images, torch.tensor(labels))


def test_of_classes_keeps_order_and_labels():
    chosen = image_set().of_classes(np.array([2, 0]))
    assert chosen.labels.tolist() == [0, 0, 2]
    assert chosen.images[:, 0, 0, 0].tolist() == [0, 2, 3]
    assert len(chosen) == 3


def test_class_images_gives_the_images_of_one_class():
    assert image_set().class_images(0)[:, 0, 0, 0].tolist() == [0, 2]


def test_a_class_without_images_is_named():
    with pytest.raises(ValueError, match=r"classes must have images in this set, got \[7\].*\[0, 1, 2\]"):
        image_set().of_classes([0, 7])
    with pytest.raises(ValueError, match="label must have images in this set, got 7"):
        image_set().class_images(7)


PIXELS = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2).long(), r"images must be uint8 \(n, c, h, w\), got float32 \(2, 3"),
        (PIXELS[0], torch.zeros(2).long(), r"images must be uint8 \(n, c, h, w\), got uint8 \(3, 4, 4\)"),
        (PIXELS.numpy(), torch.zeros(2).long(), "images must be uint8.*got ndarray"),
        (PIXELS, torch.zeros(2).int(), r"labels must be int64 \(n,\), got int32"),
        (PIXELS, torch.zeros(2, 1).long(), r"labels must be int64 \(n,\), got int64 \(2, 1\)"),
        (PIXELS, [0, 1], "labels must be int64.*got list"),
        (PIXELS, torch.zeros(3).long(), "got 3 labels for 2 images"),
        (PIXELS, torch.tensor([0, -1]), "class numbers from 0, got -1"),
        (PIXELS, torch.zeros(2, device="meta").long(), "on the images' device cpu, got meta"),
    ],
)
def test_an_image_set_names_what_does_not_fit(images, labels, message):
    with pytest.raises(ValueError, match=message):
        ImageSet(images, labels)


def test_a_dataset_names_what_does_not_fit():
    rgb = Normalization((0.5,) * 3, (0.5,) * 3)
    good = Dataset("toy", image_set(), image_set(), ("a", "b", "c"), rgb, "Made here.")
    assert good.num_classes == 3
    with pytest.raises(ValueError, match="got 2 names but train label 2"):
        replace(good, class_names=("a", "b"))
    with pytest.raises(ValueError, match="normalization must have 3 channels, got 1"):
        replace(good, normalization=Normalization((0.5,), (0.5,)))
    with pytest.raises(ValueError, match=r"test images must be \(3, 4, 4\) like train"):
        replace(good, test=ImageSet(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1).long()))


# --- names and places -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CIFAR-100", "cifar100"),
        ("cifar_10", "cifar10"),
        ("digit", "digits"),
        ("Tiny-ImageNet", "tinyimagenet"),
        ("image woof", "imagewoof"),
    ],
)
def test_an_unknown_name_is_answered_with_the_known_ones(name, meant):
    known = "cifar10, cifar100, digits, fashionmnist, imagenet, .*, tinyimagenet, folder:PATH"
    with pytest.raises(ValueError, match=f"{known}, got '{name}'; did you mean '{meant}'"):
        load_dataset(name)


def test_a_name_close_to_nothing_gets_no_suggestion():
    with pytest.raises(ValueError, match="got 'zebras'$"):
        load_dataset("zebras")


def test_a_data_set_of_ones_own_is_registered_under_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "DATASETS", registry.DATASETS.copy())
    monkeypatch.setattr(loading, "DATASETS", registry.DATASETS)
    made = Dataset("toy", image_set(), image_set(), ("a", "b", "c"), Normalization((0.5,) * 3, (0.5,) * 3), "Made.")

    @register_dataset("toy")
    def load_toy(name, root, *, download, channels):
        assert (name, root, download, channels) == ("toy", tmp_path, False, 3)
        return made

    assert load_dataset("toy", tmp_path, download=False, channels=3) is made
    with pytest.raises(ValueError, match="did you mean 'toy'"):
        load_dataset("toys")


def test_a_name_that_is_taken_or_written_otherwise_is_refused():
    with pytest.raises(ValueError, match="name 'cifar10' is taken by clreplay.data.sets.cifar"):
        register_dataset("cifar10")
    with pytest.raises(ValueError, match="lower-case letters and digits, got 'My-Set'; write 'myset'"):
        register_dataset("My-Set")


def test_cifar_has_three_channels(tmp_path):
    with pytest.raises(ValueError, match="channels must be 3 for cifar10, got 1"):
        load_dataset("cifar10", tmp_path, channels=1)


def test_the_root_is_the_argument_then_the_environment_then_data(monkeypatch):
    monkeypatch.delenv("CLREPLAY_DATA", raising=False)
    assert data_root(None) == Path("data")
    monkeypatch.setenv("CLREPLAY_DATA", "")
    assert data_root(None) == Path("data")
    monkeypatch.setenv("CLREPLAY_DATA", "~/sets")
    assert data_root(None) == Path.home() / "sets"
    assert data_root("here") == Path("here")


def test_importing_loads_no_heavy_library():
    code = "import sys, clreplay.data; print([m for m in ('torchvision', 'pyarrow', 'sklearn') if m in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


# --- digits -----------------------------------------------------------------------------------------------------


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
