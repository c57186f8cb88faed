"""A data set of the user's own: any folder or archive with one folder for each class, or with Parquet shards."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from clreplay.data.dataset import Dataset
from clreplay.data.errors import DataNotFoundError, InvalidDataError
from clreplay.data.readers.counts import Counts
from clreplay.data.readers.image_files import Target, sides_text
from clreplay.data.readers.image_sets import read_place, read_tree
from clreplay.data.readers.layouts import divided
from clreplay.data.readers.spec import SPLITS, ImageSpec
from clreplay.data.readers.trees import is_image, open_tree
from clreplay.data.registry import check_channels

FOLDER = "folder:"
_NAME = re.compile(r"folder:(?P<path>.+?)(?:@(?P<size>[0-9]+(?:x[0-9]+)?))?(?:[#?]test=(?P<share>[^#?]*))?")
_LAYOUT = "it needs train/ and test/ (or val/) with a folder a class, or such Parquet files"
_TEST = "#test="


def load_folder(name: str, *, channels: int | None = None) -> Dataset:
    """The data set in a folder (`folder:PATH`, `folder:PATH@SIZE`), normalised with its own mean and deviation.

    A folder without a split, which holds the class folders themselves, is divided by a share behind the name:
    `folder:PATH@64#test=0.2` keeps a fifth of every class for testing, always the same images.

    Args:
        name: a relative path counts from the current folder. Without a size all images must be of one;
            with one, `64` or `48x64` (height x width), they are resized to it without keeping the aspect ratio.
        channels: 3 (default), or 1 to make colours grey.

    Returns:
        a data set called `folder-NAME` or `folder-NAME-SIZE` after the last part of the path; one that was divided is
        called `folder-NAME-SIZE-test0.2`, and its source says how.

    Raises:
        ValueError: the name is not of this form, the share is not between 0 and 1, or `channels` is neither 3 nor 1.
        DataNotFoundError: there is no such folder.
        InvalidDataError: the folder has no such layout, or an image cannot be used.
    """
    match = _NAME.fullmatch(name)
    sides = [int(side) for side in match["size"].split("x")] if match is not None and match["size"] else []
    if match is None or 0 in sides:
        raise ValueError(
            "name must be folder:PATH or folder:PATH@SIZE, such as folder:flowers@64, folder:flowers@48x64 (height x "
            f"width) or folder:flowers@64{_TEST}0.2, got {name!r}"
        )
    share = None if match["share"] is None else _share(match["share"], name)
    channels = check_channels(name, channels, (3, 1))
    path = Path(match["path"]).expanduser()
    if not path.exists():
        raise DataNotFoundError(f"{path.absolute()} does not exist (from {name!r}); {_LAYOUT}")
    size = (sides[0], sides[-1]) if sides else None
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.absolute().name.split(".")[0]) or "root"
    hint = f"; {FOLDER}{match['path']}@64 resizes all"
    spec = ImageSpec(
        name="-".join(["folder", stem, *([sides_text(size)] if size else []), *([f"test{share:g}"] if share else [])]),
        title=name,
        target=Target(_one_or_both(size), channels, resize=size is not None, hint=hint),
        counts=dict.fromkeys(SPLITS, Counts(least=1)),
        normalization=None,
        label_columns=("label", "labels", "fine_label", "class"),
        layout=None if share is None else divided(share),
    )
    if share is not None:
        found = read_tree(spec, open_tree(path))
        test, both = len(found.test), len(found.train) + len(found.test)
        said = f"It has no split: {test:,} of its {both:,} images, {100 * share:g} % of every class, are to test on."
        return replace(found, source=f"{found.source} {said}")
    whole = read_place(spec, path) if path.is_dir() else read_tree(spec, open_tree(path))
    if whole is None:
        cure = f"; {name}{_TEST}0.2 takes a fifth of every class folder in it to test on" if _has_classes(path) else ""
        raise InvalidDataError(f"{path.absolute()} is no data set: {_LAYOUT}{cure}")
    return whole


def _one_or_both(sides: tuple[int, int] | None) -> int | tuple[int, int]:
    if sides is None:
        return 0
    return sides[0] if sides[0] == sides[1] else sides


def _share(text: str, name: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise ValueError(f"the share to test on must be between 0 and 1, such as {_TEST}0.2, got {name!r}")
    return share


def _has_classes(path: Path) -> bool:
    tree = open_tree(path)
    return any(is_image(file) for folder in tree.folders("") for file in tree.files(folder))
