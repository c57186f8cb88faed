"""Folders and archives as one kind of tree: what is read, what is left out, and what is said of faults."""

import io
import os
import tarfile
import tracemalloc
import zipfile

import pytest
import torch
from data_helpers import assert_refused, encoded, load_folder, picture, tarred, write, zipped

from clreplay.data.readers import bounds, trees
from clreplay.runtime.files import user_cache

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
        lambda whole: encoded(picture(1), "ICO"),
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


# --- links in archives ------------------------------------------------------------------------------------------


def linked(pets) -> None:
    """One image becomes a hard link to its neighbour, one a symbolic link to that link."""
    first, second, third, *_ = sorted((pets / "train" / "cat").glob("*.JPEG"))
    second.unlink()
    os.link(first, second)
    third.unlink()
    third.symlink_to(f"../cat/{second.name}")


@pytest.mark.parametrize("mode", ["w:", "w:gz"])
def test_links_to_files_of_a_tar_archive_are_images_like_any_other(pets, tmp_path, mode):
    linked(pets)
    expected = load_folder(pets)
    archive = tarred(pets, tmp_path / ("pets.tar" if mode == "w:" else "pets.tgz"), mode=mode)
    with tarfile.open(archive) as file:
        kinds = {member.type for member in file}
    assert {tarfile.LNKTYPE, tarfile.SYMTYPE} <= kinds
    for _ in range(2):  # the second time the table of the archive comes from the cache
        found = load_folder(archive)
        assert torch.equal(found.train.images, expected.train.images)
        assert torch.equal(found.train.labels, expected.train.labels)


@pytest.mark.parametrize("target", ["nowhere.JPEG", "../../../../etc/passwd", "dog_1.JPEG"])
def test_a_link_that_leads_out_of_a_tar_archive_is_refused_by_name(pets, tmp_path, target):
    path = pets / "train" / "dog" / "dog_1.JPEG"
    path.unlink()
    path.symlink_to(target)
    assert_refused(tarred(pets, tmp_path / "pets.tar", mode="w:"), "train/dog/dog_1.JPEG is a link to .* --dereference")


def test_a_link_to_a_folder_of_a_tar_archive_is_refused_by_name(pets, tmp_path):
    (pets / "train" / "wolf").symlink_to("dog", target_is_directory=True)
    assert_refused(tarred(pets, tmp_path / "pets.tar", mode="w:"), "train/wolf is a link to .*train/dog.*--dereference")


def test_a_link_that_leads_back_up_ends(pets):
    (pets / "train" / "dog" / "again").symlink_to(pets, target_is_directory=True)
    assert_refused(pets, "is more than 40 folders deep; does a link lead back up|cannot be followed")


def test_a_damaged_table_of_an_archive_is_made_again(pets, tmp_path, monkeypatch):
    expected = load_folder(pets)
    archive = tarred(pets, tmp_path / "pets.tar", mode="w:")
    load_folder(archive)
    (table,) = (user_cache() / "images").glob("members-*.json")
    table.write_bytes(table.read_bytes().replace(b"dog_1.JPEG", b"dog_2.JPEG"))
    assert torch.equal(load_folder(archive).train.images, expected.train.images)


# --- bounds -----------------------------------------------------------------------------------------------------


def zeros_in_a_zip(pets, path, name, size):
    with zipfile.ZipFile(zipped(pets, path), "a", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as file:
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    return path


def zeros_in_a_tar(pets, path, name, size):
    with tarfile.open(tarred(pets, path, mode="w:")) as whole, tarfile.open(path.with_name("b.tgz"), "w:gz") as archive:
        for member in whole:
            archive.addfile(member, whole.extractfile(member) if member.isfile() else None)
        member = tarfile.TarInfo(name)
        member.size = size
        archive.addfile(member, io.BytesIO(bytes(size)))
    return path.with_name("b.tgz")


@pytest.mark.parametrize("pack", [zeros_in_a_zip, zeros_in_a_tar])
def test_a_member_that_unpacks_to_far_more_than_an_image_is_refused(pets, tmp_path, monkeypatch, pack):
    monkeypatch.setattr(bounds, "LARGEST_FILE", 1 << 20)
    monkeypatch.setattr(bounds.check_size, "__defaults__", (1 << 20,))
    archive = pack(pets, tmp_path / ("a.zip" if pack is zeros_in_a_zip else "a.tar"), "pets/train/dog/x.png", 8 << 20)
    tracemalloc.start()
    assert_refused(archive, "8,388,608 bytes, more than the 1,048,576 that are read")
    assert tracemalloc.get_traced_memory()[1] < 6 << 20
    tracemalloc.stop()


def test_a_file_that_is_far_larger_than_an_image_is_refused(pets, monkeypatch):
    with (pets / "train" / "dog" / "x.png").open("wb") as file:
        file.truncate(1 << 40)
    assert_refused(pets, "x.png cannot be read: it has 1,099,511,627,776 bytes, more than", size="@20")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_of_a_tar_archive_is_bounded(pets, tmp_path, kind):
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        member = tarfile.TarInfo("a")
        member.type, member.size = kind, 2 << 20
        archive.addfile(member, io.BytesIO(bytes(2 << 20)))
    assert_refused(tmp_path / "a.tgz", "a.tgz is damaged or not complete: .*a header of 2,097,152 bytes")


def test_an_image_of_more_pixels_than_pillow_allows_is_refused_before_they_are_decoded(pets, monkeypatch):
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 10_000)
    path = pets / "train" / "dog" / "dog_1.JPEG"
    path.write_bytes(encoded(picture(1, (150, 100)), "PNG"))
    assert_refused(
        pets, "dog_1.JPEG: image of 100x150 .height x width. must have at most 10,000 pixels; shrink it", size="@20"
    )
