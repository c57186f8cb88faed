"""MNIST, FashionMNIST and SVHN from torchvision's files, Parquet shards, class folders or torchvision's download."""

from __future__ import annotations

import gzip
import logging
import math
import os
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from clreplay.data.dataset import Dataset, ImageSet
from clreplay.data.errors import InvalidDataError
from clreplay.data.normalization import NORMALIZATIONS
from clreplay.data.readers.bounds import check_size
from clreplay.data.readers.counts import Counts, even
from clreplay.data.readers.finding import listed, network_timeout, staging
from clreplay.data.readers.image_files import Target
from clreplay.data.readers.image_sets import load_images
from clreplay.data.readers.spec import SPLITS, ImageSpec
from clreplay.data.readers.torchvision_files import dataset_of_arrays, move_folder, torchvision_class
from clreplay.data.registry import check_channels, register_dataset

_logger = logging.getLogger(__name__)
_DIGITS = tuple("0123456789")
# The names of torchvision's classes, which are also those of its folders.
_CLASSES = {"mnist": "MNIST", "fashionmnist": "FashionMNIST", "svhn": "SVHN"}
_IDX_FILES = {split: (f"{name}-images-idx3-ubyte", f"{name}-labels-idx1-ubyte") for split, name in
              (("train", "train"), ("test", "t10k"))}  # fmt: skip
_ENDINGS = ("", ".gz")
_LARGEST_IDX = 1 << 26  # bytes; the largest file of MNIST unpacks to 47,040,016
_MAT_FILES = {split: f"{split}_32x32.mat" for split in SPLITS}

SPECS = {
    "mnist": ImageSpec(
        name="mnist",
        title="MNIST",
        target=Target(28, channels=1),
        counts={
            "train": Counts(60_000, (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)),
            "test": Counts(10_000, (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)),
        },
        normalization=NORMALIZATIONS["mnist"],
        folders=("mnist", "MNIST"),
        num_classes=10,
        class_names=_DIGITS,
        ways_out=("put the four files of MNIST (train-images-idx3-ubyte.gz, ...) into MNIST/raw/ there",),
    ),
    "fashionmnist": ImageSpec(
        name="fashionmnist",
        title="FashionMNIST",
        target=Target(28, channels=1),
        counts={"train": even(6000, 10), "test": even(1000, 10)},
        normalization=NORMALIZATIONS["fashionmnist"],
        folders=("fashionmnist", "fashion_mnist", "FashionMNIST"),
        num_classes=10,
        class_names=(
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ),
        ways_out=("put the four files of FashionMNIST (train-images-idx3-ubyte.gz, ...) into FashionMNIST/raw/ there",),
    ),
    "svhn": ImageSpec(
        name="svhn",
        title="SVHN",
        target=Target(32),
        counts={
            "train": Counts(73_257, (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659)),
            "test": Counts(26_032, (1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595)),
        },
        normalization=NORMALIZATIONS["svhn"],
        folders=("svhn", "SVHN", "svhn/cropped_digits"),
        num_classes=10,
        class_names=_DIGITS,
        ways_out=("put train_32x32.mat and test_32x32.mat there, from http://ufldl.stanford.edu/housenumbers/",),
    ),
}  # fmt: skip


@register_dataset("mnist", "fashionmnist")
def load_idx_set(name: str, root: Path, *, download: bool, channels: int | None) -> Dataset:
    """MNIST (LeCun et al. 1998) or FashionMNIST (Xiao et al. 2017), 28x28, grey.

    torchvision's files are `MNIST/raw/train-images-idx3-ubyte` and three more, unpacked or as `.gz`. With three
    channels the grey image and its constants are repeated.

    Raises: see `clreplay.data.readers.image_sets.load_images`.
    """
    channels = check_channels(name, channels, (1, 3))
    spec, folder = SPECS[name], _CLASSES[name]
    grey = load_images(
        spec,
        root,
        download=download,
        first=[lambda: _from_idx(spec, root, folder)],
        fetch=lambda: _fetch_idx(spec, root, folder),
    )
    return grey if channels == 1 else _repeat_channels(grey, channels)


@register_dataset("svhn")
def load_svhn(name: str, root: Path, *, download: bool, channels: int | None) -> Dataset:
    """SVHN (Netzer et al. 2011), cropped digits, 32x32, colour; the extra training images are left out.

    Raises: see `clreplay.data.readers.image_sets.load_images`.
    """
    check_channels(name, channels, (3,))
    spec = SPECS[name]
    first = [lambda: _from_mat(spec, root)]
    return load_images(spec, root, download=download, first=first, fetch=lambda: _fetch_mat(spec, root))


# --- MNIST's files ----------------------------------------------------------------------------------------------


