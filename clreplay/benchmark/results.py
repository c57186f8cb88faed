"""What a store says about planned cells: measured numbers beside published ones, or why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clreplay.benchmark.architecture_ranking import TOPS, correlation, how_many, selected
from clreplay.benchmark.cells import Cell
from clreplay.benchmark.planned import PlannedCell, PlannedNetworks
from clreplay.benchmark.store import Contents, Row

MEASURED, PARTLY, MISSING, FAILED = "measured", "partly measured", "not measured", "failed"


@dataclass(frozen=True)
class TableRow:
    """One line of a rendered table.

    Attributes:
        cell: what is measured.
        ours: the measured value; None where there is none.
        spread: population standard deviation over sets and networks; None over a single one.
        done, wanted: networks trained (of a search: architectures).
        condense_seconds, train_seconds: spent on what was measured.
        devices, commits: where and with what, all of them.
        settings: hash of the settings.
        state: measured, partly measured, not measured or failed.
        reason: why it failed.
        variant: what tells the line from its neighbours; a search adds to the cell's.
        reduced: in what the settings fall short of the paper's.
        notes: what the paper leaves open and was decided here.
    """

    cell: Cell
    ours: float | None = None
    spread: float | None = None
    done: int = 0
    wanted: int = 0
    condense_seconds: float = 0.0
    train_seconds: float = 0.0
    devices: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    settings: str = ""
    state: str = MISSING
    reason: str = ""
    variant: tuple[tuple[str, str], ...] = ()
    reduced: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def difference(self) -> float | None:
        """Ours minus the published number, where there are both; minutes of fewer architectures are another thing."""
        if self.cell.metric == "time_cost" and self.reduced:
            return None
        return None if self.ours is None or not self.cell.published else self.ours - float(self.cell.published)


def lines_of(planned: Iterable[PlannedCell], contents: Contents, device_type: str) -> list[TableRow]:
    """The lines of a table; Spearman's correlation has one for every length of the ranking."""
    found = []
    for one in planned:
        if one.problem:
            found.append(TableRow(one.cell, state=FAILED, reason=one.problem, variant=one.cell.variant))
        elif one.real:
            found += _search_lines(one, contents, device_type)
        else:
            found.append(_line(one, contents, device_type))
    return found


def _line(planned: PlannedCell, contents: Contents, device_type: str) -> TableRow:
    rows = [row for row in _rows(planned.trained, contents, device_type) if row is not None]
    common = _common(planned, contents, device_type, rows)
    if not rows:
        return TableRow(planned.cell, **common)
    values = np.array([row.result["accuracy"] for row in rows])
    spread = float(values.std()) if len(values) > 1 else None
    return TableRow(planned.cell, ours=float(values.mean()), spread=spread, **common)


def _search_lines(planned: PlannedCell, contents: Contents, device_type: str) -> list[TableRow]:
    cell = planned.cell
    proxy, real = (_rows(part, contents, device_type) for part in (planned.trained, planned.real))
    both = list({row.key: row for pair in (proxy, real) for row in pair if row is not None}.values())
    common = {**_common(planned, contents, device_type, both), "wanted": len(proxy)}
    common["done"] = sum(first is not None and second is not None for first, second in zip(proxy, real))
    tops = TOPS if cell.metric == "spearman_correlation" else (None,)
    lines = []
    for top in tops:
        variant = cell.variant if top is None else (*cell.variant, ("top", top))
        changes: dict[str, Any] = {"variant": variant}
        if common["state"] == MEASURED:  # a ranking of some would be another number
            made = _sets(planned, contents, device_type)
            changes["ours"] = _metric(cell.metric, proxy, real, made, top)
            if changes["ours"] is None:
                changes["reason"] = f"no correlation over {how_many(top or 'all', len(proxy))} of {len(proxy)}"
        lines.append(TableRow(cell, **{**common, **changes}))
    return lines


def _metric(
    metric: str, proxy: Sequence[Row], real: Sequence[Row], sets: Sequence[Row], top: str | None
) -> float | None:
    first, second = ([row.result["accuracy"] for row in rows] for rows in (proxy, real))
    if metric == "accuracy":
        return selected(first, second)
    if metric == "time_cost":
        return sum(row.seconds for row in proxy) / 60
    if metric == "storage":
        return float((sets or proxy)[0].result["images"])  # stored ones; all real images are what they are
    return correlation(first, second, top or "all")


def _common(planned: PlannedCell, contents: Contents, device_type: str, rows: Sequence[Row]) -> dict[str, Any]:
    """What every kind of line has."""
    wanted = [key for one in (*planned.trained, *planned.real) for key in _keys(one, contents, device_type)]
    done, sets = len(rows), _sets(planned, contents, device_type)
    reasons = _reasons(planned, contents, device_type)
    complete = done == len(dict.fromkeys(wanted)) and None not in wanted
    state = MEASURED if complete else PARTLY if done else FAILED if reasons else MISSING
    return {
        "done": done,
        "wanted": sum(len(one.draws) for one in planned.trained),
        "condense_seconds": sum(row.seconds for row in sets),
        "train_seconds": sum(row.seconds for row in rows),
        "devices": tuple(sorted({row.device for row in (*sets, *rows)})),
        "commits": tuple(sorted({row.commit for row in (*sets, *rows)})),
        "settings": planned.settings_key,
        "state": state,
        "reason": "" if complete else "; ".join(reasons),
        "variant": planned.cell.variant,
        "reduced": planned.reduced,
        "notes": (*planned.notes, *_diverged(planned, rows)),
    }


def _diverged(planned: PlannedCell, rows: Sequence[Row]) -> list[str]:
    count = sum(row.result.get("diverged", False) for row in rows)
    if not count:
        return []
    return [f"{planned.cell.method}: the training of {count} network(s) diverged; they count with what they then know."]


def _keys(one: PlannedNetworks, contents: Contents, device_type: str) -> list[str | None]:
    unit = one.unit(contents, device_type)
    return [None] * len(one.draws) if unit is None else list(unit.keys)


def _rows(trained: Iterable[PlannedNetworks], contents: Contents, device_type: str) -> list[Row | None]:
    keys = (key for one in trained for key in _keys(one, contents, device_type))
    return [contents.units.get(key) if key else None for key in keys]


def _sets(planned: PlannedCell, contents: Contents, device_type: str) -> list[Row]:
    settled = (spec.with_execution(contents, device_type) for spec in planned.specs)
    return [contents.units[spec.key] for spec in settled if spec is not None and spec.key in contents.units]


def _reasons(planned: PlannedCell, contents: Contents, device_type: str) -> list[str]:
    """Why what is missing failed, each reason once."""
    keys: list[str | None] = []
    for spec in planned.specs:
        settled = spec.with_execution(contents, device_type)
        keys += [spec.asked_key] if settled is None else [settled.key]
    keys += [key for one in (*planned.trained, *planned.real) for key in _keys(one, contents, device_type)]
    failures = (contents.failures[key] for key in dict.fromkeys(keys) if key in contents.failures)
    return list(dict.fromkeys(f"{one.reason} (attempts: {one.attempts})" for one in failures))
