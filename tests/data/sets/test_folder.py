"""Class folders of one's own: what is read, how images are brought into line, and what is said of faults."""

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import (
    as_torchvision_does,
    cache_files,
    encoded,
    picture,
    tarred,
    write,
    write_classes,
    write_shard,
    zipped,
)
from PIL import Image

from clreplay.data import DataNotFoundError, InvalidDataError, load_dataset, measured_normalization

COUNTS = {"train": {"cat": 4, "dog": 3, "emu": 2}, "test": {"cat": 1, "dog": 2, "emu": 1}}


@pytest.fixture
def pets(tmp_path) -> Path:
    """Three classes of 20x20 pictures in train/ and test/."""
    folder = tmp_path / "pets"
    for number, (split, counts) in enumerate(COUNTS.items()):
        write_classes(folder / split, counts, first=1000 * number)
    return folder


def load(folder, size="", **chosen):
    return load_dataset(f"folder:{folder}{size}", **chosen)


# --- layouts ----------------------------------------------------------------------------------------------------


def test_images_and_labels_are_those_of_torchvisions_image_folder(pets):
    from torchvision.datasets import ImageFolder

    dataset = load(pets)
    assert (dataset.name, dataset.class_names) == ("folder-pets", ("cat", "dog", "emu"))
    assert str(pets) in dataset.source
    for split in ("train", "test"):
        reference, found = ImageFolder(pets / split), getattr(dataset, split)
        assert found.labels.tolist() == [label for _, label in reference]
        for image, (pixels, _) in zip(found.images, reference, strict=True):
            assert np.array_equal(image.numpy(), np.asarray(pixels).transpose(2, 0, 1))


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_the_test_images_may_be_in_a_folder_of_another_name(pets, name):
    expected = load(pets)
    (pets / "test").rename(pets / name)
    assert torch.equal(load(pets).test.images, expected.test.images)


def test_of_two_such_folders_test_is_taken(pets):
    expected = load(pets)
    write_classes(pets / "val", COUNTS["test"], first=5000)
    assert torch.equal(load(pets).test.images, expected.test.images)


def test_images_lie_at_any_depth_and_other_files_beside_them(pets):
    expected = load(pets)
    (pets / "train" / "cat" / "images").mkdir()
    for path in sorted((pets / "train" / "cat").glob("*.JPEG")):
        path.rename(path.parent / "images" / path.name)
    write(pets / "train" / "cat" / "cat_boxes.txt", "0 0 5 5")
    write(pets / "train" / ".DS_Store", b"\0")
    write(pets / "train" / "dog" / "._dog_0.JPEG", b"\0")
    write(pets / "train" / ".cache" / "x.JPEG", b"\0")
    assert torch.equal(load(pets).train.images, expected.train.images)


def test_links_to_class_folders_are_followed(pets, tmp_path):
    expected = load(pets)
    (pets / "train" / "dog").rename(tmp_path / "elsewhere")
    (pets / "train" / "dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert torch.equal(load(pets).train.images, expected.train.images)


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
    expected = load(pets)
    archive = pack(pets, tmp_path / name)
    before = sorted(tmp_path.rglob("*"))
    for _ in range(2):
        dataset = load(archive)
        assert dataset.name == "folder-pets"
        for split in ("train", "test"):
            assert torch.equal(getattr(dataset, split).images, getattr(expected, split).images)
            assert torch.equal(getattr(dataset, split).labels, getattr(expected, split).labels)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_mac_adds_to_an_archive_is_left_out(pets, tmp_path):
    import zipfile

    expected = load(pets)
    archive = zipped(pets, tmp_path / "pets.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("__MACOSX/pets/train/cat/._cat_0.JPEG", b"\0")
    assert torch.equal(load(archive).train.images, expected.train.images)


def shards(pets, folder, names):
    """The pictures of a class folder as Parquet shards, rows in an order of their own."""
    order = {}
    for split, name in names.items():
        files = sorted((pets / split).rglob("*.JPEG"))
        order[split] = [files[row] for row in np.random.RandomState(0).permutation(len(files))]
        labels = [list(COUNTS["train"]).index(path.parent.name) for path in order[split]]
        write_shard(folder / name, [path.read_bytes() for path in order[split]], labels)
    return order


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train.parquet", "val.parquet"),
        ("data/train-00000-of-00001.parquet", "data/validation-00000-of-00001-2a1df75c6bce91ab.parquet"),
        ("train/0000.parquet", "test/0000.parquet"),
    ],
)
def test_parquet_shards_are_read_in_row_order(pets, tmp_path, train, test):
    order = shards(pets, tmp_path / "shards", {"train": train, "test": test})
    dataset = load(tmp_path / "shards", "@24")
    for split in ("train", "test"):
        found = getattr(dataset, split)
        assert [list(COUNTS["train"])[label] for label in found.labels] == [path.parent.name for path in order[split]]
        for image, path in zip(found.images, order[split], strict=True):
            assert np.array_equal(image.numpy(), as_torchvision_does(path, 24))


