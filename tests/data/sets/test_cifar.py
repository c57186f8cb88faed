"""CIFAR from torchvision's folder, from Parquet shards, class folders and a download."""

import hashlib
import json
import os
import pickle
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from data_helpers import cache_files, encoded, serving, tarred, write, write_shard
from PIL import Image

from clreplay.data import DataNotFoundError, InvalidDataError, load_dataset
from clreplay.data.readers import image_files
from clreplay.data.readers.counts import even
from clreplay.data.sets import cifar

REAL_DATA = os.environ.get("CLREPLAY_DATA")
PER_CLASS = {"cifar10": (5, 2), "cifar100": (2, 1)}
LABELS = {"cifar10": "label", "cifar100": "fine_label"}


@pytest.fixture(autouse=True)
def small_official_sets(monkeypatch):
    """CIFAR with a few images a class, and no way to the real servers."""
    monkeypatch.delenv("CLREPLAY_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    for name, (train, test) in PER_CLASS.items():
        spec = cifar.SPECS[name]
        counts = {"train": even(train, spec.num_classes), "test": even(test, spec.num_classes)}
        monkeypatch.setitem(cifar.SPECS, name, replace(spec, counts=counts))
        monkeypatch.setattr(torchvision_class(name), "url", f"http://127.0.0.1:1/{cifar.NAMES[name].archive}")


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


def write_parquet(folder, name, *, shards=1, column="img", label=None, kind="WEBP", metadata=None, suffix=""):
    for split in ("train", "test"):
        images, labels = fake_rows(name, split)
        count = shards if split == "train" else 1
        for number, rows in enumerate(np.array_split(np.arange(len(labels)), count)):
            write_shard(
                folder / f"{split}-{number:05d}-of-{count:05d}{suffix}.parquet",
                [encode(images[row], kind) for row in rows],
                labels[rows],
                column,
                label or LABELS[name],
                metadata,
            )


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


@pytest.mark.parametrize("shards", [1, 3, 11])
@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_any_number_of_shards_gives_the_same_rows(tmp_path, shards, kind):
    write_parquet(tmp_path, "cifar10", shards=shards, kind=kind)
    dataset = load_dataset("cifar10", tmp_path)
    assert_holds_fake_rows(dataset, "cifar10")
    assert f"{shards + 1} Parquet files" in dataset.source


@pytest.mark.parametrize("column", ["img", "image"])
@pytest.mark.parametrize("label", ["fine_label", "label"])
def test_both_column_namings_of_the_hub_are_read(tmp_path, column, label):
    write_parquet(tmp_path / "cifar100", "cifar100", column=column, label=label, suffix="-2a1df75c6bce91ab")
    assert_holds_fake_rows(load_dataset("cifar100", tmp_path), "cifar100")


def test_whole_splits_need_no_shard_number(tmp_path):
    write_parquet(tmp_path, "cifar10")
    for split in ("train", "test"):
        (tmp_path / f"{split}-00000-of-00001.parquet").rename(tmp_path / f"{split}.parquet")
    assert_holds_fake_rows(load_dataset("cifar10", tmp_path), "cifar10")


def test_class_names_come_from_the_file_beside_then_metadata_then_numbers(tmp_path):
    names = [f"name {label}" for label in range(10)]
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    write_parquet(tmp_path / "plain", "cifar10")
    write_parquet(tmp_path / "hub", "cifar10", metadata=metadata)
    assert load_dataset("cifar10", tmp_path / "plain").class_names == tuple("0123456789")
    assert load_dataset("cifar10", tmp_path / "hub").class_names == tuple(names)
    for content in (names[::-1], {"classes": names[::-1]}, {"label": names[::-1]}):
        (tmp_path / "hub" / "classes.json").write_text(json.dumps(content))
        assert load_dataset("cifar10", tmp_path / "hub").class_names == tuple(names[::-1])


@pytest.mark.parametrize("content", ["{", "[]", '{"classes": ["a"]}', "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"])
def test_a_wrong_list_of_class_names_is_named(tmp_path, content):
    write_parquet(tmp_path, "cifar10")
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(InvalidDataError, match="classes.json"):
        load_dataset("cifar10", tmp_path)


def assert_refused(root, message, name="cifar10"):
    with pytest.raises(InvalidDataError, match=message):
        load_dataset(name, root)


def test_a_missing_shard_is_named(tmp_path):
    write_parquet(tmp_path, "cifar10", shards=3)
    (tmp_path / "train-00001-of-00003.parquet").unlink()
    assert_refused(tmp_path, "has 2 of 3 train shards; missing: train-00001-of-00003.parquet")


def test_a_missing_split_is_named(tmp_path):
    write_parquet(tmp_path, "cifar10")
    (tmp_path / "test-00000-of-00001.parquet").unlink()
    assert_refused(tmp_path, "has train-00000-of-00001.parquet but no Parquet files of test; CIFAR-10 needs both")


@pytest.mark.parametrize(
    ("copy", "message"),
    [
        ("train.parquet", "are the same shard of train; remove one"),
        ("train-00001-of-00003.parquet", "mixes train shards of different sets"),
        ("train-00001-of-00001.parquet", "train shard number 1 of 1; numbers start at 0"),
        ("train_new.parquet", "train_new.parquet is not named like a shard"),
    ],
)
def test_shards_of_two_sets_are_not_mixed(tmp_path, copy, message):
    write_parquet(tmp_path, "cifar10")
    (tmp_path / copy).write_bytes((tmp_path / "train-00000-of-00001.parquet").read_bytes())
    assert_refused(tmp_path, message)


def rewrite_train(folder, change):
    """Write the training split again after `change(data, labels)`."""
    images, labels = fake_rows("cifar10", "train")
    data, labels = change([encode(image) for image in images], labels.copy())
    write_shard(folder / "train-00000-of-00001.parquet", data, labels, "img")


def test_missing_rows_are_counted(tmp_path):
    write_parquet(tmp_path, "cifar10")
    rewrite_train(tmp_path, lambda data, labels: (data[:-3], labels[:-3]))
    assert_refused(tmp_path, r"CIFAR-10 must have 5 images in class \d \(train\), got 4; copy or fetch it again")


def test_uneven_classes_are_refused(tmp_path):
    write_parquet(tmp_path, "cifar10")
    rewrite_train(tmp_path, lambda data, labels: (data, [3, *labels[1:]] if labels[0] != 3 else [4, *labels[1:]]))
    assert_refused(tmp_path, r"CIFAR-10 must have 5 images in class \d \(train\), got [46]")


def test_another_sets_labels_are_refused(tmp_path):
    write_parquet(tmp_path, "cifar10")
    rewrite_train(tmp_path, lambda data, labels: (data, labels + 1))
    assert_refused(tmp_path, r"is not CIFAR-10: train must have labels 0..9, got 1..10")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not an image", "cannot identify image"),
        (None, "no image bytes, only a path"),
        (encode(np.zeros((3, 32, 31), np.uint8)), "image must be 32x32, got 31x32"),
        (encode(np.random.RandomState(0).randint(0, 256, (3, 32, 32)).astype(np.uint8))[:-900], ""),
    ],
)
def test_an_image_that_cannot_be_used_is_named_by_file_and_row(tmp_path, data, message):
    write_parquet(tmp_path, "cifar10")
    rewrite_train(tmp_path, lambda whole, labels: ([*whole[:17], data, *whole[18:]], labels))
    assert_refused(tmp_path, rf"train-00000-of-00001.parquet row 17 \(counted from 0\): .*{message}")


