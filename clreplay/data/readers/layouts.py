"""How a data set is laid out in a tree: which folders are its splits and classes, and which images they hold."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import torch

from clreplay.data.errors import InvalidDataError
from clreplay.data.readers.image_files import EXTENSIONS
from clreplay.data.readers.spec import Layout, Pairs
from clreplay.data.readers.trees import Tree, is_image
from clreplay.runtime.progress import counted
from clreplay.runtime.seeding import generator

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from clreplay.data.readers.spec import ImageSpec


def class_folders(tree: Tree, spec: ImageSpec) -> Layout:
    """The usual layout: `train` and a test folder, each with a folder a class, images at any depth in it.

    Raises:
        InvalidDataError: a folder is missing, or there is one that the other split or the official set lacks.
    """
    folders = split_folders(tree, spec)
    classes = spec.classes or tuple(class_names_in(tree, folders["train"]))
    pairs = {split: folder_pairs(tree, folder, classes, spec) for split, folder in folders.items()}
    return Layout(classes, pairs, folders)


def divided(share: float) -> Callable[[Tree, ImageSpec], Layout]:
    """A layout without splits: a folder a class, and a share of the images of every class is for testing.

    Which ones depends on the class's name, its files' names and the share only.

    Args:
        share: within (0, 1); of every class at least one image is for testing, and one for training.
    """

    def layout(tree: Tree, spec: ImageSpec) -> Layout:
        classes = tuple(class_names_in(tree, ""))
        if "train" in classes and set(spec.test_folders) & set(classes):
            raise InvalidDataError(f"{tree.where} has train/ and a test folder of its own; leave the share out")
        pairs: dict[str, Pairs] = {"train": [], "test": []}
        found = images_of_classes(tree, "", classes)
        for name, paths in found.items():
            if len(paths) < 2:
                raise InvalidDataError(
                    f"{tree.where}/{name} must have an image to train and one to test on, got {len(paths)}"
                )
            count = min(max(1, round(share * len(paths))), len(paths) - 1)
            chosen = set(torch.randperm(len(paths), generator=generator("test", name))[:count].tolist())
            for place, path in enumerate(paths):
                pairs["test" if place in chosen else "train"].append((path, name))
        return Layout(classes, pairs, dict.fromkeys(pairs, ""))

    return layout


def split_folders(tree: Tree, spec: ImageSpec) -> dict[str, str]:
    """Names of the folders of `train` and `test`.

    Raises:
        InvalidDataError: one is missing.
    """
    present = tree.folders("")
    if "train" not in present:
        raise InvalidDataError(f"{tree.where} must have a folder train, got {', '.join(present) or 'none'}")
    for name in spec.test_folders:
        if name in present:
            return {"train": "train", "test": name}
    raise InvalidDataError(f"{tree.where} has train but no folder {' or '.join(spec.test_folders)}; both are needed")


def class_names_in(tree: Tree, folder: str) -> list[str]:
    """Names of the class folders of a split.

    Raises:
        InvalidDataError: there are none.
    """
    names = tree.folders(folder)
    if not names:
        files = tree.files(folder)
        found = f"files such as {Path(files[0]).name}" if files else "nothing"
        cure = "; unpack it into a folder of that name" if files and files[0].endswith((".tar", ".zip")) else ""
        where = f"{tree.where}/{folder}".rstrip("/")
        raise InvalidDataError(f"{where} must have a folder a class, got {found}{cure}")
    return names


def folder_pairs(tree: Tree, folder: str, classes: tuple[str, ...], spec: ImageSpec) -> Pairs:
    """The images in the class folders of a split.

    Raises:
        InvalidDataError: the class folders are not the classes.
    """
    present = class_names_in(tree, folder)
    if missing := sorted(set(classes) - set(present)):
        raise InvalidDataError(f"{tree.where}/{folder} has no folder {missing[0]}{more(missing)}; copy it again")
    # A set that is a part of another lies among the classes of the whole.
    if spec.shard_labels is None and (unknown := sorted(set(present) - set(classes))):
        raise InvalidDataError(
            f"{tree.where}/{folder} has a folder {unknown[0]}{more(unknown)} that is no class of {spec.title}; "
            "move it away"
        )
    return [(path, name) for name, paths in images_of_classes(tree, folder, classes).items() for path in paths]


def images_of_classes(tree: Tree, folder: str, classes: Sequence[str]) -> dict[str, list[str]]:
    """The images of every class folder; what else lies there is told, unless it describes the images.

    Raises:
        InvalidDataError: a class has files and no image among them.
    """
    images: dict[str, list[str]] = {}
    unread: Counter[str] = Counter()
    for name in classes:
        files = tree.files(f"{folder}/{name}".lstrip("/"))
        images[name] = [path for path in files if is_image(path)]
        others = Counter(_ending(path) for path in files if not is_image(path) and not _describes(path))
        if others and not images[name]:
            where = "/".join(part for part in (tree.where, folder, name) if part)
            raise InvalidDataError(
                f"{where} has {counted(others.total(), 'file')}, none of an image's ending, but {_listed(others)}; "
                f"convert them to one of {', '.join(EXTENSIONS)}"
            )
        unread += others
    if unread:
        logger.warning(
            "%s: %s left out, %s; images end in %s",
            "/".join(part for part in (tree.where, folder) if part),
            counted(unread.total(), "file"),
            _listed(unread),
            ", ".join(EXTENSIONS),
        )
    return images


def _ending(path: str) -> str:
    return PurePosixPath(path).suffix.lower() or "no ending"


def _describes(path: str) -> bool:
    """Whether a file is one of those that lie beside images: boxes, captions, a system's own."""
    name = PurePosixPath(path).name
    return name.startswith(".") or PurePosixPath(name.lower()).suffix in _BESIDE


def _listed(endings: Counter[str]) -> str:
    return ", ".join(f"{count} of {ending}" for ending, count in sorted(endings.items()))


_BESIDE = frozenset({".txt", ".csv", ".json", ".xml", ".md", ".html", ".db", ".ini"})


def more(names: Sequence[str]) -> str:
    """` and 3 more`, which follows the first of several names in a message."""
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
