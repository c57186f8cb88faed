"""TinyImageNet, ImageNet-1K and its subsets, ImageNette and ImageWoof in the layouts they are published in."""

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import (
    as_torchvision_does,
    cache_files,
    encoded,
    picture,
    serving,
    tarred,
    write,
    write_classes,
    write_shard,
    zipped,
)
from scipy.io import savemat

from clreplay.data import NORMALIZATIONS, DataNotFoundError, InvalidDataError, load_dataset
from clreplay.data.readers.counts import Counts, even
from clreplay.data.sets import imagenet, imagenette, tinyimagenet

OFFICIAL = {
    spec.name: spec
    for spec in (tinyimagenet.SPEC, imagenet.IMAGENET, *imagenet.SUBSETS.values(), *imagenette.SPECS.values())
}
REAL_DATA = os.environ.get("CLREPLAY_DATA")


@pytest.fixture(autouse=True)
def small_official_sets(monkeypatch):
    """The sets with a few images a class, and no way to the real servers."""
    monkeypatch.delenv("CLREPLAY_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    nowhere = {"url": "http://127.0.0.1:1/archive"}
    tiny = replace(tinyimagenet.SPEC, num_classes=3, counts={"train": even(4, 3), "test": even(2, 3)}, **nowhere)
    monkeypatch.setattr(tinyimagenet, "SPEC", tiny)
    counts = {"train": Counts(9, least=2, most=4), "test": even(2, 3)}
    monkeypatch.setattr(imagenet, "IMAGENET", replace(imagenet.IMAGENET, num_classes=3, counts=counts))
    for name, spec in imagenette.SPECS.items():
        train = (2, 3, *[2] * 8)
        small = {"train": Counts(21, train if name == "imagenette" else None), "test": Counts(10)}
        whole = tuple(count + 1 for count in train)
        monkeypatch.setitem(imagenette.SPECS, name, replace(spec, counts=small, whole=whole, **nowhere))
    for name, spec in imagenet.SUBSETS.items():
        small = {"train": Counts(21, (2, 3, *[2] * 8)), "test": even(2, 10)}
        monkeypatch.setitem(imagenet.SUBSETS, name, replace(spec, counts=small))


def assert_holds(dataset, split, paths, size):
    """The split's images are those at `paths`, in this order, as torchvision decodes them."""
    images = getattr(dataset, split).images
    assert np.array_equal(images.numpy(), np.stack([as_torchvision_does(path, size) for path in paths]))


def assert_refused(name, root, message):
    with pytest.raises(InvalidDataError, match=message):
        load_dataset(name, root, download=False)
    assert not [path for path in cache_files() if path.suffix == ".npy"]


def test_the_official_numbers_are_those_published():
    """Totals that papers and the sets' own pages give, against what is written down by class."""
    totals = {name: (spec.counts["train"].total, spec.counts["test"].total) for name, spec in OFFICIAL.items()}
    assert totals == {
        "tinyimagenet": (100_000, 10_000),
        "imagenet": (1_281_167, 50_000),
        "imagenette": (9469, 3925),
        "imagewoof": (9025, 3929),
        "imagenette1k": (12_894, 500),
        "imagewoof1k": (12_454, 500),
    }
    for spec in (OFFICIAL["imagenette"], OFFICIAL["imagewoof"]):
        assert sum(spec.whole) == sum(totals[spec.name])
    by_class = [OFFICIAL["imagenette"].counts[split].per_class for split in ("train", "test")]
    assert tuple(map(sum, by_class)) == totals["imagenette"]
    assert tuple(map(sum, zip(*by_class, strict=True))) == OFFICIAL["imagenette"].whole
    # The indices of the classes in ImageNet, in the order of the papers' code.
    assert OFFICIAL["imagenette1k"].shard_labels == (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)
    assert OFFICIAL["imagewoof1k"].shard_labels == (193, 182, 258, 162, 155, 167, 159, 273, 207, 229)
    for name in ("imagenette1k", "imagewoof1k"):  # sorted WordNet ids are ImageNet's order
        spec = OFFICIAL[name]
        in_order = [wnid for _, wnid in sorted(zip(spec.shard_labels, spec.classes, strict=True))]
        assert in_order == sorted(spec.classes)


# --- TinyImageNet -----------------------------------------------------------------------------------------------

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
    assert_refused("tinyimagenet", tmp_path, message)


def test_a_truncated_archive_is_named_and_not_downloaded_over(tiny, tmp_path):
    archive = zipped(tiny, tmp_path / "tiny-imagenet-200.zip")
    shutil.rmtree(tiny)
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(InvalidDataError, match="tiny-imagenet-200.zip is damaged or not complete"):
        load_dataset("tinyimagenet", tmp_path, download=True)


# --- ImageNet-1K ------------------------------------------------------------------------------------------------

IDS = ("n01440764", "n01443537", "n02105641")


def write_imagenet(folder) -> Path:
    """train/ and val/ with class folders, images of all sizes; one is grey and one CMYK, as in the real set."""
    for number, (wnid, count) in enumerate(zip(IDS, (4, 2, 3), strict=True)):
        for each in range(count):
            image = picture(20 * number + each, (70 + 10 * each, 90 - 9 * number))
            kind = {(0, 1): "L", (2, 2): "CMYK"}.get((number, each), "RGB")
            write(folder / "train" / wnid / f"{wnid}_{each * 37}.JPEG", image.convert(kind))
        for each in range(2):
            name = f"ILSVRC2012_val_{2 * number + each + 1:08d}.JPEG"
            write(folder / "val" / wnid / name, picture(300 + 20 * number + each, (66, 64)))
    return folder


def flatten(folder) -> dict[str, str]:
    """Validation images in one folder, as the archive has them; the answers."""
    answers = {}
    for path in sorted((folder / "val").rglob("*.JPEG")):
        answers[path.stem] = path.parent.name
        path.rename(folder / "val" / path.name)
    for wnid in IDS:
        (folder / "val" / wnid).rmdir()
    return answers


def write_solution(path, answers):
    lines = [f"{name},{wnid} 85 1 499 272 {wnid} 3 4 9 9 " for name, wnid in sorted(answers.items(), reverse=True)]
    return write(path, "\n".join(["ImageId,PredictionString", *lines]) + "\n")


def write_kit(folder, answers):
    """The development kit's two files; its class numbers are in another order than the WordNet ids."""
    kinds = [("ILSVRC2012_ID", "i4"), ("WNID", "O"), ("words", "O"), ("num_children", "i4")]
    rows = [(1, IDS[2], "bobtail", 0), (2, IDS[0], "tench", 0), (3, IDS[1], "goldfish", 0), (4, "n00001740", "all", 3)]
    folder.mkdir(parents=True, exist_ok=True)
    savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=kinds).reshape(-1, 1)})
    numbers = {wnid: number for number, wnid, _, _ in rows}
    truth = "\n".join(str(numbers[answers[name]]) for name in sorted(answers))
    write(folder / "ILSVRC2012_validation_ground_truth.txt", truth + "\n")


