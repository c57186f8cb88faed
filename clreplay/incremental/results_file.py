"""``results.csv`` of a run's folder: one row a trained network, read with suspicion and written whole."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clreplay.runtime.files import write_text

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "memory",
    "dataset",
    "class_order",
    "network",
    "step",
    "classes_seen",
    "accuracy",
    "memory_images",
    "memory_bytes",
    "condense_seconds",
    "train_seconds",
)
"""One row a trained network; accuracy in percent of the test images of all classes seen so far."""

DOMAIN_COLUMNS = ("memory", "dataset", "class_order", "network", "step", "domain", "domain_name", "accuracy")
"""Of ``domains.csv``: one row a trained network and domain seen, the number from 0 of the step that brought it;
accuracy in percent of its test images."""

TEXT = ("memory", "dataset", "domain_name")
"""Columns of text, in which ``NA`` and ``null`` are names like any other."""
WHOLE = ("class_order", "network", "step", "domain", "classes_seen", "memory_images", "memory_bytes")
"""Columns of whole numbers."""
STEP = ("memory", "class_order", "step")
"""Columns that name a step of one memory under one class order."""


def read_rows(path: Path, columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """All rows of a file (an empty frame with the columns if there is none).

    Raises:
        ValueError: the file is damaged, or has a row twice; it names the file and the line.
    """
    import pandas as pd

    if not path.is_file():
        return pd.DataFrame(columns=list(columns))
    try:
        rows = pd.read_csv(path, dtype=dict.fromkeys(TEXT, str), keep_default_na=False, na_values=_MISSING)
    except (ValueError, UnicodeDecodeError, pd.errors.ParserError) as error:
        raise ValueError(f"{path} is damaged ({str(error).strip()}); {_CURE}") from error
    missing = [name for name in columns if name not in rows]
    if missing:
        raise ValueError(f"{path} is damaged (it has no column {', '.join(missing)}); {_CURE}")
    for name in columns:
        if name not in TEXT:
            _check_numbers(path, name, rows[name])
    twice = rows.duplicated([*STEP, "network", *(["domain"] if "domain" in columns else [])])
    if twice.any():
        line, row = _line(twice), rows[twice].iloc[0]
        raise ValueError(
            f"{path} has memory {row.memory}, class order {row.class_order}, step {row.step}, network {row.network} "
            f"twice; delete one of them (the second is line {line}), or choose another --out"
        )
    return rows


def append_rows(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = COLUMNS) -> None:
    """Add the rows of finished steps, all of them or none.

    Rows that are there of the same steps, of which some have gone, are replaced; all others stay as they are.
    """
    before = path.read_text(encoding="utf-8") if path.is_file() else ",".join(columns) + "\n"
    new = {tuple(str(row[name]) for name in STEP) for row in rows}
    kept = [line for line in before.splitlines() if tuple(_named(line, columns)) not in new]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([_cell(row[column]) for column in columns])
    write_text(path, "\n".join(kept) + "\n" + text.getvalue())


_CURE = "restore it from a copy, or choose another --out"
_MISSING = {name: ["", "nan", "NaN"] for name in (*COLUMNS, *DOMAIN_COLUMNS) if name not in TEXT}


def _named(line: str, columns: Sequence[str]) -> list[str]:
    """The step that a line is of; of the header its own names."""
    (cells,) = csv.reader([line])
    return [cells[columns.index(name)] for name in STEP] if len(cells) == len(columns) else []


def _check_numbers(path: Path, name: str, values: pd.Series) -> None:
    import numpy as np
    import pandas as pd

    numbers = pd.to_numeric(values, errors="coerce")
    bad = ~np.isfinite(numbers.astype(float))
    if name in WHOLE:
        bad |= numbers != numbers.round()
    if bad.any():
        raise ValueError(
            f"{path} is damaged: {name} in line {_line(bad)} must be a {'whole ' if name in WHOLE else ''}number, "
            f"got {str(values[bad].iloc[0])!r}; delete that line and start again to have the step repeated"
        )


def _line(where: pd.Series) -> int:
    """Number of the first line of the file for which this holds, the header being the first."""
    return int(where.to_numpy().argmax()) + 2


def _cell(value: Any) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
