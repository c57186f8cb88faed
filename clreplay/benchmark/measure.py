"""Measure what is missing of a plan: cell by cell, as many units at a time as the executor takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from clreplay.benchmark.executors import Executor, Outcome, Task
from clreplay.benchmark.grid import Planned
from clreplay.benchmark.results import Line, lines_of
from clreplay.benchmark.specs import Place
from clreplay.benchmark.store import Contents, Store, StoreError
from clreplay.benchmark.units import Unit
from clreplay.reporting import Reporter

STAGES = ("choice_units", "set_units", "network_units")
"""In this order: a choice is what sets are condensed with, a set is what networks are trained on."""


@dataclass
class Tally:
    """What a run has done."""

    finished: int = 0
    failed: int = 0
    elsewhere: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)


class Measuring:
    """A run over a plan; only here are results written.

    Args:
        planned: the cells.
        store: takes what is finished, at once.
        executor: runs units.
        place: where they run.
        reporter: is told what comes out.
    """

    def __init__(
        self, planned: Sequence[Planned], store: Store, executor: Executor, place: Place, reporter: Reporter
    ) -> None:
        self.planned, self.store, self.executor = planned, store, executor
        self.place, self.reporter, self.tally = place, reporter, Tally()
        self.device_type = torch.device(place.device).type

    def run(self) -> Iterator[list[Line]]:
        """Block by block, the lines of its cells once they are as complete as they get."""
        for block in self._blocks():
            for stage in STAGES:
                self._stage(block, stage)
            yield lines_of(block, self.store.read(), self.device_type)

    def _blocks(self) -> Iterator[list[Planned]]:
        """Cells in the order of the table; so many together that every job has something to do."""
        block: list[Planned] = []
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

    def _stage(self, block: Sequence[Planned], stage: str) -> None:
        contents = self.store.read()
        units: dict[tuple[str, ...], Unit] = {}
        for planned in block:
            for unit in getattr(planned, stage)(contents, self.device_type):
                units.setdefault(unit.keys, unit)
        for outcome in self.executor.run(self._tasks(list(units.values()), contents)):
            self._take(outcome)

    def _tasks(self, units: Sequence[Unit], contents: Contents) -> Iterator[Task]:
        """Tasks as there is room for them; what somebody else has finished meanwhile is left out."""
        gpus = torch.cuda.device_count() if self.place.device == "cuda" and self.executor.jobs > 1 else 0
        for number, unit in enumerate(units):
            if self.store.has(unit.keys):
                continue
            place = replace(self.place, device=f"cuda:{number % gpus}") if gpus > 1 else self.place
            yield Task(unit, place, None if unit.needs is None else self.store.images(unit.needs))

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
                return
            except StoreError as error:
                reason = str(error)
        self.tally.failed += 1
        self.store.fail(unit.kind, unit.identities, reason, outcome.attempts)
        told = f"  failed: {unit.described()}: {reason}"
        if told not in self.tally.told:  # five sets that fail alike are one line
            self.tally.told.add(told)
            self.reporter.line(told)
