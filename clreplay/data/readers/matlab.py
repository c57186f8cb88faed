"""MATLAB files, read by a process of their own: SciPy's reader can crash on damaged bytes, and that one may."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from clreplay.data.readers.bounds import check_size

SECONDS = 60
"""After which the reader is ended; the kit's file takes a second."""
LARGEST = 1 << 24
"""Bytes of a file that is read; the kit's has a hundred thousand."""
MEMORY = 1 << 31
"""Bytes that the reader may have."""


def struct_rows(content: bytes, name: str, fields: tuple[str, ...]) -> list[list[Any]]:
    """Some fields of every element of a struct array.

    Args:
        content: of a MATLAB file, version 5 to 7.2.
        name: of the variable.
        fields: of its elements; each is a number or a text.

    Returns:
        a row an element, its fields in this order.

    Raises:
        ValueError: the file is damaged or something else; the message is one line.
    """
    check_size(len(content), LARGEST)
    script = Path(__file__).with_name("matlab_process.py")
    words = [sys.executable, "-I", str(script), str(MEMORY), str(SECONDS), name, *fields]
    try:
        done = subprocess.run(words, input=content, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"its reader came to no end in {SECONDS} seconds") from error
    if done.returncode < 0:
        raise ValueError(f"its reader crashed (signal {-done.returncode})")
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise ValueError(lines[-1][:300])
    rows: list[list[Any]] = json.loads(done.stdout)
    return rows