def test_val_and_validation_are_not_taken_for_one_another(pets, tmp_path):
    shards(pets, tmp_path, {"train": "train.parquet", "test": "validation.parquet"})
    assert len(load(tmp_path, "@20").test) == 4


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, -1], r"must have labels 0\.\.1, got -1\.\.1"),
        ([0, 2, 2], r"must have at least 1 images in class 1 \(train\), got 0"),
    ],
)
def test_shards_with_labels_that_are_no_classes_are_refused(tmp_path, labels, message):
    write_shard(tmp_path / "train.parquet", [encoded(picture(row)) for row in range(3)], labels)
    write_shard(tmp_path / "test.parquet", [encoded(picture(row)) for row in range(2)], [0, 1])
    with pytest.raises(InvalidDataError, match=message):
        load(tmp_path)


def test_a_gap_in_numbered_shards_is_named(pets, tmp_path):
    shards(pets, tmp_path, {"train": "train/0001.parquet", "test": "test/0000.parquet"})
    with pytest.raises(InvalidDataError, match="train has a shard number 1 but none number 0"):
        load(tmp_path)


def test_a_row_that_cannot_be_decoded_is_named(tmp_path):
    data = [encoded(picture(row)) for row in range(8)]
    write_shard(tmp_path / "train.parquet", [*data[:6], data[6][:-200], data[7]], [0] * 8)
    write_shard(tmp_path / "test.parquet", data, [0] * 8)
    with pytest.raises(InvalidDataError, match=r"train.parquet row 6 \(counted from 0\): .*; fetch the file again"):
        load(tmp_path)
    assert cache_files() == []


# --- sizes and colours ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 20, 37])
def test_odd_sizes_are_resized_as_torchvision_does(pets, size):
    for number, shape in enumerate([(31, 20), (20, 31), (7, 50), (64, 64)]):
        write(pets / "train" / "dog" / f"odd_{number}.JPEG", picture(77 + number, shape))
    dataset = load(pets, f"@{size}")
    assert dataset.name == f"folder-pets-{size}"
    expected = [as_torchvision_does(path, size) for path in sorted((pets / "train").rglob("*.JPEG"))]
    assert np.array_equal(dataset.train.images.numpy(), np.stack(expected))


def colours(name: str) -> Image.Image:
    if name == "palette with a see-through colour":
        image = picture(9).quantize(8)
        image.info["transparency"] = bytes(range(0, 256, 32))
        return image
    mode = {"grey": "L", "one bit": "1", "CMYK": "CMYK", "with transparency": "RGBA", "grey with transparency": "LA"}
    return picture(9, mode="RGBA" if mode.get(name) == "RGBA" else "RGB").convert(mode.get(name, "P"))


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        ("grey", ".JPEG"),
        ("CMYK", ".JPEG"),
        ("grey", ".png"),
        ("one bit", ".png"),
        ("palette", ".png"),
        ("palette with a see-through colour", ".png"),
        ("with transparency", ".png"),
        ("grey with transparency", ".png"),
    ],
)
def test_images_of_other_colours_become_rgb(pets, kind, ending):
    path = write(pets / "train" / "cat" / f"a{ending}", colours(kind))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = load(pets).train.images[0].numpy()
    assert Image.open(path).mode != "RGB"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(image, np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1))


def test_cmyk_is_not_inverted(pets):
    """Photoshop stores CMYK inverted and says so in a marker, which ImageNet's CMYK files have."""
    grey = Image.new("RGB", (20, 20), (200, 60, 30))
    write(pets / "train" / "cat" / "a.JPEG", encoded(grey.convert("CMYK")))
    pixels = load(pets).train.images[0].double().mean((1, 2))
    assert pixels.tolist() == pytest.approx([200, 60, 30], abs=6)


def test_sixteen_bits_are_refused_instead_of_cut(pets):
    deep = Image.fromarray(np.full((20, 20), 40_000, np.uint16))
    write(pets / "train" / "cat" / "deep.png", encoded(deep, "PNG"))
    with pytest.raises(InvalidDataError, match=r"deep.png: image has more than 8 bits a channel \(mode I"):
        load(pets)


def test_one_channel_makes_colours_grey(pets):
    dataset = load(pets, channels=1)
    path = sorted((pets / "train").rglob("*.JPEG"))[0]
    assert dataset.train.images.shape == (9, 1, 20, 20)
    assert np.array_equal(dataset.train.images[0, 0].numpy(), np.asarray(Image.open(path).convert("L")))
    assert len(dataset.normalization.mean) == 1
    with pytest.raises(ValueError, match="channels must be 3 or 1 for folder:.*, got 2"):
        load(pets, channels=2)


def test_images_are_normalised_with_the_mean_and_deviation_of_the_training_images(pets):
    dataset = load(pets)
    pixels = dataset.train.images.double() / 255
    assert dataset.normalization.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-12)
    assert dataset.normalization.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=1e-12)


def test_measuring_in_parts_changes_nothing(monkeypatch):
    from clreplay.data import normalization

    images = torch.randint(0, 256, (11, 2, 5, 5), dtype=torch.uint8)
    whole = measured_normalization(images)
    monkeypatch.setattr(normalization, "_MEASURED_AT_ONCE", 100)
    assert measured_normalization(images) == whole


