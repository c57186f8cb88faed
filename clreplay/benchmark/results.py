"""The rows of a table: measured numbers from the store beside published ones, or why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clreplay.benchmark.architecture_ranking import TOPS, correlation, how_many, selected
from clreplay.benchmark.cells import Cell
from clreplay.benchmark.planned import PlannedCell, PlannedNetworks
from clreplay.benchmark.rows import Contents, NetworkRow, SetRow
from clreplay.runtime.progress import counted

MEASURED, PARTLY, MISSING, FAILED = "measured", "partly measured", "not measured", "failed"


@dataclass(frozen=True)
class TableRow:
    """One row of a rendered table.

    Attributes:
        cell: what is measured.
        ours: the measured value; None where there is none.
        spread: population standard deviation over sets and networks; None over a single one.
        held_out, held_out_spread: the same on images that were held out from condensing; None where none were.
        done, wanted: networks trained (of a search: architectures).
        condense_seconds, train_seconds: spent on what was measured.
        devices, commits: where and with what, all of them.
        settings: hash of the settings.
        state: measured, partly measured, not measured or failed.
        reason: why it failed.
        variant: what distinguishes the row from its neighbours; a search adds to the cell's.
        reduced: how the settings fall short of the paper's.
        notes: what the paper leaves open and was decided here.
    """

    cell: Cell
    ours: float | None = None
    spread: float | None = None
    held_out: float | None = None
    held_out_spread: float | None = None
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
        """Ours minus the published number, if there are both and they mean the same: not minutes of fewer networks."""
        if self.cell.metric == "time_cost" and self.reduced:
            return None
        return None if self.ours is None or not self.cell.published else self.ours - float(self.cell.published)


def lines_of(planned: Iterable[PlannedCell], contents: Contents, all_draws: bool = False) -> list[TableRow]:
    """The rows of a table; Spearman's correlation has one for every length of the ranking.

    Args:
        planned: the cells.
        contents: of the store.
        all_draws: whether a cell averages over all sets and networks that the store has of its kind, whatever the
            plan asks for.
    """
    found = []
    for one in planned:
        if one.problem:
            found.append(TableRow(one.cell, state=FAILED, reason=one.problem, variant=one.cell.variant))
        elif one.real:
            found += _search_lines(one, contents)
        else:
            found.append(_line(one, contents, all_draws))
    return found


def _line(planned: PlannedCell, contents: Contents, all_draws: bool) -> TableRow:
    if all_draws:
        rows = planned.trained[0].alike(contents)
        common = {**_common(planned, contents, rows), "wanted": len(rows), "state": MEASURED if rows else MISSING}
    else:
        rows = [row for row in _rows(planned.trained, contents) if row is not None]
        common = _common(planned, contents, rows)
    if not rows:
        return TableRow(planned.cell, **common)
    ours, spread = _mean([row.accuracy for row in rows])
    held_out, held_out_spread = _mean([row.held_out for row in rows if row.held_out is not None])
    measured: dict[str, Any] = {
        "ours": ours,
        "spread": spread,
        "held_out": held_out,
        "held_out_spread": held_out_spread,
    }
    return TableRow(planned.cell, **measured, **common)


def _mean(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and population standard deviation; None without values, and the latter of a single one."""
    return float(np.mean(values)) if values else None, float(np.std(values)) if len(values) > 1 else None


def _search_lines(planned: PlannedCell, contents: Contents) -> list[TableRow]:
    cell = planned.cell
    proxy, real = (_rows(part, contents) for part in (planned.trained, planned.real))
    both = list({row.key: row for pair in (proxy, real) for row in pair if row is not None}.values())
    common = {**_common(planned, contents, both), "wanted": len(proxy)}
    common["done"] = sum(first is not None and second is not None for first, second in zip(proxy, real))
    tops = TOPS if cell.metric == "spearman_correlation" else (None,)
    lines = []
    for top in tops:
        variant = cell.variant if top is None else (*cell.variant, ("top", top))
        changes: dict[str, Any] = {"variant": variant}
        if common["state"] == MEASURED:  # a ranking of some would be another number
            first, second = ([row for row in rows if row is not None] for rows in (proxy, real))  # all of them
            changes["ours"] = _metric(cell.metric, first, second, _sets(both, planned, contents), top)
            if changes["ours"] is None:
                changes["reason"] = f"no correlation over {how_many(top or 'all', len(proxy))} of {len(proxy)}"
        lines.append(TableRow(cell, **{**common, **changes}))
    return lines


def _metric(
    metric: str, proxy: Sequence[NetworkRow], real: Sequence[NetworkRow], sets: Sequence[SetRow], top: str | None
) -> float | None:
    first, second = ([row.accuracy for row in rows] for rows in (proxy, real))
    if metric == "accuracy":
        return selected(first, second)
    if metric == "time_cost":
        return sum(row.origin.seconds for row in proxy) / 60
    if metric == "storage":
        return float((sets or proxy)[0].images)  # of a set as stored; of all real images their number
    return correlation(first, second, top or "all")


def _common(planned: PlannedCell, contents: Contents, rows: Sequence[NetworkRow]) -> dict[str, Any]:
    """What every kind of row has."""
    wanted = dict.fromkeys(key for one in (*planned.trained, *planned.real) for key in one.unit.keys)
    done, sets = len(rows), _sets(rows, planned, contents)
    reasons = _reasons(planned, wanted, contents)
    complete = done == len(wanted)
    state = MEASURED if complete else PARTLY if done else FAILED if reasons else MISSING
    devices = {device for row in sets for device in row.devices} | {row.origin.device for row in rows}
    commits = {commit for row in sets for commit in row.commits} | {row.origin.commit for row in rows}
    return {
        "done": done,
        "wanted": sum(len(one.draws) for one in planned.trained),
        "condense_seconds": sum(row.seconds for row in sets),
        "train_seconds": sum(row.origin.seconds for row in rows),
        "devices": tuple(sorted(devices)),
        "commits": tuple(sorted(commits)),
        "settings": planned.settings_key,
        "state": state,
        "reason": "" if complete else "; ".join(reasons),
        "variant": planned.cell.variant,
        "reduced": planned.reduced,
        "notes": (*planned.notes, *_diverged(planned, rows)),
    }


def _diverged(planned: PlannedCell, rows: Sequence[NetworkRow]) -> list[str]:
    count = sum(row.diverged for row in rows)
    if not count:
        return []
    return [f"{planned.cell.called}: the training of {counted(count, 'network')} diverged; what it had learned counts."]


def _rows(trained: Iterable[PlannedNetworks], contents: Contents) -> list[NetworkRow | None]:
    return [contents.networks.get(key) for one in trained for key in one.unit.keys]


def _sets(rows: Sequence[NetworkRow], planned: PlannedCell, contents: Contents) -> list[SetRow]:
    """The finished sets of a cell: those that the plan asks for, and those that its networks were trained on."""
    keys = dict.fromkeys([*(spec.key for spec in planned.specs), *(row.condensed_set for row in rows)])
    return [contents.sets[key] for key in keys if key in contents.sets]


def _reasons(planned: PlannedCell, networks: Iterable[str], contents: Contents) -> list[str]:
    """Why what is missing failed, each reason once."""
    keys = [key for spec in planned.specs for key in (spec.execution_key, spec.key)]
    failures = (contents.failures[key] for key in dict.fromkeys([*keys, *networks]) if key in contents.failures)
    return list(dict.fromkeys(f"{one.reason} (attempts: {one.attempts})" for one in failures))