@pytest.fixture
def whole(tmp_path) -> Path:
    """A copy to compare with."""
    return write_imagenet(tmp_path / "whole")


def assert_is_imagenet(dataset, whole, names=IDS):
    assert (dataset.name, dataset.normalization) == ("imagenet", NORMALIZATIONS["imagenet"])
    assert dataset.class_names == names
    assert dataset.train.labels.tolist() == [0] * 4 + [1] * 2 + [2] * 3
    assert dataset.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert_holds(dataset, "train", sorted((whole / "train").rglob("*.JPEG")), 64)
    assert_holds(dataset, "test", sorted((whole / "val").rglob("*.JPEG")), 64)


@pytest.mark.parametrize("place", ["imagenet", "ImageNet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC"])
def test_imagenet_is_read_from_class_folders(tmp_path, whole, place):
    folder = write_imagenet(tmp_path / "root" / place)
    assert_is_imagenet(load_dataset("imagenet", tmp_path / "root"), whole)
    assert_is_imagenet(load_dataset("imagenet", folder), whole)


@pytest.mark.parametrize("place", [".", "val"])
def test_flat_validation_images_with_kaggles_answers(tmp_path, whole, place):
    folder = write_imagenet(tmp_path / "imagenet")
    write_solution(folder / place / "LOC_val_solution.csv", flatten(folder))
    assert_is_imagenet(load_dataset("imagenet", tmp_path), whole)


