"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from torchvision's folder, Parquet shards or torchvision's download."""

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clreplay.data.dataset import Dataset, ImageSet
from clreplay.data.errors import InvalidDataError
from clreplay.data.normalization import NORMALIZATIONS
from clreplay.data.readers import parquet
from clreplay.data.readers.finding import first_copy, listed, network_timeout, staging
from clreplay.data.registry import check_channels, register_dataset

_logger = logging.getLogger(__name__)
_SIZE = 32


@dataclass(frozen=True)
class CifarSpec:
    """What the official set holds, and how its copies are named."""

    name: str
    title: str
    torchvision_class: str
    folder: str
    archive: str
    num_classes: int
    train_per_class: int
    test_per_class: int
    label_columns: tuple[str, ...]

    def per_class(self, split: str) -> int:
        return self.train_per_class if split == "train" else self.test_per_class


# Folder and archive are torchvision's names, repeated so that Parquet files can be read without torchvision.
SPECS = {
    "cifar10": CifarSpec(
        name="cifar10",
        title="CIFAR-10",
        torchvision_class="CIFAR10",
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        num_classes=10,
        train_per_class=5000,
        test_per_class=1000,
        label_columns=("label",),
    ),
    "cifar100": CifarSpec(
        name="cifar100",
        title="CIFAR-100",
        torchvision_class="CIFAR100",
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        num_classes=100,
        train_per_class=500,
        test_per_class=100,
        label_columns=("fine_label", "label"),
    ),
}


@register_dataset("cifar10", "cifar100")
def load_cifar(name: str, root: Path, *, download: bool, channels: int | None = None) -> Dataset:
    """The first complete copy of `name` at or under `root`, else torchvision's download into it.

    Raises:
        DataNotFoundError: no copy, and no download; the message says what was tried and the ways out.
        InvalidDataError: a copy is there but damaged, incomplete or not the official set.
        ImportError: a copy is there whose format needs a package that is not installed.
    """
    check_channels(name, channels, (3,))
    spec = SPECS[name]
    return first_copy(
        spec.title,
        root,
        [lambda: _from_torchvision_folder(spec, root), lambda: _from_parquet(spec, root)],
        lambda: _from_download(spec, root),
        download=download,
        ways_out=[f"put {spec.archive} into {root.absolute()}; it is unpacked at the next start"],
    )


# --- torchvision's folder ---------------------------------------------------------------------------------------


def _from_torchvision_folder(spec: CifarSpec, root: Path) -> Dataset | str:
    parents = [root, root / spec.name]
    if root.name == spec.folder:
        parents.append(root.parent)
    for parent in parents:
        if (parent / spec.folder).is_dir():
            return _read_torchvision(spec, parent)
    return f"torchvision's folder {spec.folder}: in none of {listed(parents)}"


def _read_torchvision(spec: CifarSpec, parent: Path) -> Dataset:
    dataset_class = _torchvision_class(spec)
    folder = (parent / spec.folder).absolute()
    try:
        parts = {split: dataset_class(parent, train=split == "train", download=False) for split in ("train", "test")}
    except (RuntimeError, OSError) as error:
        raise InvalidDataError(
            f"{folder} is there but damaged: {_damage(dataset_class, folder) or error}; "
            "delete the folder and start again to download it, or copy it again"
        ) from error
    splits = {}
    for split, part in parts.items():
        labels = np.asarray(part.targets, dtype=np.int64)
        _check_labels(spec, split, labels, str(folder))
        # torchvision shows (n, h, w, c), a view of the files' (n, c, h, w): turning it back copies nothing.
        images = np.ascontiguousarray(part.data.transpose(0, 3, 1, 2))
        splits[split] = ImageSet(torch.from_numpy(images), torch.from_numpy(labels))
    return _dataset(spec, splits, tuple(parts["train"].classes), f"{spec.title} in torchvision's folder {folder}.")


def _damage(dataset_class: Any, folder: Path) -> str:
    from torchvision.datasets.utils import check_integrity

    meta = dataset_class.meta
    files = [*dataset_class.train_list, *dataset_class.test_list, [meta["filename"], meta["md5"]]]
    missing = [file for file, _ in files if not (folder / file).is_file()]
    changed = [file for file, md5 in files if file not in missing and not check_integrity(folder / file, md5)]
    damage = {"missing": missing, "wrong checksum of": changed}
    return "; ".join(f"{what} {', '.join(names)}" for what, names in damage.items() if names)


