"""The record of a memory as columns: a tensor a column instead of text a number, which took eight times the bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

PREFIX = "record."
"""Names of the columns begin so: ``record.0.loss`` is the loss of the first rows that have the same keys."""


def to_columns(rows: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Rows as columns; :func:`to_rows` gives equal rows back.

    Args:
        rows: of numbers, or of anything that JSON knows.

    Returns:
        what is written about the rows: of those in a row that have the same keys, ``{"columns": [...]}``; of rows with
        anything but numbers ``{"rows": [...]}``, as they are. And the columns, int32 or int64 and float32 or float64,
        whichever holds all values exactly.
    """
    about: list[dict[str, Any]] = []
    columns: dict[str, Tensor] = {}
    for keys, part in groupby(rows, key=_keys):
        same = list(part)
        if keys is None:
            about.append({"rows": [dict(row) for row in same]})
            continue
        for name, kind in keys:
            columns[f"{PREFIX}{len(about)}.{name}"] = _column([row[name] for row in same], kind)
        about.append({"columns": [name for name, _ in keys]})
    return about, columns


def to_rows(about: Sequence[Mapping[str, Any]], tensors: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """The rows of :func:`to_columns`.

    Raises:
        LookupError, TypeError, AttributeError: what is written is of another kind, or a column is missing.
        ValueError: columns differ in length.
    """
    found: list[dict[str, Any]] = []
    for number, part in enumerate(about):
        if "rows" in part:
            found += [dict(row) for row in part["rows"]]
            continue
        names = part["columns"]
        values = [tensors[f"{PREFIX}{number}.{name}"].tolist() for name in names]
        if len({len(column) for column in values}) != 1:
            raise ValueError(f"the columns of part {number} of the record differ in length; the memory is damaged")
        found += [dict(zip(names, row)) for row in zip(*values)]
    return found


def column_names(about: Sequence[Mapping[str, Any]]) -> set[str]:
    """Names of the tensors that belong to it."""
    return {f"{PREFIX}{number}.{name}" for number, part in enumerate(about) for name in part.get("columns", ())}


def _keys(row: Mapping[str, Any]) -> tuple[tuple[str, type], ...] | None:
    """Names and kinds of a row's numbers; None where it has anything else, or nothing."""
    kinds = {type(value) for value in row.values()}
    fits = all(type(value) is float or -(2**63) <= value < 2**63 for value in row.values() if type(value) in NUMBERS)
    return tuple((name, type(value)) for name, value in row.items()) if kinds and kinds <= NUMBERS and fits else None


NUMBERS = {int, float}


def _column(values: list[Any], kind: type) -> Tensor:
    if kind is int:
        whole = torch.tensor(values, dtype=torch.int64)
        short = whole.to(torch.int32)
        return short if torch.equal(short.to(torch.int64), whole) else whole
    exact = torch.tensor(values, dtype=torch.float64)
    short = exact.to(torch.float32)
    return short if bool(((short.to(torch.float64) == exact) | exact.isnan()).all()) else exact
