"""Checksums in files: what a disk or a transfer has changed is told from what was written.

Without one a flipped bit is believed: an image looks a little different, a number of pixels becomes infinite. A
safetensors file has its checksum among its texts, any other file in front of its bytes. Files of before checksums
have none and are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from clreplay.runtime.files import replacing

CHECKSUM = "checksum"
"""Name of the checksum among the texts of a safetensors file."""
MAGIC = b"clreplay-sum-1\n"
SIZE = 16
"""A checksum in a file that is no safetensors file: these bytes, and so many of the hash."""
_TEXTS = "__metadata__"


class DamagedFile(ValueError):
    """The content of a file is not what was written."""


def checksum(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    """Hash of tensors with their names, kinds and shapes, and of texts with their names; 32 hex digits."""
    digest = hashlib.blake2b(digest_size=SIZE)
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous()
        digest.update(repr((name, str(values.dtype), tuple(values.shape))).encode())
        digest.update(_bytes_of(values))
    digest.update(repr(sorted((name, text) for name, text in texts.items() if name != CHECKSUM)).encode())
    return digest.hexdigest()


def with_checksum(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> dict[str, str]:
    """The texts of a safetensors file, with the checksum of all that is in it."""
    return {**texts, CHECKSUM: checksum(tensors, texts)}


def check(tensors: Mapping[str, Tensor], texts: Mapping[str, str], known: tuple[str, ...]) -> None:
    """Compare what a safetensors file holds with its checksum.

    Args:
        tensors: all of them.
        texts: all of them.
        known: names of texts in files of before, which had no checksum.

    Raises:
        DamagedFile: they differ, or there is neither a checksum nor a file of before.
    """
    if CHECKSUM in texts:
        if texts[CHECKSUM] != checksum(tensors, texts):
            raise DamagedFile("its content does not match its checksum")
    elif strange := sorted(set(texts) - set(known)):
        raise DamagedFile(f"it has no checksum, but {', '.join(map(repr, strange))}")


def tensor_bytes(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> bytes:
    """A safetensors file with its checksum; the same content gives the same bytes."""
    from safetensors.torch import save

    whole = {name: values.detach().cpu().contiguous() for name, values in tensors.items()}
    data = save(whole, with_checksum(whole, texts))
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    # The library writes texts in whatever order they come.
    header = {_TEXTS: dict(sorted(header.pop(_TEXTS).items())), **header}
    written = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    written += b" " * (-len(written) % 8)  # data begins at a multiple of eight bytes
    return len(written).to_bytes(8, "little") + written + data[end:]


def read_tensors(path: Path, known: tuple[str, ...]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and texts of a safetensors file, checked.

    Args:
        path: the file.
        known: see :func:`check`.

    Raises:
        DamagedFile: it is truncated, no safetensors file, or does not match its checksum; the message is without the
            file's name.
        OSError: it cannot be read.
    """
    return tensors_in(path.read_bytes(), known)


def tensors_in(data: bytes, known: tuple[str, ...]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """:func:`read_tensors` of a file's bytes."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        texts = header.get(_TEXTS, {})
    except (SafetensorError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        kind = "a zip archive, such as torch.save writes, and no" if data.startswith(b"PK") else "truncated or not a"
        raise DamagedFile(f"it is {kind} safetensors file ({error})") from error
    check(tensors, texts, known)
    return tensors, texts


def write_sealed(path: Path, content: bytes) -> None:
    """Replace a file by these bytes behind their checksum, once they are safely on disk.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    write_bytes(path, MAGIC + hashlib.blake2b(content, digest_size=SIZE).digest() + content)


def read_sealed(path: Path) -> bytes:
    """The bytes that :func:`write_sealed` was given; of a file of before checksums all that is in it.

    Raises:
        DamagedFile: they do not match their checksum; the message is without the file's name.
        OSError: it cannot be read.
    """
    found = path.read_bytes()
    if not found.startswith(MAGIC):
        return found
    start = len(MAGIC) + SIZE
    if hashlib.blake2b(found[start:], digest_size=SIZE).digest() != found[len(MAGIC) : start]:
        raise DamagedFile("its content does not match its checksum")
    return found[start:]


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file only once its new content is safely on disk (a full disk leaves the old one).

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    with replacing(path) as partial, open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _bytes_of(values: Tensor) -> bytes:
    import torch

    return values.reshape(-1).view(torch.uint8).numpy().tobytes()
