"""Files are written whole or not at all."""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import glob
import json
import logging
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


def user_cache() -> Path:
    """``$CLREPLAY_CACHE``, or ``$XDG_CACHE_HOME/clreplay``, or ``~/.cache/clreplay``.

    Where there is no home folder either, as in some containers, a folder that ends with this process; that is warned
    of once.
    """
    try:
        if own := os.environ.get("CLREPLAY_CACHE"):
            return Path(own).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clreplay"
    except RuntimeError as error:  # so pathlib says that there is no home
        return _homeless_cache(str(error))


@functools.cache
def _homeless_cache(reason: str) -> Path:
    logger.warning("nothing is cached for later processes (%s); set CLREPLAY_CACHE to a folder", reason)
    return temporary_folder() / "cache"


def temporary_folder() -> Path:
    """A folder that only this user can read, and that is removed when this process ends."""
    return _temporary_folder(os.getpid())  # a forked process has its own


@functools.cache
def _temporary_folder(process: int) -> Path:
    path = tempfile.mkdtemp(prefix="clreplay-")
    atexit.register(_remove_if, process, path)
    return Path(path)


def _remove_if(process: int, path: str) -> None:
    """A forked process ends without taking its parent's folder along."""
    if os.getpid() == process:
        shutil.rmtree(path, ignore_errors=True)


class CannotWrite(OSError):
    """A file cannot be written; it says which, why, and what helps, in one line."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(error.errno, error.strerror or str(error), str(path))

    def __str__(self) -> str:
        cure = _CURES.get(self.errno or 0, "look at that folder and disk")
        return f"{self.filename} cannot be written ({str(self.strerror).lower()}); {cure}, then start again"


_CURES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within your quota",
    errno.EFBIG: "allow larger files there (ulimit -f)",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "allow writing there, or choose another folder",
    errno.EPERM: "allow writing there, or choose another folder",
    errno.ENOENT: "its folder is gone: put it back, or choose another",
    errno.ENOTDIR: "something else has the name of its folder: choose another",
}
"""What helps, by the kind of failure."""

LEFT_BEHIND = 3600.0
"""Seconds after which an unfinished file belongs to a process that was killed."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to; it takes the place of ``path`` once the block is through.

    If the block fails (a full disk, Ctrl-C), what was there stays and nothing else is left behind. Processes may write
    the same file at the same time, on several machines too: each does under a name of its own, and whoever is through
    last wins. What a killed process left is removed by the first that writes the file an hour later.

    The file gets the permissions that any new file gets here, also where its writer makes it readable by its owner
    alone, as safetensors does.

    Raises:
        CannotWrite: the block or the renaming failed for a reason of the disk.
    """
    partial = _beside(path, "partial")
    try:
        partial.touch(exist_ok=False)
        mode = stat.S_IMODE(partial.stat().st_mode)  # by the umask, which cannot be asked for without being changed
        partial.unlink()
        yield partial
        partial.chmod(mode)
        partial.replace(path)
    except CannotWrite:
        raise
    except OSError as error:
        raise CannotWrite(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # on a disk that has become read-only nothing can be removed
            partial.unlink(missing_ok=True)
    _remove_left_behind(path)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A new folder beside ``path`` to fill; it takes the place of ``path`` once the block is through.

    As :func:`replacing`. A folder that was there is moved aside for the moment in which the new one takes its name, and
    moved back if that fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, old = _beside(path, "partial"), _beside(path, "old")
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            path.rename(old)
        try:
            partial.rename(path)
        except BaseException:
            if old.exists():
                old.rename(path)
            raise
    finally:
        for folder in (partial, old):
            shutil.rmtree(folder, ignore_errors=True)
    _remove_left_behind(path)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{secrets.token_hex(6)}.{ending}")


def _remove_left_behind(path: Path) -> None:
    """What processes that were killed an hour ago or more left of writing ``path``."""
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.partial"):
        with contextlib.suppress(OSError):  # another process was faster, or may not remove it
            if time.time() - left.stat().st_mtime > LEFT_BEHIND:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def write_text(path: Path, text: str) -> None:
    """Replace a file only once its new content is safely on disk (a full disk leaves the old one)."""
    with replacing(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def plain(value: Any) -> Any:
    """Only what YAML and JSON know: mappings, lists, text, numbers."""
    return json.loads(json.dumps(value, default=str))