def _from_idx(spec: ImageSpec, root: Path, folder: str) -> Dataset | str:
    places = [root / folder / "raw", root / spec.name / folder / "raw", root / spec.name, root / folder]
    if root.name == folder:
        places.insert(0, root / "raw")
    for place in places:
        files = [place / f"{name}{ending}" for names in _IDX_FILES.values() for name in names for ending in _ENDINGS]
        if any(path.is_file() for path in files):
            return _read_idx_folder(spec, place)
    return f"torchvision's files {_IDX_FILES['train'][0]}, ...: in none of {listed(places)}"


def _read_idx_folder(spec: ImageSpec, folder: Path) -> Dataset:
    arrays = {}
    for split, (images, labels) in _IDX_FILES.items():
        pixels = read_idx(_present(folder, images), 3)
        arrays[split] = pixels[:, None], read_idx(_present(folder, labels), 1).astype(np.int64)
    return dataset_of_arrays(spec, folder, arrays, spec.class_names or ())


def _present(folder: Path, name: str) -> Path:
    for ending in _ENDINGS:
        if (folder / f"{name}{ending}").is_file():
            return folder / f"{name}{ending}"
    raise InvalidDataError(f"{folder.absolute()} has no {name} (nor {name}.gz); copy or fetch it again")


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """A uint8 array in MNIST's format, plain or compressed.

    Raises:
        InvalidDataError: the file is damaged, cut off, or holds something else.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(_LARGEST_IDX + 1)  # what it unpacks to is not known before
        check_size(len(data), _LARGEST_IDX)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InvalidDataError(f"{path} is damaged or not complete: {error}; fetch it again") from error
    start = 4 + 4 * dimensions
    if len(data) < start or data[:4] != bytes([0, 0, 8, dimensions]):
        raise InvalidDataError(f"{path} is no file of {dimensions} dimensions in MNIST's format; fetch it again")
    shape = np.frombuffer(data, ">i4", dimensions, offset=4).tolist()
    if len(data) != start + math.prod(shape):
        raise InvalidDataError(
            f"{path} is damaged or not complete: {len(data)} bytes instead of {start + math.prod(shape)}; "
            "fetch it again"
        )
    values: np.ndarray = np.frombuffer(data, np.uint8, offset=start).reshape(shape)
    return values


def _fetch_idx(spec: ImageSpec, root: Path, folder: str) -> Dataset:
    dataset_class, target = torchvision_class(spec, folder), root / folder
    with staging(root) as place, network_timeout():
        _logger.info("downloading %s into %s", spec.title, root.absolute())
        dataset_class(str(place), download=True)
        dataset = _read_idx_folder(spec, place / folder / "raw")
        move_folder(place / folder, target)
    return replace(dataset, source=f"{spec.title} downloaded with torchvision into {target.absolute()}.")


# --- SVHN's files -----------------------------------------------------------------------------------------------


def _from_mat(spec: ImageSpec, root: Path) -> Dataset | str:
    places = [root, root / "svhn", root / "SVHN"]
    for place in places:
        # A download that broke off between its two files left the test file only.
        if (place / _MAT_FILES["train"]).is_file():
            return _read_mat(spec, place)
    return f"{' and '.join(_MAT_FILES.values())}: in none of {listed(places)}"


def _read_mat(spec: ImageSpec, folder: Path) -> Dataset:
    from torchvision.datasets.utils import check_integrity

    dataset_class, arrays = torchvision_class(spec, "SVHN"), {}
    for split, name in _MAT_FILES.items():
        path = folder / name
        if not path.is_file():
            raise InvalidDataError(f"{folder.absolute()} has no {name}; copy or fetch it again")
        if not check_integrity(str(path), dataset_class.split_list[split][2]):
            raise InvalidDataError(f"{path} has a wrong checksum; delete it and fetch it again")
        part = dataset_class(str(folder), split=split)
        arrays[split] = part.data, np.asarray(part.labels, dtype=np.int64)
    return dataset_of_arrays(spec, folder, arrays, spec.class_names or ())


def _fetch_mat(spec: ImageSpec, root: Path) -> Dataset:
    dataset_class = torchvision_class(spec, "SVHN")
    with staging(root) as place, network_timeout():
        _logger.info("downloading %s into %s", spec.title, root.absolute())
        for split in SPLITS:
            dataset_class(str(place), split=split, download=True)
        dataset = _read_mat(spec, place)
        for split in ("test", "train"):  # the training file last: `_from_mat` takes it for a sign that both are there
            os.replace(place / _MAT_FILES[split], root / _MAT_FILES[split])
    return replace(dataset, source=f"{spec.title} downloaded with torchvision into {root.absolute()}.")


def _repeat_channels(grey: Dataset, channels: int) -> Dataset:
    def repeat(images: ImageSet) -> ImageSet:
        return ImageSet(images.images.repeat(1, channels, 1, 1), images.labels)

    normalization = grey.normalization.expand(channels)
    return replace(grey, train=repeat(grey.train), test=repeat(grey.test), normalization=normalization)
