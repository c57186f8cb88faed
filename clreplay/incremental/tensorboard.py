"""A run in TensorBoard: losses while they come, accuracy and bytes step by step, the memory in pictures.

One folder of event files is one curve in TensorBoard, and a reader follows only the newest file of a folder, so a line
(a memory under a class order) has several: ``LINE`` with a point a step, ``LINE/step-N`` with the losses of condensing
step N, ``LINE/memory`` with a picture a step. What a run that goes on would write twice is written anew instead, from
``results.csv`` and the record, so that no point is there twice, whenever the run was stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from clreplay.memory.replay_memory import ReplayMemory
from clreplay.runtime.progress import Row, loss_terms


class Line(Protocol):
    """What is asked of a line, a :class:`~clreplay.incremental.recipe_run.RecipeRun`, which knows its board."""

    memory: ReplayMemory
    board: Board | None

    @property
    def classes(self) -> list[list[int]]:
        """Classes of every step."""
        ...

    def has(self, step: int) -> bool:
        """Whether the memory of a step is made already."""
        ...

    def seen(self, step: int) -> list[int]:
        """Classes of all steps up to and including ``step``."""
        ...


FOLDER = "tensorboard"
"""Within the run's folder."""
FLUSH = 10
"""Seconds after which a point is in its file."""
ROWS, COLUMNS = 20, 10
"""Classes and images a class of a picture, at most."""


def check_tensorboard() -> Any:
    """The writer of event files.

    Raises:
        ValueError: a package is missing.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            f"--tensorboard needs the package tensorboard ({error}): pip install 'clreplay[tensorboard]'"
        ) from error
    return SummaryWriter


class Board:
    """Event files of one line of a run.

    Args:
        folder: the line's.

    Raises:
        ValueError: see :func:`check_tensorboard`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.make = folder, check_tensorboard()
        self.curves: Any = None
        self.losses: Any = None
        self.place = folder
        self.complete: set[int] = set()  # steps whose losses were all written by this process

    @contextmanager
    def of(self, line: Line, rows: Sequence[Mapping[str, Any]]) -> Iterator[None]:
        """Open for a line; points of its finished steps are written anew.

        Args:
            line: the one whose ``board`` this becomes.
            rows: of ``results.csv``, those of the line.
        """
        _remove(self.folder)
        self.curves = self.make(str(self.folder), flush_secs=FLUSH)
        line.board = self
        try:
            for step in sorted({row["step"] for row in rows}):
                self.measured(line, step, [row for row in rows if row["step"] == step])
            yield
        finally:
            line.board = None
            self.curves.close()

    # ------------------------------------------------------------------ the losses of a step

    def begin_condensing(self, step: int) -> None:
        """A new place for the losses of a step, whose earlier rows are handed in again."""
        self.place = self.folder / f"step-{step + 1}"
        _remove(self.place)

    def row(self, row: Row) -> None:
        """The loss terms of a row of the record, and how far the images reach."""
        if self.losses is None:  # selections have no rows, and so no file
            self.losses = self.make(str(self.place), flush_secs=FLUSH)
        for name, value in loss_terms(row).items():
            self.losses.add_scalar(f"loss/{name}", value, row["iteration"])
        for name, value in row.items():
            if name.startswith("image_"):
                self.losses.add_scalar(f"images/{name.removeprefix('image_')}", value, row["iteration"])

    def end_condensing(self, step: int, whole: bool) -> None:
        """Close the file.

        Args:
            step: the one that was begun.
            whole: whether the step was condensed to its end.
        """
        if self.losses is not None:
            self.losses.close()
            self.losses = None
        if whole:
            self.complete.add(step)

    # ------------------------------------------------------------------ a finished step

    def measured(self, line: Line, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """A point of a step on every curve, the memory's picture, and losses that are not there yet."""
        accuracies = np.array([float(row["accuracy"]) for row in rows])
        points = {
            "accuracy/mean": accuracies.mean(),
            "memory/bytes": rows[0]["memory_bytes"],
            "memory/images": rows[0]["memory_images"],
            "classes seen": rows[0]["classes_seen"],
            "seconds/condensing": rows[0]["condense_seconds"],
            "seconds/training": np.mean([float(row["train_seconds"]) for row in rows]),
        }
        points.update({f"accuracy/network {row['network'] + 1}": row["accuracy"] for row in rows})
        for name, value in points.items():
            self.curves.add_scalar(name, float(value), step + 1)
        self.curves.flush()
        self._losses_of(line, step)
        self._picture(line, step)

    def _losses_of(self, line: Line, step: int) -> None:
        """The losses of a step from the record, if this process has not written them as they came."""
        rows = [row for row in line.memory.record if row["experience"] == step and "image_std" in row]
        if not rows or step in self.complete:
            return
        self.begin_condensing(step)
        for row in rows:
            self.row(row)
        self.end_condensing(step, whole=True)

    def _picture(self, line: Line, step: int) -> None:
        """The memory as it was after a step, unless a later step has changed it: what was drawn of it stays."""
        seen, memory = line.seen(step), line.memory
        fixed = memory.budget.images_per_class or memory.budget.bytes_per_class
        later = [other for other in range(step + 1, len(line.classes)) if line.has(other)]
        if later and (not fixed or any(set(line.classes[other]) & set(seen) for other in later)):
            return
        folder, suffix = self.folder / "memory", f".step-{step + 1}"
        _remove(folder, suffix)
        writer = self.make(str(folder), filename_suffix=suffix)
        writer.add_image("memory", picture(memory, seen), step + 1)
        writer.close()


def _remove(folder: Path, suffix: str = "") -> None:
    """Remove the event files of a folder, whose points are written anew."""
    for old in folder.glob(f"events.out.tfevents.*{suffix}"):
        old.unlink()


def picture(memory: ReplayMemory, labels: Iterable[int], rows: int = ROWS, columns: int = COLUMNS) -> torch.Tensor:
    """Images of a memory, a row a class, clipped to the range of pixels for the picture only.

    Args:
        memory: what is stored.
        labels: classes; of more than ``rows``, evenly spaced ones in the order of their labels.
        rows: classes at most.
        columns: images of a class at most.

    Returns:
        (c, height, width) in [0, 1], two pixels of white between images.
    """
    from torchvision.utils import make_grid

    labels = sorted(labels)
    shown = [labels[round(i)] for i in np.linspace(0, len(labels) - 1, min(rows, len(labels)))]
    of_class = [memory.pixels(label)[:columns] for label in shown]
    wide = max(len(images) for images in of_class)
    filled = [torch.cat([images, images.new_ones((wide - len(images), *images.shape[1:]))]) for images in of_class]
    return make_grid(torch.cat(filled), nrow=wide, padding=2, pad_value=1.0)