def test_kaggles_archive_as_it_unpacks(tmp_path, whole):
    root = tmp_path / "root"
    write_solution(root / "LOC_val_solution.csv", flatten(write_imagenet(root / "ILSVRC" / "Data" / "CLS-LOC")))
    write(root / "LOC_synset_mapping.txt", "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius\n")
    write_classes(root / "ILSVRC" / "Data" / "CLS-LOC" / "test", {})
    dataset = load_dataset("imagenet", root)
    assert_is_imagenet(dataset, whole, names=("tench", "goldfish", IDS[2]))


@pytest.mark.parametrize("place", ["ILSVRC2012_devkit_t12/data", "."])
def test_flat_validation_images_with_the_development_kit(tmp_path, whole, place):
    folder = write_imagenet(tmp_path / "imagenet")
    write_kit(folder / place, flatten(folder))
    assert_is_imagenet(load_dataset("imagenet", tmp_path), whole)


def flat(change):
    def changed(folder):
        answers = flatten(folder)
        write_solution(folder / "LOC_val_solution.csv", answers)
        change(folder, answers)

    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "train" / IDS[1]), "val has a folder n01443537 that is no class"),
        (lambda folder: shutil.rmtree(folder / "val" / IDS[1]), "val has no folder n01443537; copy it again"),
        (
            lambda folder: [shutil.rmtree(folder / split / IDS[1]) for split in ("train", "val")],
            "it must have 3 classes, got 2",
        ),
        (
            lambda folder: (folder / "train" / IDS[1] / f"{IDS[1]}_0.JPEG").unlink(),
            r"ImageNet-1K must have 2 to 4 images in train/n01443537 \(train\), got 1",
        ),
        (
            lambda folder: (folder / "train" / IDS[0] / f"{IDS[0]}_0.JPEG").unlink(),
            r"ImageNet-1K must have 9 images \(train\), got 8",
        ),
        (
            lambda folder: (folder / "val" / IDS[0] / "ILSVRC2012_val_00000002.JPEG").unlink(),
            r"ImageNet-1K must have 2 images in val/n01440764 \(test\), got 1",
        ),
        (
            lambda folder: write(folder / "train" / IDS[0] / f"{IDS[0]}_0.JPEG", b"\xff\xd8\xff\xe0"),
            "n01440764_0.JPEG: .*; fetch the file again",
        ),
        (flatten, "val has no class folders, and there is neither LOC_val_solution.csv nor ILSVRC2012_validation"),
        (
            flat(lambda folder, answers: (folder / "val/ILSVRC2012_val_00000005.JPEG").unlink()),
            "val/ILSVRC2012_val_00000005.JPEG is missing; copy it again",
        ),
        (
            flat(lambda folder, answers: write(folder / "val/ILSVRC2012_val_00000009.JPEG", picture(0))),
            "val/ILSVRC2012_val_00000009.JPEG is not among the answers of ImageNet-1K",
        ),
        (
            flat(lambda folder, answers: write(folder / "LOC_val_solution.csv", "ImageId,PredictionString\nx\n")),
            "LOC_val_solution.csv near .* must have lines ImageId,WNID",
        ),
        (
            lambda folder: (write_kit(folder, flatten(folder)), write(folder / "meta.mat", b"MATLAB 5.0")),
            "meta.mat near .* cannot be read",
        ),
        (
            lambda folder: (
                write_kit(folder, flatten(folder)),
                write(folder / "ILSVRC2012_validation_ground_truth.txt", "7\n" * 6),
            ),
            "has class 7, which meta.mat does not know",
        ),
    ],
)
def test_a_fault_in_imagenet_is_named(tmp_path, change, message):
    change(write_imagenet(tmp_path / "imagenet"))
    assert_refused("imagenet", tmp_path, message)


# --- ten classes of ImageNet-1K ---------------------------------------------------------------------------------


def write_ten(folder, name, *, tests, extra=()) -> Path:
    """The ten classes of a subset, in ImageNet's split, beside others."""
    spec = imagenet.SUBSETS[name]
    for number, (wnid, count) in enumerate(zip(spec.classes, (2, 3, *[2] * 8), strict=True)):
        write_classes(folder / "train", {wnid: count}, 50 * number, (90, 130 + number))
        write_classes(folder / "val", {wnid: tests}, 5000 + 50 * number, (140, 90))
    for wnid in extra:
        write_classes(folder / "train", {wnid: 3}, 9000)
        write_classes(folder / "val", {wnid: 3}, 9100)
    return folder


