"""A data set of the user's own: any folder or archive with one folder for each class, or with Parquet shards."""

from __future__ import annotations

import re
from pathlib import Path

from clreplay.data.dataset import Dataset
from clreplay.data.errors import DataNotFoundError, InvalidDataError
from clreplay.data.readers.counts import Counts
from clreplay.data.readers.image_files import Target
from clreplay.data.readers.image_sets import read_place, read_tree
from clreplay.data.readers.spec import SPLITS, ImageSpec
from clreplay.data.readers.trees import open_tree
from clreplay.data.registry import check_channels

FOLDER = "folder:"
_NAME = re.compile(r"folder:(?P<path>.+?)(?:@(?P<size>[0-9]+))?")
_LAYOUT = "it needs train/ and test/ (or val/) with a folder a class, or such Parquet files"


def load_folder(name: str, *, channels: int | None = None) -> Dataset:
    """The data set in a folder (`folder:PATH`, `folder:PATH@SIZE`), normalised with its own mean and deviation.

    Args:
        name: a relative path counts from the current folder. Without a size all images must be square and of one size;
            with one they are resized to it, both sides, without keeping the aspect ratio.
        channels: 3 (default), or 1 to make colours grey.

    Returns:
        a data set called `folder-NAME` or `folder-NAME-SIZE` after the last part of the path.

    Raises:
        ValueError: the name is not of this form, or `channels` is neither 3 nor 1.
        DataNotFoundError: there is no such folder.
        InvalidDataError: the folder has no such layout, or an image cannot be used.
    """
    match = _NAME.fullmatch(name)
    if match is None or match["size"] == "0":
        raise ValueError(f"name must be folder:PATH or folder:PATH@SIZE, such as folder:flowers@64, got {name!r}")
    channels = check_channels(name, channels, (3, 1))
    path = Path(match["path"]).expanduser()
    if not path.exists():
        raise DataNotFoundError(f"{path.absolute()} does not exist (from {name!r}); {_LAYOUT}")
    size = int(match["size"]) if match["size"] else None
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.absolute().name.split(".")[0]) or "root"
    spec = ImageSpec(
        name="-".join(["folder", stem, *([str(size)] if size else [])]),
        title=name,
        target=Target(size or 0, channels, resize=size is not None, hint=f"; {FOLDER}{match['path']}@64 resizes all"),
        counts=dict.fromkeys(SPLITS, Counts(least=1)),
        normalization=None,
        label_columns=("label", "labels", "fine_label", "class"),
    )
    found = read_place(spec, path) if path.is_dir() else read_tree(spec, open_tree(path))
    if found is None:
        raise InvalidDataError(f"{path.absolute()} is no data set: {_LAYOUT}")
    return found