def test_a_truncated_shard_is_named(tmp_path):
    write_parquet(tmp_path, "cifar10")
    path = tmp_path / "test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    assert_refused(tmp_path, "test-00000-of-00001.parquet cannot be read as Parquet")


def test_a_missing_label_is_refused(tmp_path):
    write_parquet(tmp_path, "cifar10")
    rewrite_train(tmp_path, lambda data, labels: (data, [None, *labels[1:].tolist()]))
    assert_refused(tmp_path, "has 1 rows without label")


def test_wrong_columns_are_refused_in_the_sets_own_folder(tmp_path):
    write_parquet(tmp_path / "cifar10", "cifar10", label="kind")
    assert_refused(tmp_path, "is not CIFAR-10: it needs a column img or image and a column label")


def test_a_shard_with_other_columns_than_the_first_is_named(tmp_path):
    write_parquet(tmp_path, "cifar10", shards=2)
    write_shard(tmp_path / "train-00001-of-00002.parquet", [b""], [0], "img", "kind")
    assert_refused(tmp_path, "train-00001-of-00002.parquet has no column label")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"img": [b"x"], "label": [0]}, "column img must be a struct with a field bytes, got binary"),
        ({"img": [{"bytes": b"x"}], "label": ["cat"]}, "column label must hold integers, got string"),
    ],
)
def test_wrong_column_types_are_named(tmp_path, columns, message):
    for split in ("train", "test"):
        pq.write_table(pa.table(columns), tmp_path / f"{split}.parquet")
    assert_refused(tmp_path, message)


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


def test_no_data_and_no_network_gives_one_error_with_every_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("CLREPLAY_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataNotFoundError) as caught:
        load_dataset("cifar100")
    message = str(caught.value)
    for part in (
        "CIFAR-100 was not found at",
        str(tmp_path / "nowhere" / "cifar100"),
        "cifar-100-python",
        "train-*.parquet",
        "Connection refused",
        "--data-root",
        "CLREPLAY_DATA",
        "cifar-100-python.tar.gz",
        "python runs/digits_5step.py --memory ddm",
    ):
        assert part in message
    assert isinstance(caught.value, FileNotFoundError)
    assert not (tmp_path / "nowhere").exists()


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
    monkeypatch.undo()  # the official numbers of rows again
    dataset = load_dataset(name, REAL_DATA, download=False)
    classes = dataset.num_classes
    assert dataset.train.labels.bincount().tolist() == [50_000 // classes] * classes
    assert dataset.test.labels.bincount().tolist() == [10_000 // classes] * classes
    means = torch.stack([dataset.train.images[:, c].to(torch.float64).mean() for c in range(3)]) / 255
    assert means.tolist() == pytest.approx(list(dataset.normalization.mean), abs=1e-3)
    assert list(dataset.class_names) == sorted(dataset.class_names)
