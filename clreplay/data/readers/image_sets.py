"""Data sets of encoded images: class folders, archives of them, or Parquet shards, decoded once into the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clreplay.data.dataset import Dataset, ImageSet
from clreplay.data.errors import InvalidDataError
from clreplay.data.normalization import measured_normalization
from clreplay.data.readers import parquet
from clreplay.data.readers.counts import Counts, check_counts
from clreplay.data.readers.finding import fetch_file, first_copy, listed
from clreplay.data.readers.image_files import Batch, Target, image_side, in_words
from clreplay.data.readers.layouts import class_folders
from clreplay.data.readers.pixel_cache import Encoded, cached_pixels
from clreplay.data.readers.spec import SPLITS, ImageSpec
from clreplay.data.readers.trees import Tree, open_tree


def load_images(
    spec: ImageSpec,
    root: Path,
    *,
    download: bool,
    first: Sequence[Callable[[], Dataset | str]] = (),
    fetch: Callable[[], Dataset] | None = None,
) -> Dataset:
    """The first complete copy of a data set at or under `root`, else its download.

    Args:
        first: attempts that are made before folders, shards and archives are looked for.
        fetch: downloads and loads the set; None downloads the archive at `spec.url`, if there is one.

    Raises:
        DataNotFoundError: no copy, and no download; the message says what was tried and the ways out.
        InvalidDataError: a copy is there but damaged, incomplete or not the official set.
    """
    places = [root / folder for folder in spec.folders]
    if root.name.lower() in {Path(folder).name.lower() for folder in spec.folders}:
        places.insert(0, root)

    def in_folders() -> Dataset | str:
        for place in places:
            if (found := read_place(spec, place)) is not None:
                return found
        tests = " or ".join(f"{name}/" for name in spec.test_folders[:2])
        return f"train/ and {tests} with a folder a class, or such Parquet files: in none of {listed(places)}"

    def in_shared_folders() -> Dataset | str:
        shared = [root / folder for folder in spec.shared_folders]
        for folder in shared:
            found = _find_shards(spec, folder)
            if any(found.values()) and _have_columns(spec, found):
                return _read_parquet(spec, folder, found)
        return f"Parquet files train-*.parquet and test-*.parquet of {spec.title}: in none of {listed(shared)}"

    def in_archives() -> Dataset | str:
        paths = [folder / name for name in spec.archives for folder in (root, root / spec.name)]
        for path in paths:
            if path.is_file():
                return read_tree(spec, open_tree(path))
        return f"archives: none of {listed(paths)}"

    def fetch_archive() -> Dataset:
        return read_tree(spec, open_tree(fetch_file(spec.url or "", spec.md5, root)))

    attempts = [*first, in_folders]
    attempts += [in_shared_folders] if spec.shared_folders else []
    attempts += [in_archives] if spec.archives else []
    fetch = fetch or (fetch_archive if spec.url else None)
    return first_copy(spec.title, root, attempts, fetch, download=download, ways_out=spec.ways_out)


def read_place(spec: ImageSpec, place: Path) -> Dataset | None:
    """The data set in a folder, from Parquet shards or class folders; None if the folder has neither.

    Raises:
        InvalidDataError: it is there but damaged, incomplete or not the official set.
    """
    for folder in (place, place / "data"):
        found = _find_shards(spec, folder)
        if any(found.values()):
            return _read_parquet(spec, folder, found)
    return read_tree(spec, open_tree(place)) if (place / "train").is_dir() else None


# --- class folders ----------------------------------------------------------------------------------------------


class TreeSplit:
    """The images of one split in a tree, in row order."""

    def __init__(self, tree: Tree, folder: str, paths: Sequence[str]) -> None:
        self.where = f"{tree.where}/{folder}".rstrip("/")
        self._tree, self._paths = tree, paths

    def __len__(self) -> int:
        return len(self._paths)

    def fingerprint(self) -> Iterator[tuple[Any, ...]]:
        return self._tree.fingerprint(self._paths)

    def batches(self) -> Iterator[Batch]:
        return self._tree.batches(self._paths)


def read_tree(spec: ImageSpec, tree: Tree) -> Dataset:
    """The data set in a tree.

    Raises:
        InvalidDataError: it is damaged, incomplete or not the official set.
    """
    layout = (spec.layout or class_folders)(tree, spec)
    if spec.num_classes not in (None, len(layout.classes)):
        raise InvalidDataError(
            f"{tree.where} is not {spec.title}: it must have {spec.num_classes} classes, got {len(layout.classes)}"
        )
    numbers = {name: label for label, name in enumerate(layout.classes)}
    encoded, labels = {}, {}
    for split, folder in layout.folders.items():
        # In the order of torchvision's image folders for every layout: by class, and by path within a class.
        ordered = sorted((numbers[name], path) for path, name in layout.pairs[split])
        labels[split] = np.array([label for label, _ in ordered], dtype=np.int64)
        encoded[split] = TreeSplit(tree, folder, [path for _, path in ordered])
        places = [f"{folder}/{name}".lstrip("/") for name in layout.classes]
        check_counts(spec.title, split, labels[split], spec.counts[split], encoded[split].where, places)
    _check_whole(spec, tree.where, labels, layout.classes)
    names = spec.titles(tree, layout.classes) if spec.titles else layout.classes
    numbered = layout.classes == tuple(str(label) for label in range(len(layout.classes)))
    if spec.class_names and (spec.classes or numbered):  # otherwise the folders may be in another order
        names = spec.class_names
    return _dataset(spec, encoded, labels, names, f"{spec.title} from {tree.where}.")


# --- Parquet shards ---------------------------------------------------------------------------------------------


def _find_shards(spec: ImageSpec, folder: Path) -> dict[str, tuple[Path, ...]]:
    names = {"train": ("train",), "test": spec.test_folders}
    return {
        split: next((files for name in names[split] if (files := parquet.find_shards(folder, name))), ())
        for split in SPLITS
    }


def _have_columns(spec: ImageSpec, found: Mapping[str, tuple[Path, ...]]) -> bool:
    return all(parquet.open_split(files, spec.label_columns) is not None for files in found.values() if files)


def _read_parquet(spec: ImageSpec, folder: Path, found: Mapping[str, tuple[Path, ...]]) -> Dataset:
    if absent := [split for split in SPLITS if not found[split]]:
        present = next(paths[0].name for paths in found.values() if paths)
        wanted = "train" if absent == ["train"] else " or ".join(spec.test_folders)
        raise InvalidDataError(f"{folder} has {present} but no Parquet files of {wanted}; {spec.title} needs both")
    opened, labels, rows = {}, {}, {}
    for split in SPLITS:
        if (part := parquet.open_split(found[split], spec.label_columns)) is None:
            raise InvalidDataError(
                f"{found[split][0]} is not {spec.title}: it needs a column img or image and a column "
                f"{' or '.join(spec.label_columns)}"
            )
        opened[split] = part
        labels[split], rows[split] = _chosen_rows(parquet.read_labels(part), spec.shard_labels)
    count = spec.num_classes or int(labels["train"].max(initial=-1)) + 1
    if count > (images := len(labels["train"])):  # before anything is made for every class
        raise InvalidDataError(
            f"{folder}: labels of train must be 0 to n-1 for n classes, all of which have images, got a label "
            f"{count - 1} with {images} images; number the classes anew"
        )
    ordered = spec.shard_labels is not None
    for split in SPLITS:
        where, places = f"{folder.absolute()}", [f"class {label}" for label in range(count)]
        check_counts(spec.title, split, labels[split], spec.counts[split], where, places, ordered=ordered)
    _check_whole(spec, str(folder), labels, [f"class {label}" for label in range(count)], ordered=ordered)
    encoded = {split: parquet.ParquetRows(opened[split], rows[split]) for split in SPLITS}
    names = spec.class_names if ordered else parquet.read_class_names(folder, opened["train"], count, spec.class_names)
    shards = sum(len(part.files) for part in opened.values())
    source = f"{spec.title} from {shards} Parquet files in {folder.absolute()}."
    return _dataset(spec, encoded, labels, names, source)


def _chosen_rows(labels: np.ndarray, wanted: tuple[int, ...] | None) -> tuple[np.ndarray, np.ndarray]:
    if wanted is None:
        return labels, np.arange(len(labels))
    rows = np.flatnonzero(np.isin(labels, wanted))
    numbers = {label: number for number, label in enumerate(wanted)}
    return np.array([numbers[label] for label in labels[rows].tolist()], dtype=np.int64), rows


# --- shared -----------------------------------------------------------------------------------------------------


def _check_whole(
    spec: ImageSpec, where: str, labels: Mapping[str, np.ndarray], classes: Sequence[str], *, ordered: bool = True
) -> None:
    if spec.whole is not None:
        both, counts = np.concatenate([labels[split] for split in SPLITS]), Counts(sum(spec.whole), spec.whole)
        check_counts(spec.title, "train and test together", both, counts, where, classes, ordered=ordered)


def _dataset(
    spec: ImageSpec,
    encoded: Mapping[str, Encoded],
    labels: Mapping[str, np.ndarray],
    class_names: Sequence[str] | None,
    source: str,
) -> Dataset:
    target = spec.target if spec.target.size else _with_size_of_first_image(spec.target, encoded["train"])
    sets = {
        split: ImageSet(cached_pixels(f"{spec.name}-{split}", encoded[split], target), torch.from_numpy(labels[split]))
        for split in SPLITS
    }
    normalization = spec.normalization or measured_normalization(sets["train"].images)
    return Dataset(spec.name, sets["train"], sets["test"], tuple(class_names or ()), normalization, source)


def _with_size_of_first_image(target: Target, encoded: Encoded) -> Target:
    """The size of the first image that can be read; those before it are told when all are decoded."""
    problem: tuple[str, Exception] | None = None
    for batch in encoded.batches():
        for name, data in batch.images():
            try:
                width, height = image_side(data)
            except Exception as error:  # Pillow's plugins raise nearly anything on damaged bytes
                problem = problem or (name, error)
                continue
            return replace(target, size=width if width == height else (height, width))
    assert problem is not None, "a split has images"
    raise InvalidDataError(f"{problem[0]}: {in_words(problem[1])}; fetch the file again") from problem[1]
