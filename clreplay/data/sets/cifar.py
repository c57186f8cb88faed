"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from torchvision's folder, shards, class folders or a download."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clreplay.data.dataset import Dataset
from clreplay.data.errors import InvalidDataError
from clreplay.data.normalization import NORMALIZATIONS
from clreplay.data.readers.counts import even
from clreplay.data.readers.finding import listed, network_timeout, staging
from clreplay.data.readers.image_files import Target
from clreplay.data.readers.image_sets import load_images
from clreplay.data.readers.spec import SPLITS, ImageSpec
from clreplay.data.readers.torchvision_files import dataset_of_arrays, move_folder, torchvision_class
from clreplay.data.registry import check_channels, register_dataset

_logger = logging.getLogger(__name__)


class Names(NamedTuple):
    """torchvision's names of its class, folder and archive, repeated so that copies are found without torchvision."""

    dataset_class: str
    folder: str
    archive: str


NAMES = {
    "cifar10": Names("CIFAR10", "cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "cifar100": Names("CIFAR100", "cifar-100-python", "cifar-100-python.tar.gz"),
}


def _spec(name: str, title: str, num_classes: int, label_columns: tuple[str, ...]) -> ImageSpec:
    return ImageSpec(
        name=name,
        title=title,
        target=Target(32),
        counts={"train": even(50_000 // num_classes, num_classes), "test": even(10_000 // num_classes, num_classes)},
        normalization=NORMALIZATIONS[name],
        folders=(name,),
        shared_folders=(".", "data"),
        num_classes=num_classes,
        test_folders=("test",),
        label_columns=label_columns,
        ways_out=(f"put {NAMES[name].archive} there; it is unpacked at the next start",),
    )


SPECS = {
    "cifar10": _spec("cifar10", "CIFAR-10", 10, ("label",)),
    "cifar100": _spec("cifar100", "CIFAR-100", 100, ("fine_label", "label")),
}


@register_dataset("cifar10", "cifar100")
def load_cifar(name: str, root: Path, *, download: bool, channels: int | None = None) -> Dataset:
    """CIFAR-10 or CIFAR-100; torchvision's folder is preferred, its rows in the order of the files.

    Raises: see `clreplay.data.readers.image_sets.load_images`; also
        ImportError: a copy is there whose format needs a package that is not installed.
    """
    check_channels(name, channels, (3,))
    spec = SPECS[name]
    first = [lambda: _from_folder(spec, root)]
    return load_images(spec, root, download=download, first=first, fetch=lambda: _fetch(spec, root))


def _from_folder(spec: ImageSpec, root: Path) -> Dataset | str:
    name = NAMES[spec.name].folder
    parents = [root, root / spec.name, *([root.parent] if root.name == name else [])]
    for parent in parents:
        if (parent / name).is_dir():
            return _read_folder(spec, parent)
    return f"torchvision's folder {name}: in none of {listed(parents)}"


def _read_folder(spec: ImageSpec, parent: Path) -> Dataset:
    names = NAMES[spec.name]
    dataset_class, folder = torchvision_class(spec, names.dataset_class), (parent / names.folder).absolute()
    try:
        parts = {split: dataset_class(parent, train=split == "train", download=False) for split in SPLITS}
    except (RuntimeError, OSError) as error:
        raise InvalidDataError(
            f"{folder} is there but damaged: {_damage(dataset_class, folder) or error}; "
            "delete the folder and start again to download it, or copy it again"
        ) from error
    # torchvision shows (n, h, w, c), a view of the files' (n, c, h, w).
    arrays = {s: (part.data.transpose(0, 3, 1, 2), np.asarray(part.targets, np.int64)) for s, part in parts.items()}
    return dataset_of_arrays(spec, folder, arrays, tuple(parts["train"].classes))


def _damage(dataset_class: Any, folder: Path) -> str:
    from torchvision.datasets.utils import check_integrity

    meta = dataset_class.meta
    files = [*dataset_class.train_list, *dataset_class.test_list, [meta["filename"], meta["md5"]]]
    missing = [file for file, _ in files if not (folder / file).is_file()]
    changed = [file for file, md5 in files if file not in missing and not check_integrity(folder / file, md5)]
    damage = {"missing": missing, "wrong checksum of": changed}
    return "; ".join(f"{what} {', '.join(names)}" for what, names in damage.items() if names)


def _fetch(spec: ImageSpec, root: Path) -> Dataset:
    names = NAMES[spec.name]
    dataset_class = torchvision_class(spec, names.dataset_class)
    from torchvision.datasets.utils import check_integrity, extract_archive

    archive, target = root / names.archive, root / names.folder
    with staging(root) as folder, network_timeout():
        if check_integrity(archive, dataset_class.tgz_md5):  # put there by the user, or by an older torchvision
            _logger.info("unpacking %s", archive)
            extract_archive(archive, folder)
        else:
            _logger.info("downloading %s into %s", spec.title, root.absolute())
            dataset_class(folder, download=True)
        dataset = _read_folder(spec, folder)
        move_folder(folder / names.folder, target)
    return replace(dataset, source=f"{spec.title} downloaded with torchvision into {target.absolute()}.")
