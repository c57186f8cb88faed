"""Looking for a copy of a data set: what is tried, what is fetched, and what is said when there is none."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from clreplay.data.dataset import Dataset
from clreplay.data.errors import DataNotFoundError

_logger = logging.getLogger(__name__)
# A server that accepts and then says nothing would otherwise hang the run for good.
_TIMEOUT_SECONDS = 30.0


def first_copy(
    title: str,
    root: Path,
    attempts: Sequence[Callable[[], Dataset | str]],
    fetch: Callable[[], Dataset] | None,
    *,
    download: bool,
    ways_out: Sequence[str],
) -> Dataset:
    """The first copy that is there, else a download.

    Args:
        title: of the data set, for messages.
        root: folder with the user's data.
        attempts: each gives the data set, or a line that says where it looked in vain.
        fetch: downloads and loads it; None where there is no public place to download from.
        download: whether it may.
        ways_out: what someone without a copy can do, a line each.

    Raises:
        DataNotFoundError: no copy, and no download; the message says what was tried and the ways out.
        InvalidDataError: a copy is there but damaged, incomplete or not the official set.
    """
    tried = []
    for attempt in attempts:
        found = attempt()
        if isinstance(found, Dataset):
            return found
        tried.append(found)
    if fetch is None:
        raise not_found(title, root, [*tried, "download: there is no public address for it"], ways_out)
    if not download:
        raise not_found(title, root, [*tried, "download: not tried, because download=False"], ways_out)
    try:
        return fetch()
    except Exception as error:  # whatever went wrong, the reader needs the same answer
        tried.append(f"download into {root.absolute()}: {type(error).__name__}: {error}")
        raise not_found(title, root, tried, ways_out) from error


def not_found(title: str, root: Path, tried: Sequence[str], ways_out: Sequence[str]) -> DataNotFoundError:
    """The error that lists what was tried and the ways out."""
    lines = [
        f"{title} was not found at {root.absolute()}. Tried:",
        *(f"  - {attempt}" for attempt in tried),
        "Ways out:",
        "  - point --data-root (root=... in Python) or the environment variable CLREPLAY_DATA "
        "at a folder with the data",
        *(f"  - {way}" for way in ways_out),
        "  - run the same experiment offline: python runs/digits_5step.py --memory ddm",
    ]
    return DataNotFoundError("\n".join(lines))


def listed(paths: Sequence[Path]) -> str:
    """Paths in a message."""
    return ", ".join(str(path.absolute()) for path in paths)


def fetch_file(url: str, md5: str, root: Path) -> Path:
    """Download a file into `root`; it appears there whole and checked, or not at all.

    Raises:
        Exception: whatever torchvision's download raises.
    """
    from torchvision.datasets.utils import download_url

    name = url.rsplit("/", 1)[-1]
    with staging(root) as folder, network_timeout():
        _logger.info("downloading %s into %s", url, root.absolute())
        download_url(url, str(folder), name, md5)
        os.replace(folder / name, root / name)
    return root / name


@contextmanager
def staging(root: Path) -> Iterator[Path]:
    """A folder of one's own below `root`, which is made for it and removed again if the block fails."""
    existed = root.exists()
    root.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder:
            yield Path(folder)
    except BaseException:
        if not existed and not any(root.iterdir()):
            root.rmdir()
        raise


@contextmanager
def network_timeout() -> Iterator[None]:
    """Sockets give up after half a minute of silence."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
