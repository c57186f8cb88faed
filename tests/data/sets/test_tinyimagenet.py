"""TinyImageNet from its folder, its archive and the hub's shards."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from data_helpers import assert_holds, assert_refused, encoded, picture, write, write_shard, zipped

from clreplay.data import NORMALIZATIONS, InvalidDataError, load_dataset
from clreplay.data.readers.counts import even
from clreplay.data.sets import tinyimagenet

OFFICIAL = tinyimagenet.SPEC


@pytest.fixture(autouse=True)
def small_official_set(monkeypatch):
    """Three classes with a few images each."""
    small = replace(OFFICIAL, num_classes=3, counts={"train": even(4, 3), "test": even(2, 3)})
    monkeypatch.setattr(tinyimagenet, "SPEC", small)


def test_the_official_numbers_are_those_published():
    assert {split: counts.total for split, counts in OFFICIAL.counts.items()} == {"train": 100_000, "test": 10_000}
    assert OFFICIAL.url.rsplit("/", 1)[-1] in OFFICIAL.archives


WNIDS = ("n01443537", "n01629819", "n01641577")


def write_tiny(folder) -> Path:
    """The official layout; validation images of the classes in turn, as the official list is in no order."""
    write(folder / "wnids.txt", "\n".join(reversed(WNIDS)) + "\n")
    words = ["n00001740\tentity", "n01443537\tgoldfish, Carassius auratus", "n01629819\tEuropean fire salamander"]
    write(folder / "words.txt", "\n".join(words))
    for number, wnid in enumerate(WNIDS):
        for each in range(4):
            write(folder / "train" / wnid / "images" / f"{wnid}_{each}.JPEG", picture(10 * number + each, (64, 64)))
        write(folder / "train" / wnid / f"{wnid}_boxes.txt", f"{wnid}_0.JPEG\t0\t10\t63\t58\n")
    lines = []
    for number in range(6):
        write(folder / "val" / "images" / f"val_{number}.JPEG", picture(500 + number, (64, 64)))
        lines.append(f"val_{number}.JPEG\t{WNIDS[number % 3]}\t0\t32\t44\t62")
        write(folder / "test" / "images" / f"test_{number}.JPEG", picture(900 + number, (64, 64)))
    write(folder / "val" / "val_annotations.txt", "\n".join(lines) + "\n")
    return folder


@pytest.fixture
def tiny(tmp_path) -> Path:
    return write_tiny(tmp_path / "tiny-imagenet-200")


def assert_is_tiny(dataset, folder):
    assert (dataset.name, dataset.normalization) == ("tinyimagenet", NORMALIZATIONS["imagenet"])
    assert dataset.class_names == ("goldfish", "European fire salamander", "n01641577")
    assert dataset.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert dataset.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert_holds(dataset, "train", sorted((folder / "train").rglob("*.JPEG")), 64)
    assert_holds(dataset, "test", [folder / "val" / "images" / f"val_{n}.JPEG" for n in (0, 3, 1, 4, 2, 5)], 64)


@pytest.mark.parametrize("name", ["tiny-imagenet-200", "tinyimagenet", "tiny-imagenet"])
def test_tinyimagenet_is_read_from_its_folder(tmp_path, name):
    folder = write_tiny(tmp_path / name)
    assert_is_tiny(load_dataset("tinyimagenet", tmp_path), folder)
    assert_is_tiny(load_dataset("tinyimagenet", folder), folder)


def test_tinyimagenet_is_read_from_its_archive(tiny, tmp_path):
    archive = zipped(tiny, tmp_path / "elsewhere.zip")
    for place in ("root", "root/tinyimagenet"):
        (tmp_path / place).mkdir()
        shutil.copy(archive, tmp_path / place / "tiny-imagenet-200.zip")
        dataset = load_dataset("tinyimagenet", tmp_path / "root")
        assert_is_tiny(dataset, tiny)
        assert dataset.source == f"TinyImageNet from {tmp_path / place / 'tiny-imagenet-200.zip'}."
        (tmp_path / place / "tiny-imagenet-200.zip").unlink()


@pytest.mark.parametrize("keeps_list", [True, False])
def test_validation_images_may_have_been_sorted_into_class_folders(tiny, tmp_path, keeps_list):
    whole = write_tiny(tmp_path / "whole")
    for number in range(6):
        target = tiny / "val" / WNIDS[number % 3] / "images" / f"val_{number}.JPEG"
        target.parent.mkdir(parents=True, exist_ok=True)
        (tiny / "val" / "images" / f"val_{number}.JPEG").rename(target)
    (tiny / "val" / "images").rmdir()
    if not keeps_list:
        (tiny / "val" / "val_annotations.txt").unlink()
    assert_is_tiny(load_dataset("tinyimagenet", tmp_path), whole)


def test_classes_are_the_training_folders_where_their_list_is_missing(tiny, tmp_path):
    (tiny / "wnids.txt").unlink()
    assert_is_tiny(load_dataset("tinyimagenet", tmp_path), tiny)


def test_tinyimagenet_is_read_from_the_hubs_shards(tmp_path):
    data = [encoded(picture(row, (64, 64))) for row in range(18)]
    write_shard(tmp_path / "tinyimagenet/data/train-00000-of-00001-1359597a978bc4fa.parquet", data[:12], [0, 1, 2] * 4)
    write_shard(tmp_path / "tinyimagenet/data/valid-00000-of-00001-70d52db3c749a935.parquet", data[12:], [2, 1, 0] * 2)
    dataset = load_dataset("tinyimagenet", tmp_path)
    assert dataset.test.labels.tolist() == [2, 1, 0] * 2
    assert dataset.train.images.shape == (12, 3, 64, 64)
    assert "2 Parquet files" in dataset.source


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / f"train/{WNIDS[1]}/images/{WNIDS[1]}_2.JPEG").unlink(),
            "train/n01629819 lacks n01629819_2.JPEG; copy or fetch it again",
        ),
        (
            lambda folder: write(folder / f"train/{WNIDS[1]}/images/{WNIDS[1]}_4.JPEG", picture(0, (64, 64))),
            r"TinyImageNet must have 4 images in train/n01629819 \(train\), got 5",
        ),
        (
            lambda folder: shutil.rmtree(folder / "train" / WNIDS[0]),
            "train has no folder n01443537; copy it again",
        ),
        (
            lambda folder: (folder / "val/images/val_4.JPEG").unlink(),
            "val/images/val_4.JPEG is missing, which val_annotations.txt lists",
        ),
        (
            lambda folder: write(folder / "val/val_annotations.txt", "val_0.JPEG\tn01443537\t0\n"),
            r"TinyImageNet must have 2 images in val/n01443537 \(test\), got 1",
        ),
        (
            lambda folder: write(folder / "val/val_annotations.txt", "val_0.JPEG\tn09999999\t0\n"),
            "val_annotations.txt line 1 must name an image and one of the 3 classes, got 'val_0.JPEG",
        ),
        (lambda folder: (folder / "val/val_annotations.txt").unlink(), "val has no folder n01443537 and 2 more"),
        (lambda folder: shutil.rmtree(folder / "val"), "has train but no folder val or valid or validation"),
        (
            lambda folder: (write(folder / "wnids.txt", "n01443537"), shutil.rmtree(folder / "train" / WNIDS[1])),
            "train has a folder n01641577 that is no class of TinyImageNet",
        ),
        (
            lambda folder: write(folder / f"train/{WNIDS[0]}/images/{WNIDS[0]}_0.JPEG", picture(0, (32, 32))),
            "n01443537_0.JPEG: image must be 64x64, got 32x32",
        ),
        (
            lambda folder: write(folder / f"train/{WNIDS[0]}/images/{WNIDS[0]}_3.JPEG", b"\xff\xd8\xff"),
            "n01443537_3.JPEG: .*; fetch the file again",
        ),
    ],
)
@pytest.mark.parametrize("as_archive", [False, True])
def test_a_fault_in_tinyimagenet_is_named(tiny, tmp_path, change, message, as_archive):
    change(tiny)
    if as_archive:
        zipped(tiny, tmp_path / "tiny-imagenet-200.zip")
        shutil.rmtree(tiny)
    assert_refused(tmp_path, message, "tinyimagenet")


def test_a_truncated_archive_is_named_and_not_downloaded_over(tiny, tmp_path):
    archive = zipped(tiny, tmp_path / "tiny-imagenet-200.zip")
    shutil.rmtree(tiny)
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(InvalidDataError, match="tiny-imagenet-200.zip is damaged or not complete"):
        load_dataset("tinyimagenet", tmp_path, download=True)
