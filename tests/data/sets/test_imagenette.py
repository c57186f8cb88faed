"""ImageNette and ImageWoof as they were released."""

import io
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from data_helpers import (
    as_torchvision_does,
    assert_holds,
    assert_refused,
    encoded,
    picture,
    tarred,
    write,
    write_classes,
    write_shard,
)
from PIL import Image

from clreplay.data import DataNotFoundError, InvalidDataError, load_dataset
from clreplay.data.readers.counts import Counts
from clreplay.data.sets import imagenette

OFFICIAL = dict(imagenette.SPECS)
REAL_DATA = os.environ.get("CLREPLAY_DATA")


@pytest.fixture(autouse=True)
def small_official_sets(monkeypatch):
    """Two or three images a class."""
    for name, spec in imagenette.SPECS.items():
        train = (2, 3, *[2] * 8)
        small = {"train": Counts(21, train if name == "imagenette" else None), "test": Counts(10)}
        whole = tuple(count + 1 for count in train)
        monkeypatch.setitem(imagenette.SPECS, name, replace(spec, counts=small, whole=whole))


def test_the_official_numbers_are_those_published():
    """Totals that the sets' own pages give, against what is written down by class."""
    totals = {name: (spec.counts["train"].total, spec.counts["test"].total) for name, spec in OFFICIAL.items()}
    assert totals == {"imagenette": (9469, 3925), "imagewoof": (9025, 3929)}
    for name, spec in OFFICIAL.items():
        assert sum(spec.whole) == sum(totals[name])
        assert spec.url.rsplit("/", 1)[-1] in spec.archives
    by_class = [OFFICIAL["imagenette"].counts[split].per_class for split in ("train", "test")]
    assert tuple(map(sum, by_class)) == totals["imagenette"]
    assert tuple(map(sum, zip(*by_class, strict=True))) == OFFICIAL["imagenette"].whole


def write_released(folder, name="imagenette") -> Path:
    classes = imagenette.SPECS[name].classes
    for number, (wnid, count) in enumerate(zip(classes, (2, 3, *[2] * 8), strict=True)):
        write_classes(folder / "train", {wnid: count}, 50 * number, (90, 130 + number))
        write_classes(folder / "val", {wnid: 1}, 5000 + 50 * number, (140, 90))
    write(folder / "noisy_imagenette.csv", "path,noisy_labels_0\n")
    return folder


@pytest.mark.parametrize(("name", "stem"), [("imagenette", "imagenette2"), ("imagewoof", "imagewoof2")])
@pytest.mark.parametrize("form", ["folder", "archive"])
@pytest.mark.parametrize("size", ["", "-320", "-160"])
def test_a_release_is_read(tmp_path, name, stem, form, size):
    folder = write_released(tmp_path / "made" / f"{stem}{size}", name)
    root = folder.parent
    if form == "archive":
        root = tmp_path / "root"
        root.mkdir()
        tarred(folder, root / f"{stem}{size}.tgz")
    dataset, spec = load_dataset(name, root), imagenette.SPECS[name]
    assert dataset.class_names == spec.class_names
    assert list(spec.classes) == sorted(spec.classes)
    assert dataset.class_names[0] == {"imagenette": "tench", "imagewoof": "Shih-Tzu"}[name]
    assert_holds(dataset, "train", sorted((folder / "train").rglob("*.JPEG")), 128)
    assert_holds(dataset, "test", sorted((folder / "val").rglob("*.JPEG")), 128)


def test_the_full_size_release_comes_before_the_small_ones(tmp_path):
    for name in ("imagenette2-160", "imagenette2", "imagenette2-320"):
        write_released(tmp_path / name)
    assert load_dataset("imagenette", tmp_path).source.endswith("/imagenette2.")


def test_a_release_in_shards_may_have_its_classes_in_another_order(tmp_path):
    for split, counts in (("train", [2, 2, 3, *[2] * 7]), ("validation", [1] * 10)):
        labels = [label for label, count in enumerate(counts) for _ in range(count)]
        data = [encoded(picture(row, (50, 40))) for row in range(len(labels))]
        write_shard(tmp_path / "imagenette" / f"{split}.parquet", data, labels)
    dataset = load_dataset("imagenette", tmp_path)
    assert dataset.train.images.shape == (21, 3, 128, 128)
    write_shard(
        tmp_path / "imagenette" / "train.parquet",
        [encoded(picture(0))] * 21,
        [0, 1, *[2] * 3, *range(10), *range(3, 9)],
    )
    with pytest.raises(InvalidDataError, match=r"classes of ImageNette must have \[2, 2.*, 3\] images in some order"):
        load_dataset("imagenette", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: next(folder.glob("train/n02102040/*")).unlink(), "must have 3 images in train/n02102040"),
        (lambda folder: shutil.rmtree(folder / "val/n02102040"), "val has no folder n02102040"),
        (lambda folder: write_classes(folder / "train", {"n02086240": 1}), "has a folder n02086240 that is no class"),
    ],
)
def test_a_fault_in_a_release_is_named(tmp_path, change, message):
    change(write_released(tmp_path / "imagenette2"))
    assert_refused(tmp_path, message, "imagenette")


def test_an_image_moved_between_the_splits_of_imagewoof_is_noticed(tmp_path):
    """Its numbers are known for each split, and for each class over both."""
    folder = write_released(tmp_path / "imagewoof2", "imagewoof")
    first, second = imagenette.SPECS["imagewoof"].classes[:2]
    path = next(folder.glob(f"train/{second}/*"))
    path.rename(folder / "train" / first / "moved.JPEG")
    assert_refused(tmp_path, rf"must have 3 images in {first} \(train and test together\), got 4", "imagewoof")


def test_the_other_release_under_this_name_is_refused(tmp_path):
    write_released(tmp_path / "imagenette2", "imagewoof")
    assert_refused(tmp_path, "train has no folder n01440764 and 9 more", "imagenette")


@pytest.mark.skipif(
    not REAL_DATA or not Path(REAL_DATA, "imagenette2-160-s").is_dir(),
    reason="set CLREPLAY_DATA to a folder with a part of ImageNette to check real JPEG files",
)
def test_real_photographs_are_decoded_as_torchvision_does_and_are_not_taken_for_the_whole_set(tmp_path):
    folder = Path(REAL_DATA, "imagenette2-160-s")
    dataset = load_dataset(f"folder:{folder}@128")
    column = pq.read_table(folder / "val.parquet", columns=["image"]).column(0).to_pylist()
    modes = set()
    for row in range(0, len(column), 5):
        data = column[row]["bytes"]
        modes.add(Image.open(io.BytesIO(data)).mode)
        assert np.array_equal(dataset.test.images[row].numpy(), as_torchvision_does(write(tmp_path / "a", data), 128))
    assert dataset.class_names[:2] == ("tench", "English springer")
    with pytest.raises(DataNotFoundError):
        load_dataset("imagenette", REAL_DATA, download=False)