def _torchvision_class(spec: CifarSpec) -> Any:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise ImportError(f"{spec.title} in torchvision's format needs torchvision: pip install torchvision") from error
    return getattr(datasets, spec.torchvision_class)


# --- Parquet shards ---------------------------------------------------------------------------------------------


def _from_parquet(spec: CifarSpec, root: Path) -> Dataset | str:
    named = [root / spec.name, root / spec.name / "data"]
    shared = [root, root / "data"]
    for folder in [*named, *shared]:
        files = {split: parquet.find_shards(folder, split) for split in ("train", "test")}
        if not any(files.values()):
            continue
        absent = [split for split in files if not files[split]]
        opened = {split: parquet.open_split(files[split], spec.label_columns) for split in files if files[split]}
        if None in opened.values():
            if folder in named:
                first = next(files[split][0] for split in opened if opened[split] is None)
                raise InvalidDataError(
                    f"{first} is not {spec.title}: it needs a column img or image and a column "
                    f"{' or '.join(spec.label_columns)}"
                )
            continue  # a shared folder may well hold the Parquet files of something else
        if absent:
            present = ", ".join(path.name for paths in files.values() for path in paths)
            raise InvalidDataError(f"{folder} has {present} but no {absent[0]}-*.parquet; {spec.title} needs both")
        return _read_parquet(spec, folder, opened)
    return f"Parquet files train-*.parquet and test-*.parquet of {spec.title}: in none of {listed([*named, *shared])}"


def _read_parquet(spec: CifarSpec, folder: Path, opened: dict[str, parquet.ParquetSplit]) -> Dataset:
    # Everything that is cheap to check comes before the first image is decoded.
    labels = {split: parquet.read_labels(part) for split, part in opened.items()}
    for split, part in opened.items():
        where = f"{folder} ({', '.join(path.name for path in part.files)})"
        _check_labels(spec, split, labels[split], where)
    class_names = parquet.read_class_names(folder, opened["train"], spec.num_classes)
    splits = {
        split: ImageSet(torch.from_numpy(parquet.read_images(part, _SIZE)), torch.from_numpy(labels[split]))
        for split, part in opened.items()
    }
    count = sum(len(part.files) for part in opened.values())
    return _dataset(spec, splits, class_names, f"{spec.title} from {count} Parquet files in {folder.absolute()}.")


# --- download ---------------------------------------------------------------------------------------------------


def _from_download(spec: CifarSpec, root: Path) -> Dataset:
    dataset_class = _torchvision_class(spec)
    from torchvision.datasets.utils import check_integrity, extract_archive

    target = root / spec.folder
    with staging(root) as folder, network_timeout():
        archive = root / spec.archive
        if check_integrity(archive, dataset_class.tgz_md5):  # brought by hand, or by an earlier torchvision
            _logger.info("unpacking %s", archive)
            extract_archive(archive, folder)
        else:
            _logger.info("downloading %s into %s", spec.title, root.absolute())
            dataset_class(folder, download=True)
        dataset = _read_torchvision(spec, folder)
        try:
            # In one step, so that a broken-off or a simultaneous run never leaves half a folder.
            os.replace(folder / spec.folder, target)
        except OSError:
            if not target.is_dir():  # else another run was faster with the same files
                raise
    return replace(dataset, source=f"{spec.title} downloaded with torchvision into {target.absolute()}.")


# --- shared -----------------------------------------------------------------------------------------------------


def _check_labels(spec: CifarSpec, split: str, labels: np.ndarray, where: str) -> None:
    per_class = spec.per_class(split)
    expected = per_class * spec.num_classes
    if len(labels) != expected:
        raise InvalidDataError(
            f"{where} is not complete: {spec.title} {split} must have {expected} rows, got {len(labels)}"
        )
    classes, counts = np.unique(labels, return_counts=True)
    if not np.array_equal(classes, np.arange(spec.num_classes)):
        raise InvalidDataError(
            f"{where} is not {spec.title}: {split} must have labels 0..{spec.num_classes - 1}, "
            f"got {len(classes)} labels {classes[0]}..{classes[-1]}"
        )
    if (counts != per_class).any():
        wrong = int(np.flatnonzero(counts != per_class)[0])
        raise InvalidDataError(
            f"{where} is not the official {spec.title}: {split} must have {per_class} images a class, "
            f"got {counts[wrong]} of class {wrong}"
        )


def _dataset(spec: CifarSpec, splits: dict[str, ImageSet], class_names: tuple[str, ...], source: str) -> Dataset:
    return Dataset(spec.name, splits["train"], splits["test"], class_names, NORMALIZATIONS[spec.name], source)
