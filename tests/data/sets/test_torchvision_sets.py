"""MNIST, FashionMNIST and SVHN from torchvision's files, shards, class folders and a download."""

import gzip
import hashlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from data_helpers import cache_files, encoded, serving, write, write_shard
from PIL import Image
from scipy.io import savemat

from clreplay.data import NORMALIZATIONS, DataNotFoundError, InvalidDataError, load_dataset
from clreplay.data.readers.counts import Counts
from clreplay.data.sets import torchvision_sets

OFFICIAL = dict(torchvision_sets.SPECS)
COUNTS = {"train": Counts(24, (4, 2, 3, 2, 2, 2, 2, 2, 2, 3)), "test": Counts(11, (2, *[1] * 9))}
FILES = {"train": "train", "test": "t10k"}
FOLDER = {"mnist": "MNIST", "fashionmnist": "FashionMNIST"}


@pytest.fixture(autouse=True)
def small_official_sets(monkeypatch):
    """The sets with a few images a class."""
    for name, spec in OFFICIAL.items():
        monkeypatch.setitem(torchvision_sets.SPECS, name, replace(spec, counts=COUNTS))


def rows(split, channels=1, size=28):
    """Images uint8 (n, c, h, w) and labels of a split."""
    random = np.random.RandomState(len(split))
    labels = random.permutation(np.repeat(np.arange(10), COUNTS[split].per_class))
    return random.randint(0, 256, (len(labels), channels, size, size)).astype(np.uint8), labels.astype(np.int64)


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def write_idx(folder, ending=""):
    for split, name in FILES.items():
        images, labels = rows(split)
        for array, kind in ((images[:, 0], "images-idx3"), (labels, "labels-idx1")):
            data = idx(array)
            write(folder / f"{name}-{kind}-ubyte{ending}", gzip.compress(data, mtime=0) if ending else data)
    return folder


def assert_holds_rows(dataset, name, channels=1, size=28):
    assert dataset.name == name
    for split in ("train", "test"):
        images, labels = rows(split, 3 if name == "svhn" else 1, size)
        found = getattr(dataset, split)
        assert np.array_equal(found.images.numpy(), np.broadcast_to(images, (len(labels), channels, size, size)))
        assert np.array_equal(found.labels.numpy(), labels)
    assert dataset.normalization == NORMALIZATIONS[name].expand(channels)


def test_the_official_numbers_are_those_published():
    totals = {name: tuple(counts.total for counts in spec.counts.values()) for name, spec in OFFICIAL.items()}
    assert totals == {"mnist": (60_000, 10_000), "fashionmnist": (60_000, 10_000), "svhn": (73_257, 26_032)}
    for spec in OFFICIAL.values():
        for counts in spec.counts.values():
            assert sum(counts.of_class(label)[0] for label in range(10)) == counts.total
        assert len(spec.class_names) == 10


# --- MNIST and FashionMNIST -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOLDER)
@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("place", ["{folder}/raw", "{name}/{folder}/raw", "{name}"])
def test_torchvisions_files_are_read_plain_and_compressed(tmp_path, name, ending, place):
    write_idx(tmp_path / place.format(name=name, folder=FOLDER[name]), ending)
    dataset = load_dataset(name, tmp_path, download=False)
    assert_holds_rows(dataset, name)
    assert dataset.class_names[9] == {"mnist": "9", "fashionmnist": "Ankle boot"}[name]
    assert cache_files() == []  # nothing to decode
    assert_holds_rows(load_dataset(name, tmp_path, channels=3), name, channels=3)


def test_torchvision_reads_the_same_from_these_files(tmp_path):
    write_idx(tmp_path / "MNIST" / "raw")
    dataset = load_dataset("mnist", tmp_path)
    for split in ("train", "test"):
        reference = torchvision.datasets.MNIST(tmp_path, train=split == "train")
        assert torch.equal(getattr(dataset, split).images[:, 0], reference.data)
        assert torch.equal(getattr(dataset, split).labels, reference.targets)


