"""One process at a time in a run's folder: whoever comes second is told who works there."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

LOCK, OWNER = ".lock", ".owner.json"
"""Files of a locked folder: the first is empty and stays, the second says who works there and goes."""


class FolderInUse(ValueError):
    """Another process works in a run's folder."""


@contextmanager
def sole_worker(folder: Path) -> Iterator[None]:
    """Within the block no other process may work in the folder.

    The lock is the operating system's, so it ends with its process, however that ends. The lock file stays: if it were
    removed, two processes could each hold a lock on a file of that name.

    Args:
        folder: is there.

    Raises:
        FolderInUse: another process does.
    """
    lock, owner = FileLock(folder / LOCK), folder / OWNER
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FolderInUse(
            f"{_described(owner)} works in {folder}; wait until it ends and start again, or choose another --out"
        ) from None
    except (OSError, NotImplementedError) as error:
        logger.warning("%s cannot be locked (%s); start no second run in it", folder, error)
    if not lock.is_locked:
        yield
        return
    try:
        about = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        owner.write_text(json.dumps(about), encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _described(owner: Path) -> str:
    """Who works there; the file may not be written yet, or be the one of a process that was killed before."""
    try:
        about = json.loads(owner.read_text(encoding="utf-8"))
        return f"process {about['pid']} on {about['host']} (since {about['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
