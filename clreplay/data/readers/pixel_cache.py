"""Decoded images in memory-mapped files: a set is decoded once, and never loaded whole.

A file holds one split as a NumPy array, uint8 (n, c, h, w). Its name carries a hash of the list of files, their sizes
and times of change, and of what was made of them; so a changed file is another name. It is written beside and renamed
when it is complete, under a lock that other processes wait for.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from torch import Tensor

from clreplay.data.errors import InvalidDataError
from clreplay.data.readers.decoding_jobs import decode_all
from clreplay.data.readers.image_files import Batch, Target
from clreplay.runtime.files import user_cache

_logger = logging.getLogger(__name__)

VERSION = 1
"""Raised whenever a change of the code changes decoded pixels."""
_ELSEWHERE = "set CLREPLAY_CACHE to a folder elsewhere"
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Linux's number; Python has the name since 3.13


class Encoded(Protocol):
    """The images of one split, not decoded yet."""

    where: str
    """For messages."""

    def __len__(self) -> int: ...

    def fingerprint(self) -> Iterator[tuple[Any, ...]]:
        """What changes when one of its files changes."""
        ...

    def batches(self) -> Iterator[Batch]:
        """Every image exactly once."""
        ...


def cached_pixels(name: str, encoded: Encoded, target: Target) -> Tensor:
    """The decoded images of a split, from the cache; decoded into it if they are not there.

    Args:
        name: begins the file's name, for people who look into the folder.
        encoded: the images.
        target: what they are brought to.

    Returns:
        uint8 (n, c, size, size), mapped from the file. Writing to it changes this process's memory, not the file.

    Raises:
        InvalidDataError: an image cannot be used; nothing is kept then.
        OSError: the cache cannot be written, or there is no room; the message says how much is needed.
    """
    path = user_cache() / "images" / f"{name}-{target.size}px-{_key(encoded, target)}.npy"
    shape = (len(encoded), *target.shape)
    if (images := map_images(path, shape)) is None:
        _decode_into(path, name, encoded, target)
        images = map_images(path, shape)
    if images is None:
        raise OSError(f"{path} was written and cannot be read back; is the disk of the cache damaged?")
    return images


def map_images(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    """The uint8 array in a `.npy` file without reading it; None if it is not there or not of this shape.

    The mapping is private: a write copies the page, so that torch may have a tensor that can be written to.
    """
    try:
        with path.open("rb") as file:
            start = _check_header(file, shape)
            mapped = _map(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, EOFError) as error:
        _logger.warning("decoding again, because %s is damaged: %s", path, error)
        return None
    return torch.from_numpy(np.frombuffer(mapped, dtype=np.uint8, offset=start).reshape(shape))


def _map(file: BinaryIO) -> mmap.mmap:
    if os.name != "posix":
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    # Without a reserve: Linux would otherwise refuse a writable private mapping that is larger than its memory.
    flags = mmap.MAP_PRIVATE | (_NO_RESERVE if os.uname().sysname == "Linux" else 0)
    return mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def _check_header(file: BinaryIO, shape: tuple[int, ...]) -> int:
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not written by clreplay")
    found, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if found != shape or fortran or dtype != np.uint8:
        raise ValueError(f"it holds {dtype} {found} instead of uint8 {shape}")
    start = file.tell()
    if os.fstat(file.fileno()).st_size != start + math.prod(shape):
        raise ValueError(f"it has {os.fstat(file.fileno()).st_size} bytes instead of {start + math.prod(shape)}")
    return start


def _key(encoded: Encoded, target: Target) -> str:
    digest = hashlib.blake2b(digest_size=12)
    digest.update(json.dumps([VERSION, target.shape, target.resize]).encode())
    for part in encoded.fingerprint():
        digest.update(json.dumps(part).encode())
    return digest.hexdigest()


# --- writing ----------------------------------------------------------------------------------------------------


def _decode_into(path: Path, name: str, encoded: Encoded, target: Target) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"decoded images cannot be kept ({error.strerror}); {_ELSEWHERE}"
        raise OSError(error.errno, message, str(path.parent)) from error
    shape = (len(encoded), *target.shape)
    with _sole_writer(path, lambda: map_images(path, shape) is not None) as writer:
        if writer is None:
            return
        file, partial = writer
        _check_room(path.parent, math.prod(shape))
        try:
            _write(file, name, encoded, target)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise OSError(errno.ENOSPC, f"the disk is full; {_ELSEWHERE}", str(path.parent)) from error
        partial.replace(path)


def _write(file: BinaryIO, name: str, encoded: Encoded, target: Target) -> None:
    from tqdm import tqdm

    count, length = len(encoded), math.prod(target.shape)
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *target.shape)}
    np.lib.format.write_array_header_1_0(file, header)
    start, missing = file.tell(), np.ones(count, dtype=bool)
    # Quick work is done silently; a bar that no terminal shows would only fill a log file.
    bar = tqdm(total=count, desc=f"decoding {name}", unit=" images", delay=2, disable=None, leave=False)
    with bar, closing(decode_all(encoded.batches(), count, target)) as decoded:
        for rows, pixels in decoded:
            for row, image in zip(rows, pixels, strict=True):
                file.seek(start + row * length)
                file.write(image.data)
            missing[list(rows)] = False
            bar.update(len(rows))
    if missing.any():
        raise InvalidDataError(f"{encoded.where} changed while it was read: {int(missing.sum())} images are gone")
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _sole_writer(path: Path, is_written: Callable[[], bool]) -> Iterator[tuple[BinaryIO, Path] | None]:
    """An empty file beside `path` that no other process writes to; None where another wrote `path` meanwhile.

    The file itself is locked, and a lock ends with its process: one that was killed leaves a file that the next one
    takes over. What has not been renamed at the end is removed.
    """
    file, partial = _locked(path)
    try:
        if is_written():
            yield None
        else:
            file.truncate(0)
            yield file, partial
    finally:
        if _is_at(file, partial):
            partial.unlink()
        file.close()


def _locked(path: Path) -> tuple[BinaryIO, Path]:
    partial = path.with_name(f"{path.name}.partial")
    while True:
        file = _open(partial)
        if not _lock(file, path):  # no locks on this disk: a file of its own, and whoever renames last wins
            file.close()
            partial.unlink(missing_ok=True)
            partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
            return _open(partial), partial
        if _is_at(file, partial):
            return file, partial
        file.close()  # the process that was waited for has renamed or removed it


def _open(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")


def _lock(file: BinaryIO, path: Path) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _logger.warning("waiting for another process that decodes the same images into %s", path)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        message = f"decoded images need {needed / 1e6:,.1f} MB and the disk has {free / 1e6:,.1f} MB; {_ELSEWHERE}"
        raise OSError(errno.ENOSPC, message, str(folder))
