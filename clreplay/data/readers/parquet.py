"""Read image classification splits from Parquet shards in the layout of the Hugging Face hub."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from clreplay.data.errors import InvalidDataError
from clreplay.data.readers.bounds import LARGEST_FILE
from clreplay.data.readers.image_files import BytesBatch

_IMAGE_COLUMNS = ("img", "image")
# Older conversions add a hash: train-00000-of-00001-2a1df75c6bce91ab.parquet
_SHARD_NAME = re.compile(r"(?P<split>[a-z]+)(?:-(?P<number>\d+)-of-(?P<total>\d+)(?:-[0-9a-f]+)?)?\.parquet")
_NUMBER_NAME = re.compile(r"(?P<number>\d+)\.parquet")
# Rows read at a time: the encoded bytes of a whole split need not be held beside its pixels.
_BATCH_ROWS = 64
# Times its size that a shard may take unpacked: encoded images hardly shrink any more.
_MOST_UNPACKED = 16


@dataclass(frozen=True)
class ParquetSplit:
    """The shards of one split in row order, with the names of the columns that are read."""

    files: tuple[Path, ...]
    image_column: str
    label_column: str
    rows: int


def find_shards(folder: Path, split: str) -> tuple[Path, ...]:
    """The shards of `split` in `folder`, in order; empty if there is none.

    They are named `train-00000-of-00002.parquet` or, whole, `train.parquet`, or numbered in a folder of their own,
    `train/0000.parquet`, as in the hub's converted branches.

    Raises:
        InvalidDataError: a shard number is missing or there twice, or a file name fits no numbering.
    """
    # `validation.parquet` begins like `val` but is another split's.
    files = sorted(
        path for path in folder.glob(f"{split}*.parquet") if path.is_file() and not path.name[len(split)].islower()
    )
    if not files:
        return _numbered_shards(folder / split)
    numbered: dict[int, Path] = {}
    totals = set()
    for path in files:
        match = _SHARD_NAME.fullmatch(path.name)
        if match is None or match["split"] != split:
            raise InvalidDataError(
                f"{path} is not named like a shard; expected {split}.parquet or {split}-00000-of-00002.parquet"
            )
        number = int(match["number"] or 0)
        if number in numbered:
            raise InvalidDataError(f"{path} and {numbered[number].name} are the same shard of {split}; remove one")
        numbered[number] = path
        totals.add(int(match["total"] or 1))
    _check_numbers(folder, split, set(numbered), totals)
    return tuple(numbered[number] for number in sorted(numbered))


def open_split(files: tuple[Path, ...], label_columns: tuple[str, ...]) -> ParquetSplit | None:
    """Read the shards' schema and row counts; None if the first shard lacks an image or label column.

    Args:
        label_columns: accepted names, the preferred one first.

    Raises:
        InvalidDataError: a shard cannot be read or has other columns than the first.
    """
    schema = _open(files[0]).schema_arrow
    image_column = _first_present(_IMAGE_COLUMNS, schema.names)
    label_column = _first_present(label_columns, schema.names)
    if image_column is None or label_column is None:
        return None
    rows = 0
    for path in files:
        shard = _open(path)
        rows += shard.metadata.num_rows
        if not 0 <= shard.metadata.num_rows <= (size := path.stat().st_size):  # an image has a byte at least
            raise InvalidDataError(
                f"{path} says that it has {shard.metadata.num_rows:,} rows in {size:,} bytes; fetch the file again"
            )
        unpacked = sum(shard.metadata.row_group(group).total_byte_size for group in range(shard.num_row_groups))
        if unpacked > max(LARGEST_FILE, _MOST_UNPACKED * size):
            raise InvalidDataError(f"{path} of {size:,} bytes says that it unpacks to {unpacked:,}; fetch it again")
        missing = [name for name in (image_column, label_column) if name not in shard.schema_arrow.names]
        if missing:
            raise InvalidDataError(f"{path} has no column {missing[0]}, unlike {files[0].name}")
        _check_types(path, shard.schema_arrow, image_column, label_column)
    return ParquetSplit(files, image_column, label_column, rows)


def read_labels(split: ParquetSplit) -> np.ndarray:
    """Labels in row order, int64 (n,).

    Raises:
        InvalidDataError: a shard cannot be read or a label is missing.
    """
    parts = []
    for path in split.files:
        with _reading(path):
            column = _open(path).read(columns=[split.label_column]).column(0)
            if column.null_count:
                raise InvalidDataError(f"{path} has {column.null_count} rows without {split.label_column}")
            values = column.to_numpy()
            if len(values) and values.max() > np.iinfo(np.int64).max:  # of unsigned ones
                raise InvalidDataError(f"{path} has a label of {values.max()}; number the classes 0, 1, ...")
            parts.append(values.astype(np.int64))
    return np.concatenate(parts)


class ParquetRows:
    """The encoded images in some rows of a split.

    Args:
        rows: their numbers in the split, ascending.
    """

    def __init__(self, split: ParquetSplit, rows: np.ndarray) -> None:
        self.where = str(split.files[0].absolute().parent)
        self._split, self._rows = split, rows

    def __len__(self) -> int:
        return len(self._rows)

    def fingerprint(self) -> Iterator[tuple[Any, ...]]:
        """Names, sizes and times of change of the shards, and a hash of the rows."""
        for path in self._split.files:
            state = path.stat()
            yield path.name, state.st_size, state.st_mtime_ns
        yield self._split.image_column, hashlib.blake2b(self._rows.astype("<i8").tobytes(), digest_size=12).hexdigest()

    def batches(self) -> Iterator[BytesBatch]:
        """Every chosen row once. They are read in this process: row groups differ too much in size to share them out.

        Raises:
            InvalidDataError: a shard cannot be read.
        """
        places = np.full(self._split.rows, -1)
        places[self._rows] = np.arange(len(self._rows))
        before = 0
        for path in self._split.files:
            row = 0
            with _reading(path):
                shard = _open(path)
                for batch in shard.iter_batches(_BATCH_ROWS, columns=[f"{self._split.image_column}.bytes"]):
                    wanted = np.flatnonzero(places[before + row : before + row + len(batch)] >= 0)
                    data = batch.column(0).flatten()[0].take(wanted).to_pylist() if len(wanted) else []
                    if data:
                        names = tuple(f"{path} row {row + number} (counted from 0)" for number in wanted.tolist())
                        yield BytesBatch(tuple(places[before + row + wanted].tolist()), names, tuple(data))
                    row += len(batch)
            before += row


def read_class_names(
    folder: Path, split: ParquetSplit, num_classes: int, otherwise: tuple[str, ...] | None = None
) -> tuple[str, ...]:
    """Class names from `classes.json` beside the shards, else from the hub's metadata, else `otherwise`, else numbers.

    `classes.json` holds a list of names, or an object with such a list under `classes` or the label column's name.

    Raises:
        InvalidDataError: `classes.json` cannot be read or does not hold one name a class.
    """
    path = folder / "classes.json"
    if path.is_file():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise InvalidDataError(f"{path} is not JSON: {error}") from error
        if isinstance(content, dict):
            content = content.get("classes", content.get(split.label_column))
        if not _are_names(content, num_classes):
            raise InvalidDataError(f"{path} must hold a list of {num_classes} class names under 'classes'")
        return tuple(content)
    names = _metadata_names(split)
    if _are_names(names, num_classes):
        return tuple(names)
    return otherwise or tuple(str(label) for label in range(num_classes))


def _numbered_shards(folder: Path) -> tuple[Path, ...]:
    numbered = {}
    for path in folder.glob("*.parquet"):
        if match := _NUMBER_NAME.fullmatch(path.name):
            numbered[int(match["number"])] = path
    if missing := sorted(set(range(max(numbered, default=-1) + 1)) - set(numbered)):
        raise InvalidDataError(f"{folder} has a shard number {max(numbered)} but none number {missing[0]}")
    return tuple(numbered[number] for number in sorted(numbered))


def _check_numbers(folder: Path, split: str, numbers: set[int], totals: set[int]) -> None:
    if len(totals) > 1:
        raise InvalidDataError(
            f"{folder} mixes {split} shards of different sets (of {' and of '.join(map(str, sorted(totals)))}); "
            "keep one set"
        )
    total = totals.pop()
    missing = sorted(set(range(total)) - numbers)
    if missing:
        names = ", ".join(f"{split}-{number:05d}-of-{total:05d}.parquet" for number in missing)
        raise InvalidDataError(f"{folder} has {len(numbers)} of {total} {split} shards; missing: {names}")
    if max(numbers) >= total:
        raise InvalidDataError(f"{folder} has {split} shard number {max(numbers)} of {total}; numbers start at 0")


def _check_types(path: Path, schema: Any, image_column: str, label_column: str) -> None:
    import pyarrow.types as types

    image_type, label_type = schema.field(image_column).type, schema.field(label_column).type
    if not types.is_struct(image_type) or image_type.get_field_index("bytes") < 0:
        raise InvalidDataError(f"{path} column {image_column} must be a struct with a field bytes, got {image_type}")
    if not types.is_integer(label_type):
        raise InvalidDataError(f"{path} column {label_column} must hold integers, got {label_type}")


def _open(path: Path) -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ImportError(f"reading {path} needs pyarrow: pip install pyarrow") from error
    with _reading(path):
        return parquet.ParquetFile(path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except InvalidDataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, LookupError, TypeError, OverflowError, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise InvalidDataError(f"{path} cannot be read as Parquet: {reason}; fetch the file again") from error


def _metadata_names(split: ParquetSplit) -> object:
    raw = (_open(split.files[0]).schema_arrow.metadata or {}).get(b"huggingface")
    try:
        return json.loads(raw or b"")["info"]["features"][split.label_column]["names"]
    except (
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        RecursionError,
    ):  # no metadata, or another version of it: numbers then serve as names
        return None


def _are_names(value: object, count: int) -> TypeGuard[list[str]]:
    return isinstance(value, list) and len(value) == count and all(isinstance(name, str) for name in value)


def _first_present(wanted: tuple[str, ...], present: list[str]) -> str | None:
    return next((name for name in wanted if name in present), None)