def test_the_root_may_be_torchvisions_folder_itself(tmp_path):
    write_idx(tmp_path / "MNIST" / "raw")
    assert_holds_rows(load_dataset("mnist", tmp_path / "MNIST", download=False), "mnist")


def test_images_that_were_read_may_be_written_to(tmp_path):
    write_idx(tmp_path / "MNIST" / "raw")
    load_dataset("mnist", tmp_path).train.images[0] = 7


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("t10k-labels-idx1-ubyte", None, r"has no t10k-labels-idx1-ubyte \(nor t10k-labels-idx1-ubyte.gz\)"),
        (
            "train-images-idx3-ubyte",
            lambda data: data[:-9],
            "train-images-idx3-ubyte is damaged or not complete: 18823",
        ),
        ("train-images-idx3-ubyte", lambda data: data[:7], "train-images-idx3-ubyte is no file of 3 dimensions"),
        ("train-labels-idx1-ubyte", lambda data: b"<html>", "train-labels-idx1-ubyte is no file of 1 dimensions"),
        (
            "train-labels-idx1-ubyte",
            lambda data: idx(np.zeros(23)),
            "has 24 images but 23 labels of train",
        ),
        ("t10k-labels-idx1-ubyte", lambda data: idx(np.full(11, 10)), r"must have labels 0\.\.9, got 10\.\.10"),
        (
            "t10k-labels-idx1-ubyte",
            lambda data: idx(np.full(11, 9)),
            r"MNIST must have 2 images in class 0 \(test\), got 0",
        ),
        (
            "t10k-images-idx3-ubyte",
            lambda data: idx(np.zeros((11, 32, 32))),
            r"is not MNIST: images must be \(1, 28, 28\), got \(11, 1, 32, 32\)",
        ),
    ],
)
def test_a_fault_in_mnists_files_is_named_and_not_downloaded_over(tmp_path, file, change, message):
    path = write_idx(tmp_path / "MNIST" / "raw") / file
    data = path.read_bytes()
    path.unlink()
    if change:
        path.write_bytes(change(data))
    with pytest.raises(InvalidDataError, match=message):
        load_dataset("mnist", tmp_path)


@pytest.mark.parametrize("change", [lambda data: data[:-20], lambda data: data[:100] + b"xyz" + data[103:]])
def test_a_damaged_compressed_file_is_named(tmp_path, change):
    path = write_idx(tmp_path / "MNIST" / "raw", ".gz") / "train-images-idx3-ubyte.gz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InvalidDataError, match="train-images-idx3-ubyte.gz is damaged or not complete: .*; fetch it"):
        load_dataset("mnist", tmp_path)


@pytest.mark.parametrize("channels", [None, 3])
def test_shards_of_grey_images(tmp_path, channels):
    for split in ("train", "test"):
        images, labels = rows(split)
        data = [encoded(Image.fromarray(image[0]), "PNG") for image in images]
        write_shard(tmp_path / "mnist" / f"{split}-00000-of-00001.parquet", data, labels.tolist())
    assert_holds_rows(load_dataset("mnist", tmp_path, channels=channels), "mnist", channels or 1)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_class_folders_of_grey_images(tmp_path, mode):
    wanted = {}
    for split in ("train", "test"):
        images, labels = rows(split)
        for number in np.argsort(labels, kind="stable"):
            path = tmp_path / "mnist" / split / str(labels[number]) / f"{number:03d}.png"
            write(path, Image.fromarray(images[number, 0]).convert(mode))
            wanted.setdefault(split, []).append(number)
    dataset = load_dataset("mnist", tmp_path)
    assert dataset.class_names == tuple("0123456789")
    for split, order in wanted.items():
        images, labels = rows(split)
        assert np.array_equal(getattr(dataset, split).images.numpy(), images[order])
        assert np.array_equal(getattr(dataset, split).labels.numpy(), labels[order])


def test_class_folders_of_other_names_keep_their_names(tmp_path):
    """Sorted folder names need not be in the official order, so they may not take the official names."""
    names = sorted("boot bag coat dress pull sandal shirt sneaker top trouser".split())
    for split in ("train", "test"):
        for name, count in zip(names, COUNTS[split].per_class, strict=True):
            for number in range(count):
                write(tmp_path / "fashionmnist" / split / name / f"{number}.png", Image.new("L", (28, 28), number))
    assert load_dataset("fashionmnist", tmp_path).class_names == tuple(names)


