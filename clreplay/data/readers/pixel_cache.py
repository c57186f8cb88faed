"""Decoded images in memory-mapped files: a set is decoded once, and later loads read only the images that are used.

A file holds one split as a NumPy array, uint8 (n, c, h, w). Its name carries a hash of the list of files, their sizes
and times of change, and of the size and colours they were brought to; so a changed file gives another name. It is
written under a temporary name and renamed when it is complete, under a lock that other processes wait for. Behind the
array is a checksum; of sets that are too large to be read whole, it is of images at even distances.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import mmap
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from clreplay.data.dataset import evenly
from clreplay.data.errors import InvalidDataError
from clreplay.data.readers.decoding_jobs import decode_all
from clreplay.data.readers.image_files import Batch, Target
from clreplay.runtime.checksum import MAGIC, SIZE
from clreplay.runtime.files import temporary_folder, user_cache

_logger = logging.getLogger(__name__)

VERSION = 1
"""Raised whenever a change of the code changes decoded pixels."""
_BAD_HEADER = (ValueError, EOFError, SyntaxError, TypeError, LookupError, ArithmeticError, MemoryError, TokenError)
_ELSEWHERE = "set CLREPLAY_CACHE to a folder elsewhere"
_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)
_RESERVED_AT_ONCE = 1 << 24  # bytes
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Linux's number; Python has the name since 3.13


class Encoded(Protocol):
    """The encoded images of one split."""

    where: str
    """The folder or archive, for messages."""

    def __len__(self) -> int: ...

    def fingerprint(self) -> Iterator[tuple[Any, ...]]:
        """Values of which one changes whenever one of the files changes."""
        ...

    def batches(self) -> Iterator[Batch]:
        """All images, each exactly once."""
        ...


def cached_pixels(name: str, encoded: Encoded, target: Target) -> Tensor:
    """The decoded images of a split from the cache, which are decoded first if the cache does not have them.

    Args:
        name: first part of the cache file's name, so that people recognise it.
        encoded: the images.
        target: the size and colours they are converted to.

    Where the cache cannot be written to, they are decoded into a file of this process's own, which costs a warning.

    Returns:
        uint8 (n, c, height, width), mapped from the file. Writing to it changes this process's memory, not the file.

    Raises:
        InvalidDataError: an image cannot be used; the cache then keeps nothing of the split.
        OSError: the disk is too full.
    """
    path = user_cache() / "images" / f"{name}-{target.text}px-{_key(encoded, target)}.npy"
    shape = (len(encoded), *target.shape)
    if (images := map_images(path, shape)) is None:
        try:
            _decode_into(path, name, encoded, target)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            _logger.warning(
                "decoded images cannot be kept in %s (%s): every process decodes its own; %s",
                path.parent,
                error.strerror,
                _ELSEWHERE,
            )
            path = temporary_folder() / "images" / path.name
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
            start, seal = _check_header(file, shape)
            mapped = _map(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except _BAD_HEADER as error:
        _logger.warning("decoding again, because %s is damaged: %s", path, error)
        return None
    pixels = np.frombuffer(mapped, dtype=np.uint8, count=math.prod(shape), offset=start)
    images = torch.from_numpy(pixels.reshape(shape))
    if seal and seal != _seal(images):
        _logger.warning("decoding again, because %s is damaged: its pixels do not match their checksum", path)
        return None
    return images


def _seal(images: Tensor) -> bytes:
    return MAGIC + hashlib.blake2b(evenly(images).contiguous().numpy().data, digest_size=SIZE).digest()


def _map(file: BinaryIO) -> mmap.mmap:
    if os.name != "posix":
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    # Without a reserve: Linux would otherwise refuse a writable private mapping that is larger than its memory.
    flags = mmap.MAP_PRIVATE | (_NO_RESERVE if os.uname().sysname == "Linux" else 0)
    return mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def _check_header(file: BinaryIO, shape: tuple[int, ...]) -> tuple[int, bytes]:
    """Where the array begins, and the checksum behind it; files of before have none."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not written by clreplay")
    found, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if found != shape or fortran or dtype != np.uint8:
        raise ValueError(f"it holds {dtype} {found} instead of uint8 {shape}")
    start = file.tell()
    end, size = start + math.prod(shape), os.fstat(file.fileno()).st_size
    if size == end:
        return start, b""
    file.seek(end)
    seal = file.read(len(MAGIC) + SIZE)
    if size != end + len(MAGIC) + SIZE or not seal.startswith(MAGIC):
        raise ValueError(f"it has {size} bytes instead of {end}, and a checksum")
    return start, seal


