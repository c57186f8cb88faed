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
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from torch import Tensor

from clreplay.data.decoding_jobs import decode_all
from clreplay.data.errors import InvalidDataError
from clreplay.data.image_files import Batch, Target
from clreplay.files import user_cache

_logger = logging.getLogger(__name__)

VERSION = 1
"""Raised whenever a change of the code changes decoded pixels."""
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
    except FileNotFoundError:
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
    _make_folder(path.parent)
    with _sole_writer(path) as partial:
        if partial is None:  # another process was faster
            return
        _check_room(path.parent, len(encoded) * math.prod(target.shape))
        try:
            _write(partial, name, encoded, target)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise OSError(errno.ENOSPC, f"the disk is full; {_elsewhere(path.parent)}", str(path.parent)) from error
        os.replace(partial.name, path)


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
def _sole_writer(path: Path, is_written: Callable[[], bool]) -> Iterator[BinaryIO | None]:
    """An empty file beside `path` that no other process writes to; None where another has written `path` meanwhile.

    The file itself is locked, and a lock ends with its process: one that is killed leaves a file that the next one
    takes over. What is not renamed to `path` is removed.
    """
    partial = path.with_name(f"{path.name}.partial")
    file = _open(partial)
    while not _lock(file, path) or not _is_at(file, partial):
        file.close()
        if not _has_locks(path.parent):  # a file of its own, then, and whoever renames last wins
            partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
            file = _open(partial)
            break
        file = _open(partial)  # the one that was waited for has been renamed or removed
    try:
        if is_written():
            yield None
        else:
            file.truncate(0)
            yield file
    finally:
        if _is_at(file, partial):
            partial.unlink()
        file.close()