@pytest.fixture
def mnist_server(tmp_path, monkeypatch):
    served = write_idx(tmp_path / "served", ".gz")
    resources = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in sorted(served.iterdir())]
    with serving(served) as address:
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"{address}/"])
        monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
        yield served


def test_mnist_is_downloaded_whole_and_found_the_next_time(tmp_path, mnist_server):
    dataset = load_dataset("mnist", tmp_path / "data")
    assert_holds_rows(dataset, "mnist")
    assert dataset.source == f"MNIST downloaded with torchvision into {tmp_path / 'data' / 'MNIST'}."
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["MNIST"]
    assert_holds_rows(load_dataset("mnist", tmp_path / "data", download=False), "mnist")


def test_a_damaged_download_leaves_nothing_behind(tmp_path, mnist_server):
    path = mnist_server / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataNotFoundError, match="t10k-images-idx3-ubyte"):
        load_dataset("mnist", tmp_path / "data")
    assert not (tmp_path / "data").exists()


# --- SVHN -------------------------------------------------------------------------------------------------------


def write_mat(folder, monkeypatch):
    folder.mkdir(parents=True, exist_ok=True)
    lists = dict(torchvision.datasets.SVHN.split_list)
    for split in ("train", "test"):
        images, labels = rows(split, 3, 32)
        path = folder / f"{split}_32x32.mat"
        # The official files number the digit 0 as class 10.
        savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": np.where(labels == 0, 10, labels)[:, None]})
        lists[split] = [lists[split][0], path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", lists)
    return folder


@pytest.mark.parametrize("place", [".", "svhn", "SVHN"])
def test_svhns_files_are_read(tmp_path, monkeypatch, place):
    write_mat(tmp_path / place, monkeypatch)
    dataset = load_dataset("svhn", tmp_path, download=False)
    assert_holds_rows(dataset, "svhn", channels=3, size=32)
    assert dataset.train.images.is_contiguous()
    with pytest.raises(ValueError, match="channels must be 3 for svhn, got 1"):
        load_dataset("svhn", tmp_path, channels=1)


def test_a_fault_in_svhns_files_is_named(tmp_path, monkeypatch):
    folder = write_mat(tmp_path / "svhn", monkeypatch)
    whole = (folder / "test_32x32.mat").read_bytes()
    (folder / "test_32x32.mat").write_bytes(whole[:-1])
    with pytest.raises(InvalidDataError, match="test_32x32.mat has a wrong checksum; delete it and fetch it again"):
        load_dataset("svhn", tmp_path)
    (folder / "test_32x32.mat").unlink()
    with pytest.raises(InvalidDataError, match="svhn has no test_32x32.mat"):
        load_dataset("svhn", tmp_path)


def test_wrong_numbers_in_svhns_files_are_named(tmp_path, monkeypatch):
    write_mat(tmp_path, monkeypatch)
    monkeypatch.setitem(torchvision_sets.SPECS, "svhn", OFFICIAL["svhn"])
    with pytest.raises(InvalidDataError, match=r"SVHN must have 4948 images in class 0 \(train\), got 4"):
        load_dataset("svhn", tmp_path)


def test_svhn_is_downloaded_and_a_download_that_broke_off_goes_on(tmp_path, monkeypatch):
    served = write_mat(tmp_path / "served", monkeypatch)
    with serving(served) as address:
        lists = {split: [f"{address}/{e[1]}", *e[1:]] for split, e in torchvision.datasets.SVHN.split_list.items()}
        monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", lists)
        (tmp_path / "data").mkdir()
        shutil.copy(served / "test_32x32.mat", tmp_path / "data")
        assert_holds_rows(load_dataset("svhn", tmp_path / "data"), "svhn", channels=3, size=32)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["test_32x32.mat", "train_32x32.mat"]
    assert_holds_rows(load_dataset("svhn", tmp_path / "data", download=False), "svhn", channels=3, size=32)
