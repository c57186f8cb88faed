"""The one door to the data sets: names, the root, and what is said when there is no copy."""

import subprocess
import sys
from pathlib import Path

import pytest

from clreplay.data import DataNotFoundError, data_root, load_dataset


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


@pytest.mark.parametrize("name", ["cifar10", "svhn", "tinyimagenet", "imagenet", "imagenette1k", "imagewoof"])
def test_colour_sets_have_three_channels(tmp_path, name):
    with pytest.raises(ValueError, match=f"channels must be 3 for {name}, got 1; leave it out"):
        load_dataset(name, tmp_path, channels=1)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "cifar10",
            ["CIFAR-10 was not found at", "Connection refused", "put cifar-10-python.tar.gz there; it is unpacked"],
        ),
        (
            "cifar100",
            [
                "/nowhere/cifar100",
                "cifar-100-python: in none of",
                "train-*.parquet",
                "Connection refused",
                "put cifar-100-python.tar.gz there",
            ],
        ),
        ("mnist", ["MNIST/raw", "train-images-idx3-ubyte.gz", "RuntimeError"]),
        ("fashionmnist", ["FashionMNIST/raw", "train-images-idx3-ubyte.gz", "RuntimeError"]),
        ("svhn", ["train_32x32.mat", "Connection refused", "http://ufldl.stanford.edu/housenumbers/"]),
        (
            "tinyimagenet",
            [
                "/tiny-imagenet-200.zip",
                "/tinyimagenet",
                "Connection refused",
                "http://cs231n.stanford.edu/tiny-imagenet",
            ],
        ),
        ("imagenette", ["/imagenette2-160.tgz", "Connection refused", "https://s3.amazonaws.com/fast-ai-imageclas/"]),
        ("imagenet", ["no public address", "https://image-net.org/download", "imagenet/train/WNID/", "kaggle.com"]),
        ("imagewoof1k", ["ImageWoof from ImageNet-1K was not found at", "https://image-net.org/download"]),
    ],
)
def test_no_copy_and_no_network_gives_one_error_with_every_way_out(tmp_path, monkeypatch, name, parts):
    nowhere = tmp_path / "nowhere"
    monkeypatch.setenv("CLREPLAY_DATA", str(nowhere))
    with pytest.raises(DataNotFoundError) as caught:
        load_dataset(name)
    message = str(caught.value)
    if "no public address" not in message:
        parts = [*parts, f"download into {nowhere}: "]
        with pytest.raises(DataNotFoundError, match="not tried, because download=False"):
            load_dataset(name, download=False)
    for part in (*parts, str(nowhere), "--data-root", "CLREPLAY_DATA", "python runs/digits_5step.py --memory ddm"):
        assert part in message
    assert isinstance(caught.value, FileNotFoundError)
    assert not nowhere.exists()
