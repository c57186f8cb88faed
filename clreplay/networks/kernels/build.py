"""Compile the C source when it is first needed, once a machine, with the C compiler that is found.

A plain shared library behind ``ctypes``: no headers of Python or PyTorch, so it compiles in under a second,
and calls release the interpreter's lock. Without a compiler nothing is lost but speed.

A library that is loaded runs whatever is in it. So the cached one is only loaded from a folder that nobody but this
user (or root) may write to, and if it is still what was compiled; a cache that others share gets nothing from them.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from clreplay.runtime.device import processor
from clreplay.runtime.files import temporary_folder, user_cache, write_text

logger = logging.getLogger(__name__)
SOURCE = Path(__file__).with_name("block.c")
FLAGS = ["-O3", "-march=native", "-std=gnu11", "-fPIC", "-shared", "-fno-math-errno", "-Wno-psabi"]


class BuildError(RuntimeError):
    """There is no library for this machine; the message says why."""


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled functions, built when first needed and stored in the user's cache folder, if that can be.

    Raises:
        BuildError: there is no C compiler, or it refuses the source.
    """
    compiler = find_compiler()
    path = _compiled(compiler, user_cache() / "native" / f"block-{fingerprint(compiler)}.so")
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"{path} cannot be loaded ({error}); delete it to have it built anew") from error


def _compiled(compiler: str, path: Path) -> Path:
    """The library at this place, compiled if it is not there or not what was compiled.

    Where nothing can be kept, or others may write, it is one of this process's own, which costs a warning.
    """
    try:
        if path.is_file():
            _check_private(path.parent, path)
            if _is_whole(path):
                return path
            logger.warning("compiling again, because %s is not what was compiled", path)
        else:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(path.parent)
        compile_library(compiler, path)
        return path
    except OSError as error:
        logger.warning(
            "cannot keep compiled kernels in %s (%s): every process compiles its own; set CLREPLAY_CACHE to a folder "
            "of yours that can be written to",
            path.parent,
            error,
        )
    try:
        own = temporary_folder() / path.name
        compile_library(compiler, own)
    except OSError as error:
        raise BuildError(f"there is no place for a compiled library ({error})") from error
    return own


def _check_private(*paths: Path) -> None:
    """Whether nobody but this user and root can have written there.

    Raises:
        PermissionError: somebody else owns it, or others may write.
    """
    if not hasattr(os, "getuid"):  # Windows keeps a user's folders apart
        return
    for path in paths:
        state = path.stat()
        if state.st_uid not in (os.getuid(), 0):
            raise PermissionError(f"{path.name} is another user's")
        if state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"other users may write to {path.name}")


def _is_whole(path: Path) -> bool:
    try:
        return _sum_file(path).read_text(encoding="ascii") == _digest(path)
    except (OSError, ValueError):
        return False


def _sum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sum")


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


@functools.cache
def failure() -> str | None:
    """Why :func:`library` does not work on this machine; None if it does."""
    try:
        library()
    except BuildError as error:
        logger.info("native kernels are not available: %s", error)
        return str(error)
    return None


def find_compiler() -> str:
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        found = name and shutil.which(name)
        if found:
            return found
    raise BuildError("no C compiler (cc, gcc or clang, or $CC) was found")


def fingerprint(compiler: str) -> str:
    """Hash of all that decides what the library is; home folders are shared by unlike machines."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    parts = [SOURCE.read_text(encoding="utf-8"), " ".join(FLAGS), version, platform.platform(), processor()]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=10).hexdigest()


def compile_library(compiler: str, path: Path) -> None:
    """Compile to a temporary name and rename: processes that build at once do not disturb each other."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        target = Path(folder) / "block.so"
        # OpenMP serves a single class on several threads; a compiler without it still gives correct code.
        for extra in (["-fopenmp"], []):
            command = [compiler, *FLAGS, *extra, str(SOURCE), "-o", str(target), "-lm"]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode == 0:
                digest = _digest(target)
                target.chmod(0o700)
                target.replace(path)
                write_text(_sum_file(path), digest)  # a process between the two compiles once more
                return
    raise BuildError(f"{compiler} failed: {result.stderr.strip()[-500:]}")
