"""Compile the C source when it is first needed, once a machine, with the C compiler that is found.

A plain shared library behind ``ctypes``: no headers of Python or PyTorch, so it compiles in under a second,
and calls release the interpreter's lock. Without a compiler nothing is lost but speed.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from clreplay.runtime.device import processor
from clreplay.runtime.files import temporary_folder, user_cache

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
    path = user_cache() / "native" / f"block-{fingerprint(compiler)}.so"
    if not path.is_file():
        path = _compiled(compiler, path)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"{path} cannot be loaded ({error}); delete it to have it built anew") from error


def _compiled(compiler: str, path: Path) -> Path:
    """Compile to this place; where nothing can be written, to one of this process's own, which costs a warning."""
    try:
        compile_library(compiler, path)
        return path
    except OSError as error:
        logger.warning(
            "cannot keep compiled kernels in %s (%s): every process compiles its own; set CLREPLAY_CACHE to a folder "
            "that can be written to",
            path.parent,
            error,
        )
    try:
        own = temporary_folder() / path.name
        compile_library(compiler, own)
    except OSError as error:
        raise BuildError(f"there is no place for a compiled library ({error})") from error
    return own


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
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        target = Path(folder) / "block.so"
        # OpenMP serves a single class on several threads; a compiler without it still gives correct code.
        for extra in (["-fopenmp"], []):
            command = [compiler, *FLAGS, *extra, str(SOURCE), "-o", str(target), "-lm"]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode == 0:
                target.replace(path)
                return
    raise BuildError(f"{compiler} failed: {result.stderr.strip()[-500:]}")
