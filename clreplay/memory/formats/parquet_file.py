"""Parquet in the schema of the Hugging Face hub: ``image`` (bytes of a PNG file, path) and ``label``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from clreplay.memory.formats.card import write_card
from clreplay.memory.formats.croissant import write_croissant
from clreplay.memory.formats.eight_bits import Rounded
from clreplay.memory.formats.npz import check_unpacked
from clreplay.memory.formats.pictures import ExportedClass, Pictures, read_about
from clreplay.memory.formats.png_folder import (
    check_channels,
    decode_picture,
    encode_png,
    file_names,
    read_shape,
    stacked,
)

SHARD = Path("data") / "train-00000-of-00001.parquet"
METADATA = b"clreplay"
"""The file's metadata has it beside ``huggingface``."""


def write(rounded: Rounded, folder: Path, address: str) -> None:
    """Fill a folder: the Parquet file, a dataset card, and Croissant metadata.

    Args:
        address: the card tells to load it from there.

    Raises:
        ValueError: PNG does not know so many channels.
    """
    (folder / SHARD).parent.mkdir()
    write_file(rounded, folder / SHARD)
    write_card(rounded, folder / "README.md", SHARD.as_posix(), (folder / SHARD).stat().st_size, address)
    write_croissant(rounded, folder / "croissant.json", SHARD.as_posix(), folder / SHARD)


def write_file(rounded: Rounded, path: Path) -> None:
    """Write the Parquet file alone.

    Raises:
        ValueError: PNG does not know so many channels.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures = rounded.pictures
    check_channels(pictures.shape[0], "parquet")
    labels, names = pictures.table()
    places = {label: place for place, label in enumerate(labels)}
    files = zip(pictures.images, file_names(pictures))
    columns: dict[str, Any] = {
        "image": pa.array(
            [{"bytes": encode_png(picture), "path": name} for picture, name in files],
            type=pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        ),
        "label": pa.array([places[label] for label in pictures.labels.tolist()], type=pa.int64()),
    }
    features: dict[str, Any] = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    for name, values in (("scale", pictures.scale), ("offset", pictures.offset)):
        if values is not None:
            columns[name] = pa.array(values.tolist(), type=pa.float32())
            features[name] = {"dtype": "float32", "_type": "Value"}
    about = {**pictures.about(), "error": rounded.error, "label_of_place": labels}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}), METADATA: json.dumps(about)}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path, compression="none")


def shards(folder: Path) -> list[Path]:
    """The Parquet files of a folder, or of ``data`` in it, sorted."""
    return sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))


def read(path: Path) -> tuple[Pictures, float | None]:
    """The pictures of a file, or of all files of a folder, and by how much they may differ from what was exported.

    Files of others are read as well: a column ``image`` (or ``img``) with encoded images and one ``label`` (or
    ``labels``, ``fine_label``); labels are the numbers in it, names those of the schema. Files whose names begin with
    ``train`` are taken where there are some.

    Raises:
        ValueError: a file is damaged or has no such columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = shards(path) if path.is_dir() else [path]
    files = [file for file in files if file.name.startswith("train")] or files
    if not files:
        raise ValueError(f"{path} has no Parquet file")
    try:
        for file in files:
            groups = pq.read_metadata(file)
            check_unpacked(file, sum(groups.row_group(i).total_byte_size for i in range(groups.num_row_groups)))
        tables = [pq.read_table(file) for file in files]
        table = pa.concat_tables(tables).combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        raise ValueError(f"{path} is damaged, or its files do not fit one another ({error})") from error
    columns = set(table.column_names)
    image = next((name for name in ("image", "img") if name in columns), None)
    label = next((name for name in ("label", "labels", "fine_label") if name in columns), None)
    if image is None or label is None or not pa.types.is_integer(table.schema.field(label).type):
        raise ValueError(
            f"{path} must have a column image or img and a column label of integers, got {', '.join(columns)}"
        )
    metadata = table.schema.metadata or {}
    said = _read_about(metadata, str(path)) if METADATA in metadata else None
    rows = list(_encoded(table.column(image).to_pylist(), str(path)))
    shape = None if said is None else said["shape"]
    names = [f"{path}, row {row}" for row in range(len(rows))]
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as threads:
        images = list(threads.map(lambda data, name: decode_picture(data, name, shape), rows, names))
    if not images:
        raise ValueError(f"{path} has no rows")
    places = table.column(label).to_pylist()
    if None in places or min(places) < 0:
        raise ValueError(f"{path} must have a label in every row")
    if said is None:
        return _plain(stacked(images, names), places, _names(metadata, label)), None
    wanted = said["label_of_place"]
    labels = [wanted[place] if place < len(wanted) else None for place in places]
    pictures = Pictures(stacked(images, names, said["shape"]), **said["pictures"])
    if {"scale", "offset"} <= columns:
        pictures = replace(pictures, scale=_floats(table, "scale"), offset=_floats(table, "offset"))
    if labels != pictures.labels.tolist():
        raise ValueError(f"{path}: labels are not those of the classes in its metadata; it is damaged")
    return pictures, said["error"]


def _floats(table: Any, column: str) -> torch.Tensor:
    return torch.tensor(table.column(column).to_pylist(), dtype=torch.float32)


def _read_about(metadata: Mapping[bytes, bytes], where: str) -> dict[str, Any]:
    try:
        about = json.loads(metadata[METADATA])
        return {
            "pictures": read_about(about, where),
            "shape": read_shape(about, where),
            "error": float(about["error"]),
            "label_of_place": [int(label) for label in about["label_of_place"]],
        }
    except (LookupError, TypeError, AttributeError, RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"the metadata of {where} is damaged ({type(error).__name__}: {error})") from error


def _encoded(values: Sequence[Any], where: str) -> Iterator[bytes]:
    for row, value in enumerate(values):
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise ValueError(
                f"{where}, row {row}: the image must be bytes, or a struct with bytes, got {type(data).__name__}"
            )
        yield data


def _names(metadata: Mapping[bytes, bytes], label: str) -> dict[int, str]:
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
        return {place: str(name) for place, name in enumerate(names)}
    except (LookupError, TypeError, ValueError):
        return {}


def _plain(images: torch.Tensor, labels: Sequence[int], names: dict[int, str]) -> Pictures:
    every = torch.tensor(labels, dtype=torch.int64)
    found = every.unique().tolist()
    order = torch.cat([(every == label).nonzero().squeeze(1) for label in found])
    return Pictures(images[order], [ExportedClass(label, labels.count(label)) for label in found], names, None)
