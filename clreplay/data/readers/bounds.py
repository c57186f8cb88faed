"""How much of a file is unpacked or read at once: a small file must not fill the memory."""

from __future__ import annotations

from pathlib import Path

LARGEST_FILE = 1 << 26
"""Bytes of one image or list, as they are in an archive or a folder."""


def check_size(size: int, largest: int = LARGEST_FILE) -> None:
    """Whether so many bytes are read.

    Raises:
        ValueError: they are more than any image or list of a data set has.
    """
    if size > largest:
        raise ValueError(f"it has {size:,} bytes, more than the {largest:,} that are read")


def read_small(path: Path) -> bytes:
    """The content of a file of a data set.

    Raises:
        ValueError: it is too large.
        OSError: it cannot be read.
    """
    check_size(path.stat().st_size)
    return path.read_bytes()