@pytest.mark.parametrize("name", ["imagenette1k", "imagewoof1k"])
def test_a_subset_of_imagenet_is_cut_from_the_whole_in_the_published_order(tmp_path, name):
    folder = write_ten(tmp_path / "imagenet", name, tests=2, extra=("n01443537", "n02111500"))
    dataset, spec = load_dataset(name, tmp_path), imagenet.SUBSETS[name]
    assert dataset.class_names == spec.class_names
    assert dataset.train.labels.bincount().tolist() == [2, 3, *[2] * 8]
    assert_holds(dataset, "train", [p for w in spec.classes for p in sorted((folder / "train" / w).glob("*"))], 128)
    assert_holds(dataset, "test", [p for w in spec.classes for p in sorted((folder / "val" / w).glob("*"))], 128)


def test_a_subset_of_flat_validation_images_leaves_the_others_out(tmp_path):
    folder = write_ten(tmp_path / "imagenet", "imagewoof1k", tests=2, extra=("n01443537",))
    answers = {}
    for number, path in enumerate(sorted((folder / "val").rglob("*.JPEG"))):
        answers[f"ILSVRC2012_val_{number:08d}"] = path.parent.name
        path.rename(folder / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    for path in [path for path in (folder / "val").iterdir() if path.is_dir()]:
        path.rmdir()
    write_solution(folder / "LOC_val_solution.csv", answers)
    dataset, spec = load_dataset("imagewoof1k", tmp_path), imagenet.SUBSETS["imagewoof1k"]
    chosen = sorted((spec.classes.index(wnid), name) for name, wnid in answers.items() if wnid in spec.classes)
    assert dataset.test.labels.tolist() == [label for label, _ in chosen]
    assert_holds(dataset, "test", [folder / "val" / f"{name}.JPEG" for _, name in chosen], 128)


def test_a_subset_is_cut_from_shards_of_the_whole(tmp_path):
    spec = imagenet.SUBSETS["imagewoof1k"]
    counts = dict(zip(spec.shard_labels, (2, 3, *[2] * 8), strict=True))
    rows = {"train": [], "validation": []}
    for label in [*spec.shard_labels, 5, 999]:
        rows["train"] += [label] * counts.get(label, 4)
        rows["validation"] += [label] * 2
    files = {}
    for split, labels in rows.items():
        order = np.random.RandomState(1).permutation(len(labels))
        labels = [labels[row] for row in order]
        files[split] = [write(tmp_path / split / f"{n}.JPEG", picture(n, (50, 60))) for n in range(len(labels))]
        data = [path.read_bytes() for path in files[split]]
        write_shard(tmp_path / f"imagenet/data/{split}-00000-of-00002.parquet", data[:9], labels[:9])
        write_shard(tmp_path / f"imagenet/data/{split}-00001-of-00002.parquet", data[9:], labels[9:])
        rows[split] = labels
    write_shard(tmp_path / "imagenet/data/test-00000-of-00001.parquet", [b""], [-1])  # the hub has it, without labels
    dataset = load_dataset("imagewoof1k", tmp_path)
    assert dataset.class_names == spec.class_names
    for split, name in (("train", "train"), ("test", "validation")):
        chosen = [row for row, label in enumerate(rows[name]) if label in spec.shard_labels]
        labels = [spec.shard_labels.index(rows[name][row]) for row in chosen]
        assert getattr(dataset, split).labels.tolist() == labels
        assert_holds(dataset, split, [files[name][row] for row in chosen], 128)


def test_a_class_missing_from_the_whole_is_named(tmp_path):
    folder = write_ten(tmp_path / "imagenet", "imagenette1k", tests=2)
    shutil.rmtree(folder / "val" / "n03394916")
    assert_refused("imagenette1k", tmp_path, "val has no folder n03394916")


# --- ImageNette and ImageWoof as released -----------------------------------------------------------------------


def write_released(folder, name="imagenette") -> Path:
    return write_ten_sorted(folder, imagenette.SPECS[name].classes)


def write_ten_sorted(folder, classes) -> Path:
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
    assert_refused("imagenette", tmp_path, message)


def test_an_image_moved_between_the_splits_of_imagewoof_is_noticed(tmp_path):
    """Its numbers are known for each split, and for each class over both."""
    folder = write_released(tmp_path / "imagewoof2", "imagewoof")
    first, second = imagenette.SPECS["imagewoof"].classes[:2]
    path = next(folder.glob(f"train/{second}/*"))
    path.rename(folder / "train" / first / "moved.JPEG")
    assert_refused("imagewoof", tmp_path, rf"must have 3 images in {first} \(train and test together\), got 4")


def test_the_other_release_under_this_name_is_refused(tmp_path):
    write_released(tmp_path / "imagenette2", "imagewoof")
    assert_refused("imagenette", tmp_path, "train has no folder n01440764 and 9 more")


# --- download ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["tinyimagenet", "imagenette"])
def published(request, tmp_path, monkeypatch):
    """The name of a set, its folder and its archive, which a server of this machine gives out."""
    served = tmp_path / "served"
    served.mkdir()
    if request.param == "tinyimagenet":
        folder = write_tiny(tmp_path / "made" / "tiny-imagenet-200")
        archive = zipped(folder, served / "tiny-imagenet-200.zip")
    else:
        folder = write_released(tmp_path / "made" / "imagenette2")
        archive = tarred(folder, served / "imagenette2.tgz")
    with serving(served) as address:
        reach = {"url": f"{address}/{archive.name}", "md5": hashlib.md5(archive.read_bytes()).hexdigest()}
        if request.param == "tinyimagenet":
            monkeypatch.setattr(tinyimagenet, "SPEC", replace(tinyimagenet.SPEC, **reach))
        else:
            monkeypatch.setitem(imagenette.SPECS, "imagenette", replace(imagenette.SPECS["imagenette"], **reach))
        yield request.param, folder, archive


def test_a_download_is_kept_as_the_archive_and_found_the_next_time(tmp_path, published):
    name, folder, archive = published
    expected = load_dataset(name, folder.parent)
    for download in (True, False):
        dataset = load_dataset(name, tmp_path / "data", download=download)
        assert torch.equal(dataset.train.images, expected.train.images)
        assert torch.equal(dataset.test.images, expected.test.images)
        assert [path.name for path in (tmp_path / "data").iterdir()] == [archive.name]


def test_a_damaged_download_leaves_nothing_behind(tmp_path, published):
    name, _, archive = published
    archive.write_bytes(archive.read_bytes()[:-50])
    with pytest.raises(DataNotFoundError, match="File not found or corrupted"):
        load_dataset(name, tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "tinyimagenet",
            [
                "/tiny-imagenet-200.zip",
                "/tinyimagenet",
                "Connection refused",
                "http://cs231n.stanford.edu/tiny-imagenet",
            ],
        ),
        ("imagenette", ["/imagenette2-160.tgz", "Connection refused", "https://s3.amazonaws.com/fast-ai-imageclas/"]),
        ("imagenet", ["no public address", "https://image-net.org/download", "imagenet/train/WNID/", "kaggle.com"]),
        ("imagewoof1k", ["ImageWoof from ImageNet-1K was not found at", "https://image-net.org/download"]),
    ],
)
def test_no_copy_and_no_network_gives_one_error_with_every_way_out(tmp_path, name, parts):
    with pytest.raises(DataNotFoundError) as caught:
        load_dataset(name, tmp_path / "nowhere")
    message = str(caught.value)
    for part in (*parts, str(tmp_path / "nowhere"), "--data-root", "CLREPLAY_DATA", "runs/digits_5step.py"):
        assert part in message
    assert isinstance(caught.value, FileNotFoundError)
    assert not (tmp_path / "nowhere").exists()


def test_colour_sets_have_three_channels(tmp_path):
    for name in ("tinyimagenet", "imagenet", "imagenette1k", "imagewoof"):
        with pytest.raises(ValueError, match=f"channels must be 3 for {name}, got 1; leave it out"):
            load_dataset(name, tmp_path, channels=1)


# --- real images ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    not REAL_DATA or not Path(REAL_DATA, "imagenette2-160-s").is_dir(),
    reason="set CLREPLAY_DATA to a folder with a part of ImageNette to check real JPEG files",
)
def test_real_photographs_are_decoded_as_torchvision_does_and_are_not_taken_for_the_whole_set(tmp_path):
    import io

    import pyarrow.parquet as pq
    from PIL import Image

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
