"""Locks between the processes of one machine, so that two runs on one store share the work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: two processes on one store then may do the same work twice
    fcntl = None


@contextmanager
def claimed(folder: str | None, name: str) -> Iterator[bool]:
    """Whether this process may do a piece of work; within the block no other one of the machine may.

    The lock is the system's, so it ends with the process, however that ends.
    """
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)  # condensations under way are kept there, too
    if folder is None or fcntl is None:
        yield True
        return
    path = Path(folder) / f"{name}.lock"
    with open(path, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        if not path.exists() or os.stat(path).st_ino != os.fstat(file.fileno()).st_ino:
            yield False  # whoever had it is through with it since the file was opened
            return
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)
