"""The files of a rendered table: their names, and the cells in them, whichever run measured these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from clreplay.benchmark.cells import SEARCH, Cell, published_cells, select
from clreplay.benchmark.plan import plan
from clreplay.benchmark.planned import PlannedCell
from clreplay.benchmark.protocols import PROTOCOLS
from clreplay.benchmark.render import Caption, latex, markdown, table_csv
from clreplay.benchmark.request import TableRequest
from clreplay.benchmark.results import TableRow, lines_of
from clreplay.benchmark.rows import Contents, key_of
from clreplay.data import DATASETS
from clreplay.runtime.files import write_text


class Page:
    """One table under one preset, protocol, way of holding images, seed and set of changed settings.

    It shows the requested cells and, beside them, all others of the table for which the store has results: runs over
    parts of a table add to its page. The user's own memories, and data or numbers of images that the table does not
    print, are shown only if they are requested.

    Args:
        grid: the requested table, or part of it.
        planned: the plan of it.
    """

    def __init__(self, grid: TableRequest, planned: Sequence[PlannedCell]) -> None:
        self.grid, self.planned = grid, list(planned)
        self._plans: dict[tuple[tuple[tuple[str, int], ...], Cell], PlannedCell] = {}

    @property
    def name(self) -> str:
        """Of its files, without suffix; what is changed with ``--set`` or ``--seed`` is in it as 8 hex digits."""
        grid = self.grid
        parts = [f"{'table' if grid.table.isdigit() else ''}{grid.table}", grid.preset]
        store = grid.store.replace(":", "-")
        parts += [part for part, usual in ((grid.protocol, "common"), (store, "float32")) if part != usual]
        if grid.held_out:
            parts.append(f"held-out-{grid.held_out:g}")
        if grid.overrides or grid.seed:
            parts.append(key_of({"overrides": dict(grid.overrides), "seed": grid.seed})[:8])
        return "-".join(parts)

    @property
    def caption(self) -> Caption:
        """What holds for all of it."""
        grid = self.grid
        flags = [f"--set {' '.join(f'{key}={value}' for key, value in grid.overrides.items())}"]
        flags = flags * bool(grid.overrides) + [f"--seed {grid.seed}"] * bool(grid.seed)
        flags += [f"--held-out {grid.held_out:g}"] * bool(grid.held_out)
        return Caption(
            grid.table, grid.preset, grid.protocol, PROTOCOLS[grid.protocol], grid.store, changed=" ".join(flags)
        )

    def lines(self, contents: Contents) -> list[TableRow]:
        """The rows of all its cells, in the paper's order; what the paper does not print comes last."""
        order = {cell: place for place, cell in enumerate(self._layout)}
        beside = lines_of(self._beside(contents), contents, all_draws=True)
        lines = [*lines_of(self.planned, contents), *(line for line in beside if line.done)]
        return sorted(lines, key=lambda line: order.get(line.cell, len(order)))

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
        """The table's cells, then those that it has for the requested data and numbers of images."""
        grid = self.grid
        more = select(grid.table, grid.datasets, grid.images_per_class, known_datasets=tuple(DATASETS))
        return list(dict.fromkeys([*published_cells(grid.table), *more]))

    def _beside(self, contents: Contents) -> list[PlannedCell]:
        """The cells that are not requested, where the store may have results for them."""
        mine, measured = {one.cell for one in self.planned}, _measured(contents)
        changed = {key.rpartition(".")[2] for key in self.grid.overrides if not key.startswith("train.")}
        cells = [
            cell
            for cell in self._layout
            if cell not in mine
            and (self.grid.data_name(cell.dataset), cell.images_per_class) in measured
            and not changed & {name for name, _ in cell.overrides}
        ]
        if self.grid.table != SEARCH:
            return self._planned(cells, sets=1, networks=1)
        # A search plans hundreds of networks: that of one tells whether there are images to train them on.
        probed = self._planned(cells, architectures=1)
        return self._planned([one.cell for one in probed if all(spec.key in contents.sets for spec in one.specs)])

    def _planned(self, cells: Sequence[Cell], **changes: int) -> list[PlannedCell]:
        """The plan of cells that are not requested, without those that cannot be measured; each is made once."""
        key = tuple(sorted(changes.items()))
        missing = [cell for cell in cells if (key, cell) not in self._plans]
        if missing:
            # A changed setting may belong to a memory that only the requested cells have.
            mine = [one.cell for one in self.planned] if self.grid.overrides else []
            different: dict[str, Any] = dict(changes)
            for one in plan(replace(self.grid, **different), [*mine, *missing]):
                self._plans[key, one.cell] = one
        return [one for one in (self._plans[key, cell] for cell in cells) if not one.problem]


def _measured(contents: Contents) -> set[tuple[str, int | None]]:
    """Data sets and images a class that anything was measured for; None means all real images."""
    sets = {(row.dataset, row.images_per_class) for row in contents.sets.values()}
    return sets | {(row.dataset, None) for row in contents.networks.values() if row.condensed_set is None}
