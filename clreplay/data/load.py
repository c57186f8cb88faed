"""Loading a data set by its name, from the folder where the user keeps data."""

import os
import re
from pathlib import Path

# Imported because each of them registers its data sets.
from clreplay.data.sets import (  # isort: skip  # noqa: F401
    cifar,
    digits,
    torchvision_sets,
    tinyimagenet,
    imagenet,
    imagenette,
)
from clreplay.data.dataset import Dataset
from clreplay.data.errors import DataNotFoundError
from clreplay.data.held_out import hold_out, split_name
from clreplay.data.registry import DATASETS, suggestion
from clreplay.data.sets.folder import FOLDER, load_folder


def data_root(root: str | Path | None) -> Path:
    """Where data is looked for: `root`, else the environment variable `CLREPLAY_DATA`, else `./data`."""
    if root is None:
        root = os.environ.get("CLREPLAY_DATA") or "data"
    return Path(root).expanduser()


def dataset_name(text: str | Path) -> str:
    """A data set as a person writes it: a known name, `folder:PATH`, or the path of a folder or archive alone.

    Raises:
        DataNotFoundError: it is written as a path, and nothing is there.
    """
    text = str(text)
    name = split_name(text)[0]
    if name.startswith(FOLDER) or name in DATASETS:
        return text
    path = Path(re.sub(r"@[0-9]+(x[0-9]+)?$", "", name)).expanduser()
    if path.exists():
        return f"{FOLDER}{text}"
    if len(path.parts) > 1 or name.startswith(("~", ".")):
        raise DataNotFoundError(f"{path.absolute()} does not exist; give a data set's name or a folder")
    return text


def load_dataset(
    name: str, root: str | Path | None = None, *, download: bool = True, channels: int | None = None
) -> Dataset:
    """Load a data set as `uint8`.

    A copy is looked for in the root: in the layout it is published in (torchvision's folders, archives as they are
    downloaded, class folders), as Parquet shards with encoded images, and as class folders `<root>/<name>/train/` and
    `test/` or `val/`. Where there is none it is downloaded, if it has a public address. The digits and torchvision's
    files are read into memory, rows in the order of the files; images that must be decoded first are decoded once, in
    parallel, into a file of the user's cache that later loads map without reading it.

    Args:
        name: one of `DATASETS`; or `folder:PATH`, any folder or archive with `train/` and `test/` or `val/` that have
            a folder a class, or with such Parquet shards. `folder:PATH@64` resizes every image to 64x64, `@48x64` to a
            height of 48 and a width of 64;
            `folder:PATH@64#test=0.2` (or `?test=0.2`) tests on a fifth of every class of a folder without a split. Any
            of them with `#held-out=0.1` behind it: a tenth of every class's training images is kept apart.
        root: folder with the data; see `data_root`. `PATH` does not count from it.
        download: whether the data set may be fetched when no copy is found.
        channels: 3, or 1 for grey sets (MNIST, FashionMNIST, the digits, which have 1 by default) and folders
            (which have 3).

    Raises:
        ValueError: unknown name, or channels the data set does not have.
        DataNotFoundError: no copy and no download; the message lists what was tried and what can be done.
        InvalidDataError: a copy is there but damaged, incomplete or not the official set; the file is named.
        ImportError: a package that the found format needs is missing.
        OSError: the disk is too full for the decoded images.
    """
    if isinstance(name, str) and (split := split_name(name))[1]:
        return hold_out(load_dataset(split[0], root, download=download, channels=channels), split[1])
    if isinstance(name, str) and name.startswith(FOLDER):
        return load_folder(name, channels=channels)
    if name not in DATASETS:
        raise ValueError(f"name must be one of {', '.join(DATASETS)}, {FOLDER}PATH, got {name!r}{suggestion(name)}")
    return DATASETS[name](name, data_root(root), download=download, channels=channels)
