"""How a data set is laid out in a tree: which folders are its splits and classes, and which images they hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from clreplay.data.errors import InvalidDataError
from clreplay.data.readers.spec import Layout, Pairs
from clreplay.data.readers.trees import Tree, is_image
from clreplay.runtime.seeding import generator

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
        for name in classes:
            paths = [path for path in tree.files(name) if is_image(path)]
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
    return [(path, name) for name in classes for path in tree.files(f"{folder}/{name}") if is_image(path)]


def more(names: Sequence[str]) -> str:
    """` and 3 more`, which follows the first of several names in a message."""
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
