"""ImageNet-1K in the layouts it is published in, and the two subsets of ten of its classes."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_helpers import assert_holds, assert_refused, picture, write, write_classes, write_shard
from scipy.io import savemat

from clreplay.data import NORMALIZATIONS, load_dataset
from clreplay.data.readers.counts import Counts, even
from clreplay.data.sets import imagenet

OFFICIAL = {"imagenet": imagenet.IMAGENET, **imagenet.SUBSETS}


@pytest.fixture(autouse=True)
def small_official_sets(monkeypatch):
    """Three classes of ImageNet, ten of each subset, with a few images each."""
    counts = {"train": Counts(9, least=2, most=4), "test": even(2, 3)}
    monkeypatch.setattr(imagenet, "IMAGENET", replace(imagenet.IMAGENET, num_classes=3, counts=counts))
    for name, spec in imagenet.SUBSETS.items():
        small = {"train": Counts(21, (2, 3, *[2] * 8)), "test": even(2, 10)}
        monkeypatch.setitem(imagenet.SUBSETS, name, replace(spec, counts=small))


def test_the_official_numbers_are_those_published():
    totals = {name: (spec.counts["train"].total, spec.counts["test"].total) for name, spec in OFFICIAL.items()}
    assert totals == {
        "imagenet": (1_281_167, 50_000),
        "imagenette1k": (12_894, 500),
        "imagewoof1k": (12_454, 500),
    }
    # The indices of the classes in ImageNet, in the order of the papers' code.
    assert OFFICIAL["imagenette1k"].shard_labels == (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)
    assert OFFICIAL["imagewoof1k"].shard_labels == (193, 182, 258, 162, 155, 167, 159, 273, 207, 229)
    for name in ("imagenette1k", "imagewoof1k"):  # sorted WordNet ids are ImageNet's order
        spec = OFFICIAL[name]
        in_order = [wnid for _, wnid in sorted(zip(spec.shard_labels, spec.classes, strict=True))]
        assert in_order == sorted(spec.classes)


# --- ImageNet-1K ------------------------------------------------------------------------------------------------------


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
    assert_refused(tmp_path, message, "imagenet")


# --- ten classes of ImageNet-1K ---------------------------------------------------------------------------------------


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
    assert_refused(tmp_path, "val has no folder n03394916", "imagenette1k")
