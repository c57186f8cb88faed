"""CIFAR from torchvision's folder, from Parquet shards, class folders and a download."""

import hashlib
import os
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from data_helpers import assert_refused, cache_files, encoded, serving, tarred, write, write_shard
from PIL import Image

from clreplay.data import DataNotFoundError, InvalidDataError, load_dataset
from clreplay.data.readers import image_files
from clreplay.data.readers.counts import even
from clreplay.data.sets import cifar

OFFICIAL = dict(cifar.SPECS)
REAL_DATA = os.environ.get("CLREPLAY_DATA")
PER_CLASS = {"cifar10": (5, 2), "cifar100": (2, 1)}
LABELS = {"cifar10": "label", "cifar100": "fine_label"}


@pytest.fixture(autouse=True)
def small_official_sets(monkeypatch):
    """CIFAR with a few images a class."""
    for name, (train, test) in PER_CLASS.items():
        spec = cifar.SPECS[name]
        counts = {"train": even(train, spec.num_classes), "test": even(test, spec.num_classes)}
        monkeypatch.setitem(cifar.SPECS, name, replace(spec, counts=counts))


def torchvision_class(name):
    return getattr(torchvision.datasets, cifar.NAMES[name].dataset_class)


def fake_rows(name, split):
    """Images uint8 (n, 3, 32, 32) and labels (n,), class by class in turn like a shuffled official file."""
    per_class = PER_CLASS[name][split == "test"]
    classes = cifar.SPECS[name].num_classes
    random = np.random.RandomState(len(name) * 2 + (split == "test"))
    images = random.randint(0, 256, (per_class * classes, 3, 32, 32)).astype(np.uint8)
    return images, np.tile(random.permutation(classes), per_class)


# --- torchvision's folder ---------------------------------------------------------------------------------------


def write_torchvision(parent, name, monkeypatch):
    """A small set in the official layout; torchvision's checksums are replaced by those of the small files."""
    dataset_class, classes = torchvision_class(name), cifar.SPECS[name].num_classes
    folder = parent / cifar.NAMES[name].folder
    folder.mkdir(parents=True)
    key = "labels" if name == "cifar10" else "fine_labels"
    for split in ("train", "test"):
        images, labels = fake_rows(name, split)
        files = [file for file, _ in getattr(dataset_class, f"{split}_list")]
        for file, rows in zip(files, np.array_split(np.arange(len(labels)), len(files)), strict=True):
            entry = {"data": images[rows].reshape(len(rows), -1), key: labels[rows].tolist()}
            (folder / file).write_bytes(pickle.dumps(entry))
        monkeypatch.setattr(dataset_class, f"{split}_list", [[file, md5(folder / file)] for file in files])
    names = {dataset_class.meta["key"]: [f"class {label:02d}" for label in range(classes)]}
    meta = folder / dataset_class.meta["filename"]
    meta.write_bytes(pickle.dumps(names))
    monkeypatch.setattr(dataset_class, "meta", {**dataset_class.meta, "md5": md5(meta)})
    return folder


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def assert_holds_fake_rows(dataset, name):
    for split in ("train", "test"):
        images, labels = fake_rows(name, split)
        found = getattr(dataset, split)
        assert np.array_equal(found.images.numpy(), images)
        assert np.array_equal(found.labels.numpy(), labels)
        assert found.images.is_contiguous()
    assert dataset.name == name
    assert dataset.num_classes == cifar.SPECS[name].num_classes


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("below", ["", "own"])
def test_torchvisions_folder_is_read_in_file_order(tmp_path, monkeypatch, name, below):
    folder = write_torchvision(tmp_path / name if below else tmp_path, name, monkeypatch)
    dataset = load_dataset(name, tmp_path, download=False)
    assert_holds_fake_rows(dataset, name)
    assert dataset.class_names[1] == "class 01"
    assert str(folder) in dataset.source


def test_the_root_may_be_torchvisions_folder_itself(tmp_path, monkeypatch):
    folder = write_torchvision(tmp_path, "cifar10", monkeypatch)
    assert_holds_fake_rows(load_dataset("cifar10", folder, download=False), "cifar10")


def test_a_damaged_torchvision_folder_is_reported_and_not_downloaded_over(tmp_path, monkeypatch):
    folder = write_torchvision(tmp_path, "cifar10", monkeypatch)
    (folder / "data_batch_2").write_bytes(b"half a file")
    (folder / "test_batch").unlink()
    with pytest.raises(InvalidDataError, match="missing test_batch; wrong checksum of data_batch_2; delete the folder"):
        load_dataset("cifar10", tmp_path)
    assert (folder / "data_batch_2").read_bytes() == b"half a file"


