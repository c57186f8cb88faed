"""Measuring what is missing of a plan: block by block of cells, as many units at a time as the executor takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from clreplay.benchmark.executors import Executor, Outcome, Task
from clreplay.benchmark.planned import PlannedCell
from clreplay.benchmark.results import TableRow, lines_of
from clreplay.benchmark.sets import Place
from clreplay.benchmark.shards import even_parts, shards_of
from clreplay.benchmark.store import OtherDataError, Store
from clreplay.benchmark.units import NetworksUnit, SetUnit, Unit
from clreplay.runtime.progress import Reporter

STAGES = {
    "choice_units": "measuring what is fastest",
    "set_units": "condensing",
    "network_units": "training",
}
"""The order of the work: sets need the choice of their execution, networks need the set they are trained on."""


@dataclass
class Tally:
    """What a run has done: units finished and failed, keys left to other processes, failures reported."""

    finished: int = 0
    failed: int = 0
    elsewhere: set[str] = field(default_factory=set)
    reported: set[str] = field(default_factory=set)


class BenchmarkRun:
    """A run over a plan. Results are written here only, not where units run.

    Args:
        planned: the cells.
        store: results are added to it as soon as they are there.
        executor: runs units.
        place: where they run.
        reporter: prints what comes out.
        shards: number of shards of every set that can be condensed class by class; None keeps all jobs busy.
    """

    def __init__(
        self,
        planned: Sequence[PlannedCell],
        store: Store,
        executor: Executor,
        place: Place,
        reporter: Reporter,
        shards: int | None = None,
    ) -> None:
        if shards is not None and shards < 1:
            raise ValueError(f"shards must be at least 1, got {shards}")
        self.planned, self.store, self.executor = planned, store, executor
        self.place, self.reporter, self.shards, self.tally = place, reporter, shards, Tally()
        self.device_type = torch.device(place.device).type

    def run(self) -> Iterator[list[TableRow]]:
        """Measure block after block; yields the table's rows of each when all of its units were tried."""
        self._forget_stored()
        for block in self._blocks():
            for stage in STAGES:
                self._stage(block, stage)
            if self.store.path.exists():
                self.store.describe({one.settings_key: one.settings for one in block if not one.problem})
            yield lines_of(block, self.store.read())

    def _blocks(self) -> Iterator[list[PlannedCell]]:
        """Cells in the order of the table, enough of them together that every job has something to do."""
        block: list[PlannedCell] = []
        width = 1 if self.executor.jobs == 1 else 4 * self.executor.jobs
        for one in self.planned:
            if one.problem:
                yield [one]
                continue
            block.append(one)
            if sum(len(p.trained) + len(p.real) for p in block) >= width:
                yield block
                block = []
        if block:
            yield block

    def _stage(self, block: Sequence[PlannedCell], stage: str) -> None:
        contents = self.store.read()
        found: dict[tuple[str, ...], Unit] = {}
        for planned in block:
            for unit in getattr(planned, stage)(contents, self.device_type):
                found.setdefault(unit.keys, unit)
        units: Sequence[Unit] = list(found.values())
        if stage == "set_units":
            units = shards_of([one for one in units if isinstance(one, SetUnit)], self.executor.jobs, self.shards)
        elif stage == "network_units":
            units = _spread([one for one in units if isinstance(one, NetworksUnit)], self.executor.jobs)
        # One job shows the progress of its unit; for several jobs the finished units are counted.
        several = self.executor.jobs > 1 and len(units) > 1
        with self.reporter.task(STAGES[stage]) if several else nullcontext() as tell:
            for done, outcome in enumerate(self.executor.run(self._tasks(units)), 1):
                self._take(outcome)
                if tell is not None:
                    tell(done, len(units), "units")

    def _tasks(self, units: Sequence[Unit]) -> Iterator[Task]:
        """Tasks as there is room for them; what another process has finished meanwhile is left out."""
        for unit in units:
            if (left := unit.left(self.store)) is not None:
                yield Task(left, self.place, None if left.needs is None else self.store.images(left.needs))

    def _forget(self, unit: Unit) -> None:
        if self.place.work is not None:
            with suppress(OSError):  # it only takes room
                unit.forget(Path(self.place.work))

    def _forget_stored(self) -> None:
        """The same of processes that were killed just after they had stored what they finished."""
        if self.place.work is None:
            return
        work = Path(self.place.work)
        for path in (*work.glob("*.progress.finished"), *work.glob("*.training*")):
            if self.store.has([path.name.split(".")[0].split("-")[0]]):  # a part of a set is named after it
                with suppress(OSError):
                    path.unlink()

    def _take(self, outcome: Outcome) -> None:
        unit = outcome.unit
        if outcome.elsewhere:
            self.tally.elsewhere.update(unit.keys)
            return
        reason = outcome.reason
        if outcome.finished is not None:
            try:
                self.store.add(outcome.finished)
                self._forget(unit)
                self.tally.finished += 1
                return
            except OtherDataError as error:  # a file that cannot be written ends the run: the rest is lost too
                reason = str(error)
        self.tally.failed += 1
        self.store.fail(unit.kind, unit.identities, reason, outcome.attempts)
        line = f"  failed: {unit.summary()}: {reason}"
        if line not in self.tally.reported:  # five sets that fail alike are one line
            self.tally.reported.add(line)
            self.reporter.line(line)


def _spread(units: Sequence[NetworksUnit], jobs: int) -> list[NetworksUnit]:
    """Units of fewer networks, where some jobs would be idle: each network is keyed by itself."""
    parts = even_parts(len(units), jobs)
    return [
        replace(unit, draws=unit.draws[start : start + together])
        for unit in units
        for together in (math.ceil(len(unit.draws) / parts),)
        for start in range(0, len(unit.draws), together)
    ]
