"""Folders and archives as one kind of tree: what is read, what is left out, and what is said of faults."""

import os
import zipfile

import pytest
import torch
from data_helpers import assert_refused, encoded, load_folder, picture, tarred, write, zipped

from clreplay.data.readers import trees

NAMES = {zipped: "a.zip", tarred: "a.tgz"}


def test_images_lie_at_any_depth_and_other_files_beside_them(pets):
    expected = load_folder(pets)
    (pets / "train" / "cat" / "images").mkdir()
    for path in sorted((pets / "train" / "cat").glob("*.JPEG")):
        path.rename(path.parent / "images" / path.name)
    write(pets / "train" / "cat" / "cat_boxes.txt", "0 0 5 5")
    write(pets / "train" / ".DS_Store", b"\0")
    write(pets / "train" / "dog" / "._dog_0.JPEG", b"\0")
    write(pets / "train" / ".cache" / "x.JPEG", b"\0")
    assert torch.equal(load_folder(pets).train.images, expected.train.images)


def test_links_to_class_folders_are_followed(pets, tmp_path):
    expected = load_folder(pets)
    (pets / "train" / "dog").rename(tmp_path / "elsewhere")
    (pets / "train" / "dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert torch.equal(load_folder(pets).train.images, expected.train.images)


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("pets.zip", zipped),
        ("pets.tgz", tarred),
        ("pets.tar.gz", tarred),
        ("pets.tar", lambda *paths: tarred(*paths, mode="w:")),
    ],
)
def test_archives_are_read_without_unpacking(pets, tmp_path, name, pack):
    expected = load_folder(pets)
    archive = pack(pets, tmp_path / name)
    before = sorted(tmp_path.rglob("*"))
    for _ in range(2):
        dataset = load_folder(archive)
        assert dataset.name == "folder-pets"
        for split in ("train", "test"):
            assert torch.equal(getattr(dataset, split).images, getattr(expected, split).images)
            assert torch.equal(getattr(dataset, split).labels, getattr(expected, split).labels)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_mac_adds_to_an_archive_is_left_out(pets, tmp_path):
    expected = load_folder(pets)
    archive = zipped(pets, tmp_path / "pets.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("__MACOSX/pets/train/cat/._cat_0.JPEG", b"\0")
    assert torch.equal(load_folder(archive).train.images, expected.train.images)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-150],
        lambda whole: whole[:3],
        lambda whole: b"",
        lambda whole: b"<html>404 not found</html>",
        lambda whole: encoded(picture(1), "GIF"),
    ],
)
@pytest.mark.parametrize("pack", [None, zipped, tarred])
def test_an_image_that_cannot_be_decoded_is_named(pets, tmp_path, damage, pack):
    path = pets / "train" / "dog" / "dog_1.JPEG"
    path.write_bytes(damage(path.read_bytes()))
    folder = pack(pets, tmp_path / NAMES[pack]) if pack else pets
    assert_refused(folder, "train/dog/dog_1.JPEG: .*; fetch the file again")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(pets):
    (pets / "train" / "dog" / "dog_1.JPEG").chmod(0)
    assert_refused(pets, "train/dog/dog_1.JPEG cannot be read")


def test_a_file_that_vanishes_while_others_are_read_is_named(pets, monkeypatch):
    batches = trees.FolderTree.batches

    def after_a_deletion(tree, paths):
        (pets / "train" / "dog" / "dog_1.JPEG").unlink(missing_ok=True)
        return batches(tree, paths)

    monkeypatch.setattr(trees.FolderTree, "batches", after_a_deletion)
    assert_refused(pets, "train/dog/dog_1.JPEG cannot be read: .*No such file", size="@20")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
@pytest.mark.parametrize(
    ("name", "pack"),
    [("pets.zip", zipped), ("pets.tgz", tarred), ("pets.tar", lambda *paths: tarred(*paths, mode="w:"))],
)
def test_a_truncated_archive_is_named(pets, tmp_path, name, pack, share):
    archive = pack(pets, tmp_path / name)
    whole = archive.read_bytes().rstrip(b"\0")
    archive.write_bytes(whole[: int(share * len(whole))])
    assert_refused(archive, f"{name} is damaged or not complete: .*; fetch it again")


def test_a_damaged_member_of_an_archive_is_named(pets, tmp_path):
    archive = zipped(pets, tmp_path / "pets.zip")
    data = bytearray(archive.read_bytes())
    start = data.index(b"pets/train/dog/dog_1.JPEG") + 60
    data[start : start + 40] = bytes(40)
    archive.write_bytes(data)
    assert_refused(archive, "pets.zip: pets/train/dog/dog_1.JPEG cannot be unpacked: .*; fetch the archive again")


def test_other_archives_are_refused(tmp_path):
    assert_refused(write(tmp_path / "pets.rar", b"Rar!"), r"pets.rar must be a folder or an archive \(.zip, .tgz")
