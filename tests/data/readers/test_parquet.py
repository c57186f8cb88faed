"""Parquet shards: how they are found and ordered, where class names come from, and what is said of faults."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_helpers import (
    PETS,
    assert_holds,
    assert_refused,
    encoded,
    load_folder,
    picture,
    write,
    write_shard,
)

from clreplay.data.readers import parquet

DATA = [encoded(picture(row)) for row in range(11)]
LABELS = [0, 1] * 5 + [0]


@pytest.fixture
def shards(tmp_path):
    """A folder with a training shard of eleven pictures and a test shard of two."""
    write_shard(tmp_path / "shards" / "train-00000-of-00001.parquet", DATA, LABELS)
    write_shard(tmp_path / "shards" / "test-00000-of-00001.parquet", DATA[:2], LABELS[:2])
    return tmp_path / "shards"


def rewrite(folder, split="train", data=DATA, labels=LABELS, **columns):
    write_shard(folder / f"{split}-00000-of-00001.parquet", data, labels, **columns)


def write_pets(pets, folder, names):
    """The pictures of a class folder as Parquet shards; their paths, in a row order of their own."""
    order = {}
    for split, name in names.items():
        files = sorted((pets / split).rglob("*.JPEG"))
        order[split] = [files[row] for row in np.random.RandomState(0).permutation(len(files))]
        labels = [list(PETS["train"]).index(path.parent.name) for path in order[split]]
        write_shard(folder / name, [path.read_bytes() for path in order[split]], labels)
    return order


# --- files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train.parquet", "val.parquet"),
        ("data/train-00000-of-00001.parquet", "data/validation-00000-of-00001-2a1df75c6bce91ab.parquet"),
        ("train/0000.parquet", "test/0000.parquet"),
    ],
)
def test_shards_are_read_in_row_order(pets, tmp_path, train, test):
    order = write_pets(pets, tmp_path / "shards", {"train": train, "test": test})
    dataset = load_folder(tmp_path / "shards", "@24")
    for split in ("train", "test"):
        found = getattr(dataset, split)
        assert [list(PETS["train"])[label] for label in found.labels] == [path.parent.name for path in order[split]]
        assert_holds(dataset, split, order[split], 24)


@pytest.mark.parametrize("count", [2, 3, 11])
def test_any_number_of_shards_gives_the_same_rows(shards, count):
    expected = load_folder(shards).train
    (shards / "train-00000-of-00001.parquet").unlink()
    for number, rows in enumerate(np.array_split(np.arange(11), count)):
        data, labels = [DATA[row] for row in rows], [LABELS[row] for row in rows]
        write_shard(shards / f"train-{number:05d}-of-{count:05d}.parquet", data, labels)
    dataset = load_folder(shards)
    assert dataset.train.images.equal(expected.images) and dataset.train.labels.equal(expected.labels)
    assert f"{count + 1} Parquet files" in dataset.source


def test_val_and_validation_are_not_taken_for_one_another(pets, tmp_path):
    write_pets(pets, tmp_path, {"train": "train.parquet", "test": "validation.parquet"})
    assert parquet.find_shards(tmp_path, "val") == ()
    assert len(load_folder(tmp_path, "@20").test) == 4


def test_a_gap_in_numbered_shards_is_named(pets, tmp_path):
    write_pets(pets, tmp_path, {"train": "train/0001.parquet", "test": "test/0000.parquet"})
    assert_refused(tmp_path, "train has a shard number 1 but none number 0")


def test_a_missing_shard_is_named(shards):
    for number in (0, 2):
        write_shard(shards / f"train-{number:05d}-of-00003.parquet", DATA, LABELS)
    (shards / "train-00000-of-00001.parquet").unlink()
    assert_refused(shards, "has 2 of 3 train shards; missing: train-00001-of-00003.parquet")


@pytest.mark.parametrize(
    ("copy", "message"),
    [
        ("train.parquet", "are the same shard of train; remove one"),
        ("train-00001-of-00003.parquet", "mixes train shards of different sets"),
        ("train-00001-of-00001.parquet", "train shard number 1 of 1; numbers start at 0"),
        ("train_new.parquet", "train_new.parquet is not named like a shard"),
    ],
)
def test_shards_of_two_sets_are_not_mixed(shards, copy, message):
    (shards / copy).write_bytes((shards / "train-00000-of-00001.parquet").read_bytes())
    assert_refused(shards, message)


def test_a_missing_split_is_named(shards):
    (shards / "test-00000-of-00001.parquet").unlink()
    assert_refused(shards, "has train-00000-of-00001.parquet but no Parquet files of test or val or .* needs both")


def test_a_truncated_shard_is_named(shards):
    path = shards / "test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    assert_refused(shards, "test-00000-of-00001.parquet cannot be read as Parquet")


# --- columns ----------------------------------------------------------------------------------------------------


def test_class_names_come_from_the_file_beside_then_metadata_then_numbers(shards):
    assert load_folder(shards).class_names == ("0", "1")
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    rewrite(shards, metadata={"huggingface": json.dumps({"info": {"features": features}})})
    assert load_folder(shards).class_names == ("cat", "dog")
    for content in (["emu", "fox"], {"classes": ["emu", "fox"]}, {"label": ["emu", "fox"]}):
        write(shards / "classes.json", json.dumps(content))
        assert load_folder(shards).class_names == ("emu", "fox")


@pytest.mark.parametrize("content", ["{", "[]", '{"classes": ["a"]}', "[0, 1]"])
def test_a_wrong_list_of_class_names_is_named(shards, content):
    write(shards / "classes.json", content)
    assert_refused(shards, "classes.json")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, -1], r"must have labels 0\.\.1, got -1\.\.1"),
        ([0, 2, 2], r"must have at least 1 images in class 1 \(train\), got 0"),
        ([0, None, 1], "train-00000-of-00001.parquet has 1 rows without label"),
    ],
)
def test_labels_that_are_no_classes_are_refused(shards, labels, message):
    rewrite(shards, data=DATA[:3], labels=labels)
    assert_refused(shards, message)


def test_a_shard_with_other_columns_than_the_first_is_named(shards):
    (shards / "train-00000-of-00001.parquet").rename(shards / "train-00000-of-00002.parquet")
    write_shard(shards / "train-00001-of-00002.parquet", [b""], [0], label="kind")
    assert_refused(shards, "train-00001-of-00002.parquet has no column label")


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


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not an image", "cannot identify image"),
        (None, "no image bytes, only a path"),
        (encoded(picture(1, (20, 19))), "image must be 20x20, got 19x20 .height x width."),
        (DATA[8][:-200], "fetch the file again"),
    ],
)
def test_an_image_that_cannot_be_used_is_named_by_file_and_row(shards, data, message):
    rewrite(shards, data=[*DATA[:8], data, *DATA[9:]])
    assert_refused(shards, rf"train-00000-of-00001.parquet row 8 \(counted from 0\): .*{message}")