def _key(encoded: Encoded, target: Target) -> str:
    digest = hashlib.blake2b(digest_size=12)
    digest.update(json.dumps([VERSION, target.shape, target.resize]).encode())
    for part in encoded.fingerprint():
        digest.update(json.dumps(part).encode())
    return digest.hexdigest()


# --- writing ----------------------------------------------------------------------------------------------------


def _decode_into(path: Path, name: str, encoded: Encoded, target: Target) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (len(encoded), *target.shape)
    with _sole_writer(path, lambda: map_images(path, shape) is not None) as partial:
        if partial is None:
            return
        _check_room(path.parent, math.prod(shape))
        try:
            _write(partial, name, encoded, target)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise OSError(errno.ENOSPC, f"the disk is full; {_ELSEWHERE}", str(path.parent)) from error
        partial.replace(path)


def _write(partial: Path, name: str, encoded: Encoded, target: Target) -> None:
    from tqdm import tqdm

    count = len(encoded)
    images = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=(count, *target.shape))
    missing = np.ones(count, dtype=bool)
    # Quick work is done silently; a bar that no terminal shows would only fill a log file.
    bar = tqdm(total=count, desc=f"decoding {name}", unit=" images", delay=2, disable=None, leave=False)
    with bar, partial.open("r+b") as file, closing(decode_all(encoded.batches(), count, target)) as decoded:
        _reserve(file, images.offset, images.nbytes)
        for rows, pixels in decoded:
            images[list(rows)] = pixels
            missing[list(rows)] = False
            bar.update(len(rows))
        if missing.any():
            raise InvalidDataError(f"{encoded.where} changed while it was read: {int(missing.sum())} images are gone")
        images.flush()
        file.seek(0, os.SEEK_END)
        file.write(_seal(torch.from_numpy(images)))
        file.flush()
        os.fsync(file.fileno())


def _reserve(file: BinaryIO, start: int, size: int) -> None:
    # A mapped file whose room is not taken yet ends the process by a signal when the disk is full, not by an error.
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), start, size)
        return
    file.seek(start)
    for first in range(0, size, _RESERVED_AT_ONCE):
        file.write(bytes(min(_RESERVED_AT_ONCE, size - first)))
    file.flush()


@contextmanager
def _sole_writer(path: Path, is_written: Callable[[], bool]) -> Iterator[Path | None]:
    """A name beside `path` that no other process writes to; None where another wrote `path` in the meantime.

    The lock ends with its process: a process that was killed leaves a partial file, which the next one writes over.
    Whatever still has that name at the end of the block is removed. Lock files are empty and stay, in a folder of
    their own: if one were removed, two processes could each hold a lock on a file of that name.
    """
    partial = path.with_name(f"{path.name}.partial")
    lock = FileLock(user_cache() / "locks" / f"{path.name}.lock")
    try:
        _wait_for(lock, path)
    except (OSError, NotImplementedError):  # no locks on this disk: a file for each process, the last one renamed stays
        partial = path.with_name(f"{path.name}.{secrets.token_hex(6)}.partial")
    try:
        yield None if is_written() else partial
    finally:
        partial.unlink(missing_ok=True)
        lock.release()


def _wait_for(lock: FileLock, path: Path) -> None:
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _logger.warning("waiting for another process that decodes the same images into %s", path)
        lock.acquire(timeout=-1)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        message = f"decoded images need {needed / 1e6:,.1f} MB and the disk has {free / 1e6:,.1f} MB; {_ELSEWHERE}"
        raise OSError(errno.ENOSPC, message, str(folder))