# --- faults -----------------------------------------------------------------------------------------------------


def assert_refused(folder, message, size=""):
    with pytest.raises(InvalidDataError, match=message):
        load(folder, size)
    assert not [path for path in cache_files() if path.suffix != ".json"]


def test_images_of_several_sizes_need_a_size(pets):
    write(pets / "train" / "emu" / "big.JPEG", picture(1, (32, 32)))
    assert_refused(pets, rf"train/emu/big.JPEG: image must be 20x20, got 32x32; folder:{pets}@64 resizes all")
    write(pets / "train" / "cat" / "a.JPEG", picture(1, (32, 20)))
    assert_refused(pets, "cat/a.JPEG: image must be square, got 32x20; folder:")


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
    folder = pack(pets, tmp_path / {zipped: "a.zip", tarred: "a.tgz"}[pack]) if pack else pets
    assert_refused(folder, "train/dog/dog_1.JPEG: .*; fetch the file again")


def test_the_first_image_is_named_when_it_is_the_damaged_one(pets):
    (pets / "train" / "cat" / "cat_0.JPEG").write_bytes(b"no image")
    assert_refused(pets, "train/cat/cat_0.JPEG: .*; fetch the file again")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(pets):
    (pets / "train" / "dog" / "dog_1.JPEG").chmod(0)
    assert_refused(pets, "train/dog/dog_1.JPEG cannot be read")


def test_a_file_that_vanishes_while_others_are_read_is_named(pets, monkeypatch):
    from clreplay.data.readers import trees

    batches = trees.FolderTree.batches

    def after_a_deletion(tree, paths):
        (pets / "train" / "dog" / "dog_1.JPEG").unlink(missing_ok=True)
        return batches(tree, paths)

    monkeypatch.setattr(trees.FolderTree, "batches", after_a_deletion)
    assert_refused(pets, "train/dog/dog_1.JPEG cannot be read: .*No such file", "@20")


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


def remove(path):
    return lambda folder: shutil.rmtree(folder / path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("test"), "has train but no folder test or val or valid or validation; both are needed"),
        (remove("train"), "is no data set: it needs train/ and test/"),
        (remove("test/dog"), "test has no folder dog; copy it again"),
        (remove("train/dog"), "test has a folder dog that is no class of folder:"),
        (lambda folder: [path.unlink() for path in folder.glob("train/dog/*")], r"must have at least 1 .*train/dog"),
        (
            lambda folder: (remove("train")(folder), write(folder / "train" / "a.JPEG", picture(0))),
            "train must have a folder a class, got files such as a.JPEG$",
        ),
        (
            lambda folder: (remove("train")(folder), write(folder / "train" / "n01440764.tar", b"")),
            "got files such as n01440764.tar; unpack it into a folder of that name",
        ),
    ],
)
def test_a_tree_that_is_not_complete_is_explained(pets, change, message):
    change(pets)
    assert_refused(pets, message)


@pytest.mark.parametrize("name", ["folder:", "folder:pets@0"])
def test_a_name_of_another_form_is_explained(name):
    with pytest.raises(ValueError, match="name must be folder:PATH or folder:PATH@SIZE, such as folder:flowers@64"):
        load_dataset(name)


def test_a_path_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataNotFoundError, match=f"{tmp_path}/pets does not exist"):
        load_dataset("folder:pets@32")


def test_a_relative_path_counts_from_the_current_folder(pets, monkeypatch):
    monkeypatch.chdir(pets.parent)
    assert len(load_dataset("folder:pets", pets.parent / "nowhere").train) == 9


# --- the class-incremental run ----------------------------------------------------------------------------------


def test_a_folder_goes_through_the_class_incremental_run(pets, tmp_path, monkeypatch):
    import pandas as pd
    import yaml

    from clreplay.incremental.cli import continual_main

    monkeypatch.chdir(tmp_path)
    arguments = ["--dataset", f"folder:{pets}@16", "--memory", "random", "--steps", "3", "--images-per-class", "2"]
    quick = ["--preset", "smoke", "--device", "cpu", "--host", "none", "--no-cache", "--set", "train.updates=2"]
    assert continual_main(None, "", [*arguments, *quick]) == 0
    run = tmp_path / "out" / "folder-pets-16-3step-random-ipc2-smoke"
    rows = pd.read_csv(run / "results.csv")
    assert rows.classes_seen.tolist() == [1, 2, 3]
    assert set(rows.dataset) == {"folder-pets-16"}
    settings = (run / "settings.yaml").read_text()
    assert yaml.safe_load(settings)["dataset"] == "folder-pets-16"
    assert str(tmp_path) not in settings


def test_without_a_data_set_of_its_own_a_script_asks_for_one(capsys):
    from clreplay.incremental.cli import continual_main

    with pytest.raises(SystemExit):
        continual_main(None, "", ["--memory", "random"])
    assert "the following arguments are required: --dataset" in capsys.readouterr().err
