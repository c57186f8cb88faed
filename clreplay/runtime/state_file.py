"""Plain values and tensors in a file of PyTorch's, behind a checksum, read with suspicion."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from clreplay.runtime.checksum import read_sealed, write_sealed

DAMAGED: tuple[type[Exception], ...] = (RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError)
DAMAGED += (AttributeError, MemoryError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile, NotImplementedError)
"""What PyTorch raises on a damaged file, and zipfile before it."""


def save_state(path: Path, content: dict[str, Any]) -> None:
    """Replace the file once its new content is safely on disk.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_sealed(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any]:
    """What is in the file; only plain values and tensors are made of it, no code runs.

    Raises:
        one of :data:`DAMAGED`: it is truncated, does not match its checksum, or is something else.
    """
    content = read_sealed(path)
    _check_stored(content)
    found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}")
    return found


def _check_stored(content: bytes) -> None:
    """PyTorch writes its parts uncompressed: compressed ones are somebody else's, and may be of any size unpacked.

    Raises:
        ValueError: a part is compressed, or they are longer than the file.
        zipfile.BadZipFile: it is no file of PyTorch's.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as parts:
        sizes = [part.file_size for part in parts.infolist()]
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts.infolist()) or sum(sizes) > len(content):
            raise ValueError("its parts are compressed, which PyTorch's are not")
