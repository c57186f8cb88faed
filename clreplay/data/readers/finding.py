"""Looking for a copy of a data set, downloading one, and the error when there is none."""

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
# A server that accepts a connection and then sends nothing would otherwise stop the run forever.
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
    """The first copy that is found, else a download.

    Args:
        title: of the data set, for messages.
        root: folder with the user's data.
        attempts: each returns the data set, or a line for the message that says where it found nothing.
        fetch: downloads and loads the set; None if it has no public address.
        download: whether `fetch` may be called.
        ways_out: what a user without a copy can do, one line each.

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
    except Exception as error:  # whatever went wrong, the user needs the same list
        tried.append(f"download into {root.absolute()}: {type(error).__name__}: {error}")
        raise not_found(title, root, tried, ways_out) from error


def not_found(title: str, root: Path, tried: Sequence[str], ways_out: Sequence[str]) -> DataNotFoundError:
    """The error that lists what was tried and what the user can do."""
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
    """Paths as they are written in a message."""
    return ", ".join(str(path.absolute()) for path in paths)


def fetch_file(url: str, md5: str, root: Path) -> Path:
    """Download a file into `root`; it appears there only when it is complete and its checksum is right.

    Raises:
        Exception: any error of torchvision's download.
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
    """A temporary folder below `root`. `root` is created if needed, and removed again if the block fails."""
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
    """Within the block, sockets raise an error after half a minute without data."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
