"""The files of a rendered table: what stands in them, whichever run measured it, and what they are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from clreplay.benchmark.cells import SEARCH, Cell, published_cells, select
from clreplay.benchmark.plan import plan
from clreplay.benchmark.planned import PlannedCell
from clreplay.benchmark.protocols import PROTOCOLS
from clreplay.benchmark.render import Caption, latex, markdown, table_csv
from clreplay.benchmark.request import REPEATS, TableRequest
from clreplay.benchmark.results import TableRow, lines_of
from clreplay.benchmark.store import Contents, key_of
from clreplay.data import DATASETS
from clreplay.runtime.files import write_text


class Page:
    """One table under one preset, protocol, way of holding images, seed and set of changed settings.

    It shows the cells that are asked for and, beside them, all others of the table that the store has something
    measured for: runs over parts of a table add to its page. Memories of one's own, and data or numbers of images
    that the table does not print, are there only when they are asked for.

    Args:
        grid: what is asked for.
        planned: the plan of it.
        device_type: ``cuda`` or ``cpu``.
    """

    def __init__(self, grid: TableRequest, planned: Sequence[PlannedCell], device_type: str) -> None:
        self.grid, self.planned, self.device_type = grid, list(planned), device_type
        self._plans: dict[tuple[tuple[tuple[str, int | None], ...], Cell], PlannedCell] = {}

    @property
    def name(self) -> str:
        """Of its files, without suffix; what is changed with ``--set`` or ``--seed`` is in it as 8 hex digits."""
        grid = self.grid
        parts = [f"{'table' if grid.table.isdigit() else ''}{grid.table}", grid.preset]
        parts += [part for part, usual in ((grid.protocol, "common"), (grid.store, "float32")) if part != usual]
        if grid.overrides or grid.seed:
            parts.append(key_of({"overrides": dict(grid.overrides), "seed": grid.seed})[:8])
        return "-".join(parts)

    @property
    def caption(self) -> Caption:
        """What holds for all of it."""
        grid = self.grid
        flags = [f"--set {' '.join(f'{key}={value}' for key, value in grid.overrides.items())}"]
        flags = flags * bool(grid.overrides) + [f"--seed {grid.seed}"] * bool(grid.seed)
        return Caption(
            grid.table, grid.preset, grid.protocol, PROTOCOLS[grid.protocol], grid.store, changed=" ".join(flags)
        )

    def lines(self, contents: Contents) -> list[TableRow]:
        """Of all its cells, in the paper's order; what the paper does not print comes last."""
        order = {cell: place for place, cell in enumerate(self._layout)}
        planned = sorted([*self.planned, *self._beside(contents)], key=lambda one: order.get(one.cell, len(order)))
        return lines_of(planned, contents, self.device_type)

    def write(self, contents: Contents, out: Path) -> list[Path]:
        """Markdown, LaTeX and CSV.

        Returns:
            the files.
        """
        lines, paths = self.lines(contents), []
        out.mkdir(parents=True, exist_ok=True)
        for suffix, render in ((".md", markdown), (".tex", latex), (".csv", table_csv)):
            paths.append(out / f"{self.name}{suffix}")
            write_text(paths[-1], render(lines, self.caption))
        return paths

    # ------------------------------------------------------------------ what was measured by other runs

    @cached_property
    def _layout(self) -> list[Cell]:
        """The table's cells, then those that it gives the data and numbers of images that are asked for."""
        grid = self.grid
        asked = select(grid.table, grid.datasets, grid.images_per_class, known_datasets=tuple(DATASETS))
        return list(dict.fromkeys([*published_cells(grid.table), *asked]))

    def _beside(self, contents: Contents) -> list[PlannedCell]:
        """Of the cells that are not asked for, those with something measured."""
        asked, held = {one.cell for one in self.planned}, _held(contents)
        changed = {key.rpartition(".")[2] for key in self.grid.overrides if not key.startswith("train.")}
        cells = [
            cell
            for cell in self._layout
            if cell not in asked
            and (cell.dataset, cell.images_per_class) in held
            and not changed & {name for name, _ in cell.overrides}
        ]
        if self.grid.table == SEARCH:
            # Its networks are hundreds: one of them tells whether there are images to train them on.
            probed = self._planned(cells, architectures=1)
            cells = [one.cell for one in probed if self._has_sets(one, contents)]
        plans = zip(*(self._planned(cells, sets=sets, networks=networks) for sets, networks in self._repeats()))
        fullest = [max(alike, key=lambda one: self._done(one, contents)) for alike in plans]
        return [one for one in fullest if self._done(one, contents)[0]]

    def _repeats(self) -> list[tuple[int | None, int | None]]:
        """Sets and networks of the cells beside: as few as now are asked for, or as many as others measured."""
        if self.grid.table == SEARCH:
            return [(self.grid.sets, self.grid.networks)]
        return list(dict.fromkeys([(self.grid.sets, self.grid.networks), (None, None), REPEATS["paper"]]))

    def _planned(self, cells: Sequence[Cell], **changes: int | None) -> list[PlannedCell]:
        """The plan of cells that are not asked for; each is made once."""
        key = tuple(sorted(changes.items()))
        missing = [cell for cell in cells if (key, cell) not in self._plans]
        if missing:
            # A changed setting may belong to a memory that only the cells asked for have.
            asked = [one.cell for one in self.planned] if self.grid.overrides else []
            for one in plan(replace(self.grid, **changes), [*asked, *missing]):
                self._plans[key, one.cell] = one
        return [self._plans[key, cell] for cell in cells]

    def _has_sets(self, planned: PlannedCell, contents: Contents) -> bool:
        settled = [spec.with_execution(contents, self.device_type) for spec in planned.specs]
        return not planned.problem and all(spec is not None and spec.key in contents.units for spec in settled)

    def _done(self, planned: PlannedCell, contents: Contents) -> tuple[int, int]:
        """How many networks are trained; of as many, the plan that wants no more comes first."""
        line = lines_of([planned], contents, self.device_type)[0]
        return line.done, -line.wanted


def _held(contents: Contents) -> set[tuple[str, int | None]]:
    """Data sets and images a class that anything was measured for; None stands for all real images."""
    sets = {(row.settings["dataset"], row.settings["images_per_class"]) for row in contents.units.values()
            if row.kind == "set"}  # fmt: skip
    whole = {(row.settings["dataset"], None) for row in contents.units.values()
             if row.kind == "network" and row.settings["set"] is None}  # fmt: skip
    return sets | whole
