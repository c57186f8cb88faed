"""Measure what is missing of a plan: cell by cell, as many units at a time as the executor takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch

from clreplay.benchmark.executors import Executor, Outcome, Task
from clreplay.benchmark.planned import PlannedCell
from clreplay.benchmark.results import TableRow, lines_of
from clreplay.benchmark.sets import Place, SetSpec
from clreplay.benchmark.shards import ShardUnit, even_parts, joined, shards_of
from clreplay.benchmark.store import Contents, Finished, OtherDataError, Store
from clreplay.benchmark.units import NetworksUnit, Unit
from clreplay.runtime.progress import Reporter

STAGES = {
    "choice_units": "measuring what is fastest",
    "set_units": "condensing",
    "network_units": "training",
}
"""In this order: a choice is what sets are condensed with, a set is what networks are trained on."""


@dataclass
class Tally:
    """What a run has done."""

    finished: int = 0
    failed: int = 0
    elsewhere: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)


class BenchmarkRun:
    """A run over a plan; only here are results written.

    Args:
        planned: the cells.
        store: takes what is finished, at once.
        executor: runs units.
        place: where they run.
        reporter: is told what comes out.
        shards: of every set that can be condensed class by class; None makes as many as keep all jobs busy.
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
        """Block by block, the lines of its cells once they are as complete as they get."""
        for block in self._blocks():
            for stage in STAGES:
                self._stage(block, stage)
            if self.store.path.exists():
                self.store.describe({one.settings_key: one.settings for one in block if not one.problem})
            yield lines_of(block, self.store.read(), self.device_type)

    def _blocks(self) -> Iterator[list[PlannedCell]]:
        """Cells in the order of the table; so many together that every job has something to do."""
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
        units = list(found.values())
        if stage == "set_units":  # a run may have been stopped when the last shard was there and the row was not
            units = [unit for unit in units if not self._join(unit.spec, contents)]
            units = shards_of(units, contents, self.executor.jobs, self.shards)
        elif stage == "network_units":
            units = _spread(units, self.executor.jobs)
        # One job tells of its unit as it goes on; of several, what is finished is counted.
        several = self.executor.jobs > 1 and len(units) > 1
        with self.reporter.task(STAGES[stage]) if several else nullcontext() as tell:
            for done, outcome in enumerate(self.executor.run(self._tasks(units)), 1):
                self._take(outcome)
                if tell is not None:
                    tell(done, len(units), "units")

    def _tasks(self, units: Sequence[Unit]) -> Iterator[Task]:
        """Tasks as there is room for them; what somebody else has finished meanwhile is left out."""
        for unit in units:
            if not self.store.has(unit.keys):
                yield Task(unit, self.place, None if unit.needs is None else self.store.images(unit.needs))

    def _join(self, spec: SetSpec, contents: Contents) -> bool:
        """Whether a set is finished now, since all of its shards are."""
        row = joined(spec, contents)
        if row is None:
            return False
        self.store.add(Finished(spec.dataset, self.store.fingerprint(spec.dataset), (row,)))
        return True

    def _take(self, outcome: Outcome) -> None:
        unit = outcome.unit
        if outcome.elsewhere:
            self.tally.elsewhere.update(unit.keys)
            return
        reason = outcome.reason
        if outcome.finished is not None:
            try:
                self.store.add(outcome.finished)
                self.tally.finished += 1
                if isinstance(unit, ShardUnit):
                    self._join(unit.spec, self.store.read())
                return
            except OtherDataError as error:  # a file that cannot be written ends the run: the rest is lost too
                reason = str(error)
        self.tally.failed += 1
        self.store.fail(unit.kind, unit.failing, reason, outcome.attempts)
        told = f"  failed: {unit.summary()}: {reason}"
        if told not in self.tally.told:  # five sets that fail alike are one line
            self.tally.told.add(told)
            self.reporter.line(told)


def _spread(units: Sequence[NetworksUnit], jobs: int) -> list[NetworksUnit]:
    """Units of fewer networks, where some jobs would be idle: each network is keyed by itself."""
    parts = even_parts(len(units), jobs)
    return [
        replace(unit, draws=unit.draws[start : start + together])
        for unit in units
        for together in (math.ceil(len(unit.draws) / parts),)
        for start in range(0, len(unit.draws), together)
    ]
