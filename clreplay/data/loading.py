"""The one door to the data sets: by name, from where the user keeps data."""

import difflib
import os
from pathlib import Path

from clreplay.data.cifar import load_cifar
from clreplay.data.digits import load_digits
from clreplay.data.imageset import Dataset

DATASETS = ("cifar10", "cifar100", "digits")


def data_root(root: str | Path | None) -> Path:
    """Where data is looked for: `root`, else the environment variable `CLREPLAY_DATA`, else `./data`."""
    if root is None:
        root = os.environ.get("CLREPLAY_DATA") or "data"
    return Path(root).expanduser()


def load_dataset(
    name: str, root: str | Path | None = None, *, download: bool = True, channels: int | None = None
) -> Dataset:
    """Load a data set into memory, once, as `uint8`; rows keep the order of the files.

    CIFAR is taken from the first of: torchvision's folder (`cifar-10-batches-py`, `cifar-100-python`) in the
    root; Parquet shards with encoded images (`<root>/<name>/`, `<root>/`, each also with `data/` below);
    torchvision's download into the root. The digits are part of scikit-learn and need no root.

    Args:
        name: one of `DATASETS`.
        root: folder with the data; see `data_root`.
        download: whether CIFAR may be fetched when no copy is found.
        channels: for digits 1 (default) or 3; CIFAR has 3.

    Raises:
        ValueError: unknown name, or channels the data set does not have.
        DataNotFoundError: no copy and no download; the message lists what was tried and the ways out.
        InvalidDataError: a copy is there but damaged, incomplete or not the official set.
        ImportError: a package that the found format needs is missing.
    """
    if name not in DATASETS:
        raise ValueError(f"name must be one of {', '.join(DATASETS)}, got {name!r}{_suggestion(name)}")
    if name == "digits":
        return load_digits(channels)
    if channels not in (None, 3):
        raise ValueError(f"channels must be 3 for {name}, got {channels}; leave it out")
    return load_cifar(name, data_root(root), download=download)


def _suggestion(name: object) -> str:
    plain = "".join(letter for letter in str(name).lower() if letter.isalnum())
    close = difflib.get_close_matches(plain, DATASETS, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
