"""A NumPy archive: the training images exactly as they are, and all that is said of them."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clreplay.data.readers.bounds import LARGEST_FILE
from clreplay.memory.formats.pictures import ExportedClass, Pictures, read_about
from clreplay.memory.record_columns import PREFIX, to_columns, to_rows

MOST_UNPACKED = 64
"""Times its size that a file may take unpacked, or 64 MB: pictures that hardly differ shrink well."""


def check_unpacked(path: Path, unpacked: int) -> None:
    """Whether a file is unpacked: a small one must not fill the memory.

    Raises:
        ValueError: it would take far more than pictures do.
    """
    size = path.stat().st_size
    if unpacked > max(LARGEST_FILE, MOST_UNPACKED * size):
        raise ValueError(f"{path} of {size:,} bytes says that it unpacks to {unpacked:,}; it is damaged")


def write(pictures: Pictures, path: Path) -> None:
    """Write the file: ``images`` (uint8 codes, or float32 network input), ``labels``, ``class_names`` in the order of
    ``class_labels``, ``mean`` and ``std`` where they are known, ``about`` (JSON) and the columns of the record.
    """
    labels, names = pictures.table()
    about = pictures.about()
    about["record"], columns = to_columns(pictures.record)
    arrays: dict[str, Any] = {"images": pictures.images.numpy(), "labels": pictures.labels.numpy()}
    arrays["class_labels"], arrays["class_names"] = np.array(labels, dtype=np.int64), np.array(names, dtype=np.str_)
    if pictures.normalization is not None:
        arrays["mean"], arrays["std"] = np.array(pictures.normalization.mean), np.array(pictures.normalization.std)
    arrays["about"] = np.array(json.dumps(about))
    arrays.update({name: column.numpy() for name, column in columns.items()})
    with open(path, "wb") as file:
        save: Any = np.savez_compressed  # some of its stubs take names for flags
        save(file, **arrays)


def read(path: Path) -> tuple[Pictures, float | None]:
    """The pictures of a file, and that they do not differ from what was exported.

    An archive of others is read as well: ``images`` (n, c, h, w), uint8 or float32, and ``labels`` (n,).

    Raises:
        ValueError: it is damaged, or has no such arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            check_unpacked(path, sum(member.file_size for member in archive.infolist()))
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError, zlib.error) as error:
        raise ValueError(f"{path} is truncated, or no archive of plain arrays ({error})") from error
    images, labels = arrays.get("images"), arrays.get("labels")
    if images is None or labels is None:
        raise ValueError(f"{path} must have arrays images and labels, got {', '.join(arrays) or 'none'}")
    kinds = (np.uint8, np.float32)
    if images.ndim != 4 or images.dtype not in kinds or 0 in images.shape:
        raise ValueError(f"images of {path} must be uint8 or float32 (n, c, h, w), got {images.dtype} {images.shape}")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels of {path} must be integers ({len(images)},), one an image, got {labels.dtype} {labels.shape}"
        )
    if "about" not in arrays:
        return _read_plain(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)), arrays), None
    try:
        about = json.loads(str(arrays["about"]))
        said = read_about(about, f"{path}: about")
        columns = {name: torch.from_numpy(array) for name, array in arrays.items() if name.startswith(PREFIX)}
        record = to_rows(about["record"], columns)
    except (LookupError, TypeError, AttributeError, RecursionError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: about is damaged ({type(error).__name__}: {error})") from error
    pictures = Pictures(torch.from_numpy(images), **said, record=record)
    if sum(one.count for one in pictures.classes) != len(labels) or not np.array_equal(labels, pictures.labels.numpy()):
        raise ValueError(f"{path}: labels are not those of the classes in about; it is damaged")
    return pictures, 0.0


def _read_plain(images: torch.Tensor, labels: torch.Tensor, arrays: dict[str, np.ndarray]) -> Pictures:
    """Images of others, put in order by class; names where there are as many as labels reach."""
    found = labels.unique().tolist()
    order = torch.cat([(labels == label).nonzero().squeeze(1) for label in found])
    classes = [ExportedClass(label, int((labels == label).sum())) for label in found]
    names = arrays.get("class_names")
    known = dict(enumerate(map(str, names.tolist()))) if names is not None and names.ndim == 1 else {}
    return Pictures(images[order], classes, known, None)
