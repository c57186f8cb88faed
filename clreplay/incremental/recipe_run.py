"""One recipe under one class order: a line of the picture in the making."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from clreplay.condensation.engine.finished_file import forget_finished
from clreplay.condensation.matching.encoders import UNIT as ENCODERS_UNIT
from clreplay.incremental.experiment_plan import ExperimentPlan
from clreplay.incremental.forecast import Forecast
from clreplay.incremental.run_folder import RunFolder
from clreplay.incremental.tensorboard import Board
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.memory.slot import SharedSlot, Slot
from clreplay.recipes.recipe import Recipe
from clreplay.runtime.progress import Reporter, Task, roughly
from clreplay.training.evaluate import percent_right
from clreplay.training.going_on import forget_training

TOGETHER = "s"
"""In the place of a network's number: the networks of a step, trained at once."""


class Measured(NamedTuple):
    """One network after a step.

    Attributes:
        counts: int64 (classes, classes) of the data set: test images of every class seen, by what they were taken for.
        seconds: of its training.
        parts: the same of every part of the test images, such as domains.
    """

    counts: Tensor
    seconds: float
    parts: tuple[Tensor, ...] = ()

    @classmethod
    def of_parts(cls, parts: Sequence[Tensor], seconds: float) -> Measured:
        """Of the counts of every part of the test images."""
        return cls(torch.stack(list(parts)).sum(0), seconds, tuple(parts))

    @property
    def accuracy(self) -> float:
        """Percent of the test images of all classes seen."""
        return percent_right(self.counts)


@dataclass
class RecipeRun:
    """One memory under one class order: a line of the picture in the making."""

    plan: ExperimentPlan
    recipe: Recipe
    order: int
    folder: RunFolder
    memory: ReplayMemory
    reporter: Reporter
    expected: Forecast | None = None
    board: Board | None = None

    @property
    def checkpoint(self) -> Path:
        """File of the memory."""
        return self.folder.checkpoint(self.recipe.name, self.order)

    def work_in_progress(self, step: int) -> Path:
        """File of an interrupted condensation."""
        return self.folder.work_in_progress(self.recipe.name, self.order, step)

    def training(self, step: int, network: int | str) -> Path:
        """File of a training under way."""
        return self.folder.training(self.recipe.name, self.order, step, network)

    def forget_trainings(self, step: int) -> None:
        """Remove what is kept of a step's networks, whose rows are written."""
        for network in (*range(self.plan.settings.networks), TOGETHER):
            forget_training(self.training(step, network))

    @property
    def classes(self) -> list[list[int]]:
        """Classes of every step."""
        return self.plan.classes(self.order)

    def seen(self, step: int) -> list[int]:
        """Classes of all steps up to and including ``step``."""
        return list(dict.fromkeys(label for part in self.classes[: step + 1] for label in part))

    def has(self, step: int) -> bool:
        """Whether the memory of a step is made already."""
        return self.plan.holds(self.memory, self.order, step)

    def slots(self, step: int) -> list[Slot | SharedSlot]:
        """What is stored of all classes up to and including a step."""
        return [self.memory.slots[label] for label in self.seen(step)]

    def keep(self, step: int, seconds: float) -> None:
        """Put the memory of a new step, and what it cost, in a safe place."""
        self.folder.check_there()
        self.memory.info["condense_seconds"] = [*self.memory.info["condense_seconds"][:step], seconds]
        self.memory.save(self.checkpoint)
        self.forget_finished()

    def forget_finished(self) -> None:
        """Remove what is kept of finished condensations whose memory is saved."""
        for step in range(self.plan.settings.steps):
            if self.has(step):
                forget_finished(self.work_in_progress(step))

    @contextmanager
    def condensing(self, step: int) -> Iterator[Task]:
        """Progress of condensing a step; its first iterations correct the estimate of the whole run's time."""

        def correct(done: int, total: int, unit: str, seconds: float) -> None:
            steps, name = sum(self.plan.sizes) / len(self.classes[step]), self.recipe.name
            if unit == ENCODERS_UNIT or self.expected is None:
                return
            if self.expected.correct(name, steps, done, total, seconds):
                self.reporter.line(
                    f"  time      {roughly(self.expected.total)} in all, corrected after {done} of {total} iterations"
                )

        board = self.board if not self.has(step) else None
        if board is not None:
            board.begin_condensing(step)
        try:
            on_row = None if board is None else board.row
            with self.reporter.task(f"{self.title(step)}, condensing", correct, on_row) as task:
                yield task
        finally:
            if board is not None:
                board.end_condensing(step, self.has(step))

    def title(self, step: int) -> str:
        """How progress calls a step."""
        order = f" order {self.order}," if self.plan.settings.class_orders > 1 else ""
        return f"{self.recipe.label},{order} step {step + 1}/{self.plan.settings.steps}"