def test_torchvisions_folder_comes_before_parquet(tmp_path, monkeypatch):
    write_torchvision(tmp_path, "cifar10", monkeypatch)
    write_parquet(tmp_path / "cifar10", "cifar10")
    assert "torchvision" in load_dataset("cifar10", tmp_path).source


# --- Parquet shards ---------------------------------------------------------------------------------------------


def encode(pixels, kind="WEBP"):
    return encoded(Image.fromarray(pixels.transpose(1, 2, 0)), kind, lossless=True)


def write_parquet(folder, name, column="img", label=None, kind="WEBP", ending="-00000-of-00001"):
    for split in ("train", "test"):
        images, labels = fake_rows(name, split)
        data = [encode(image, kind) for image in images]
        write_shard(folder / f"{split}{ending}.parquet", data, labels, column, label or LABELS[name])


@pytest.mark.parametrize("place", ["cifar10", "cifar10/data", ".", "data"])
def test_parquet_is_found_in_the_usual_places(tmp_path, place):
    write_parquet(tmp_path / place, "cifar10")
    assert_holds_fake_rows(load_dataset("cifar10", tmp_path, download=False), "cifar10")


def test_parquet_is_decoded_once_and_then_mapped_from_the_cache(tmp_path, monkeypatch):
    write_parquet(tmp_path, "cifar10")
    load_dataset("cifar10", tmp_path)
    assert sorted(path.name.split("px")[0] for path in cache_files()) == ["cifar10-test-32", "cifar10-train-32"]
    monkeypatch.delattr(image_files, "decode_image")
    assert_holds_fake_rows(load_dataset("cifar10", tmp_path), "cifar10")


@pytest.mark.parametrize("column", ["img", "image"])
@pytest.mark.parametrize("label", ["fine_label", "label"])
def test_both_column_namings_of_the_hub_are_read(tmp_path, column, label):
    write_parquet(tmp_path / "cifar100", "cifar100", column, label, "PNG", "-00000-of-00001-2a1df75c6bce91ab")
    assert_holds_fake_rows(load_dataset("cifar100", tmp_path), "cifar100")


def test_whole_splits_need_no_shard_number(tmp_path):
    write_parquet(tmp_path, "cifar10", ending="")
    assert_holds_fake_rows(load_dataset("cifar10", tmp_path), "cifar10")


def test_a_missing_split_is_named(tmp_path):
    write_parquet(tmp_path, "cifar10")
    (tmp_path / "test-00000-of-00001.parquet").unlink()
    assert_refused(
        tmp_path, "has train-00000-of-00001.parquet but no Parquet files of test; CIFAR-10 needs both", "cifar10"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data, labels: (data[:-3], labels[:-3]),
            r"CIFAR-10 must have 5 images in class \d \(train\), got 4; copy or fetch it again",
        ),
        (
            lambda data, labels: (data, np.where(np.arange(50) == 0, (labels + 1) % 10, labels)),
            r"CIFAR-10 must have 5 images in class \d \(train\), got [46]",
        ),
        (lambda data, labels: (data, labels + 1), r"is not CIFAR-10: train must have labels 0..9, got 1..10"),
        (
            lambda data, labels: ([*data[:17], encode(np.zeros((3, 32, 31), np.uint8)), *data[18:]], labels),
            r"train-00000-of-00001.parquet row 17 \(counted from 0\): image must be 32x32, got 32x31",
        ),
    ],
)
def test_another_set_or_a_part_is_refused(tmp_path, change, message):
    write_parquet(tmp_path, "cifar10")
    images, labels = fake_rows("cifar10", "train")
    data, labels = change([encode(image) for image in images], labels)
    write_shard(tmp_path / "train-00000-of-00001.parquet", data, labels, "img")
    assert_refused(tmp_path, message, "cifar10")


def test_wrong_columns_are_refused_in_the_sets_own_folder(tmp_path):
    write_parquet(tmp_path / "cifar10", "cifar10", label="kind")
    assert_refused(tmp_path, "is not CIFAR-10: it needs a column img or image and a column label", "cifar10")


@pytest.mark.parametrize("place", [".", "data"])
@pytest.mark.parametrize("splits", [("train", "test"), ("train",)])
def test_parquet_of_another_set_in_a_shared_folder_is_passed_over(tmp_path, place, splits):
    write_parquet(tmp_path / place, "cifar10", label="kind")
    for split in {"train", "test"} - set(splits):
        (tmp_path / place / f"{split}-00000-of-00001.parquet").unlink()
    with pytest.raises(DataNotFoundError):
        load_dataset("cifar10", tmp_path, download=False)


# --- class folders ----------------------------------------------------------------------------------------------


def write_folders(folder):
    """Row numbers by split, in the order of the class folders."""
    order = {}
    for split in ("train", "test"):
        images, labels = fake_rows("cifar10", split)
        order[split] = np.argsort(labels, kind="stable")
        for row in order[split]:
            path = folder / split / f"class {labels[row]}" / f"{row:03d}.png"
            write(path, Image.fromarray(images[row].transpose(1, 2, 0)))
    return order


def test_class_folders_are_read_in_the_sets_own_folder_only(tmp_path):
    """Folders called train and test right below the root may be of anything."""
    order = write_folders(tmp_path / "cifar10")
    dataset = load_dataset("cifar10", tmp_path, download=False)
    assert dataset.class_names == tuple(f"class {label}" for label in range(10))
    for split, rows in order.items():
        images, labels = fake_rows("cifar10", split)
        assert np.array_equal(getattr(dataset, split).images.numpy(), images[rows])
        assert np.array_equal(getattr(dataset, split).labels.numpy(), labels[rows])
    (tmp_path / "cifar10").rename(tmp_path / "data")
    for root in (tmp_path, tmp_path / "data"):
        with pytest.raises(DataNotFoundError):
            load_dataset("cifar10", root, download=False)


# --- download ---------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A small official archive that torchvision accepts, in a folder of its own."""
    folder = tmp_path / "served"
    write_torchvision(folder, "cifar100", monkeypatch)
    names = cifar.NAMES["cifar100"]
    path = tarred(folder / names.folder, folder / names.archive)
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "tgz_md5", md5(path))
    return path


@pytest.fixture
def server(archive, monkeypatch):
    with serving(archive.parent) as address:
        monkeypatch.setattr(torchvision.datasets.CIFAR100, "url", f"{address}/{archive.name}")
        yield


def test_a_download_lands_whole_in_the_root_and_is_found_the_next_time(tmp_path, server):
    root = tmp_path / "data"
    dataset = load_dataset("cifar100", root)
    assert_holds_fake_rows(dataset, "cifar100")
    assert f"downloaded with torchvision into {root / 'cifar-100-python'}" in dataset.source
    assert [path.name for path in root.iterdir()] == ["cifar-100-python"]
    assert_holds_fake_rows(load_dataset("cifar100", root, download=False), "cifar100")


def test_a_damaged_download_leaves_nothing_behind(tmp_path, server, archive):
    archive.write_bytes(archive.read_bytes()[:-50])
    with pytest.raises(DataNotFoundError, match="File not found or corrupted"):
        load_dataset("cifar100", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_an_archive_brought_by_hand_is_unpacked(tmp_path, archive):
    root = tmp_path / "data"
    root.mkdir()
    archive.rename(root / archive.name)
    assert_holds_fake_rows(load_dataset("cifar100", root), "cifar100")
    assert sorted(path.name for path in root.iterdir()) == ["cifar-100-python", archive.name]


def test_without_download_nothing_is_fetched_or_created(tmp_path, server):
    with pytest.raises(DataNotFoundError, match="not tried, because download=False"):
        load_dataset("cifar100", tmp_path / "data", download=False)
    assert not (tmp_path / "data").exists()


def test_a_missing_torchvision_is_one_of_the_reasons(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(DataNotFoundError, match="needs torchvision: pip install torchvision"):
        load_dataset("cifar10", tmp_path)


# --- the real sets ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL_DATA, reason="set CLREPLAY_DATA to a folder with CIFAR-10 and CIFAR-100 to check them")
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_real_sets_have_the_published_statistics(name, monkeypatch):
    monkeypatch.setattr(cifar, "SPECS", OFFICIAL)
    dataset = load_dataset(name, REAL_DATA, download=False)
    classes = dataset.num_classes
    assert dataset.train.labels.bincount().tolist() == [50_000 // classes] * classes
    assert dataset.test.labels.bincount().tolist() == [10_000 // classes] * classes
    means = torch.stack([dataset.train.images[:, c].to(torch.float64).mean() for c in range(3)]) / 255
    assert means.tolist() == pytest.approx(list(dataset.normalization.mean), abs=1e-3)
    assert list(dataset.class_names) == sorted(dataset.class_names)
