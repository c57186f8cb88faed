"""Accuracy over bytes and over updates of the learner: one run of the experiment a point, rows of all in one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from clreplay.incremental.plan import plan_experiment
from clreplay.incremental.run import run_planned
from clreplay.incremental.run_folder import RunFolder, read_settings
from clreplay.incremental.settings import ContinualSettings
from clreplay.memory.budget import TooFewBytes
from clreplay.memory.kept import Kept
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.runtime.files import write_text
from clreplay.runtime.progress import Reporter

COLUMNS = (
    "dataset",
    "steps",
    "memory",
    "kept",
    "budget_bytes",
    "bytes",
    "images",
    "images_trained_on",
    "updates",
    "protocol",
    "network",
    "width",
    "draw",
    "accuracy",
    "condense_seconds",
    "train_seconds",
    "preset",
    "device",
    "commit",
    "versions",
)
"""One row a network of a finished point, after the last step; accuracy in percent of all test images."""


@dataclass(frozen=True)
class Point:
    """One memory, kept in one way within a number of bytes, and a learner of one length."""

    memory: str
    kept: Kept
    mem_bytes: int
    updates: int

    @property
    def folder(self) -> str:
        """Name of its run's folder."""
        memory = Path(self.memory).stem if self.memory.endswith((".yaml", ".yml")) else self.memory
        return f"{memory}-{str(self.kept).replace(':', '-')}-{self.mem_bytes}-bytes-{self.updates}-updates"

    def __str__(self) -> str:
        return f"{self.memory} kept as {self.kept} in {self.mem_bytes:,} bytes, {self.updates:,} updates"


def points(
    memories: Sequence[str], kept: Sequence[Kept], mem_bytes: Sequence[int], updates: Sequence[int]
) -> list[Point]:
    """All of them, the shortest trainings first."""
    return [Point(*each) for u in sorted(updates) for each in product(memories, kept, sorted(mem_bytes), (u,))]


def settings_of(point: Point, common: ContinualSettings) -> ContinualSettings:
    """The experiment of a point.

    Args:
        point: which.
        common: what all points share: data set, steps, networks, preset, protocol, single settings of the learner.
    """
    return replace(
        common,
        memories=(point.memory,),
        images_per_class=None,
        mem_bytes=point.mem_bytes,
        store=point.kept.store,
        quality=point.kept.quality,
        pixels=point.kept.pixels,
        class_orders=1,
        overrides={**common.overrides, "train.updates": point.updates},
    )


def measure(
    wanted: Iterable[Point], common: ContinualSettings, out: Path, reporter: Reporter, command: str = ""
) -> pd.DataFrame:
    """Run what is not finished, a folder a point, and write ``rows.csv`` after each.

    A point that cannot be, such as a budget of less than an image a class, is told and left out.

    Args:
        wanted: the points.
        common: see :func:`settings_of`.
        out: folder of all.
        reporter: prints progress.
        command: the command line, recorded with every run.

    Returns:
        the rows of all finished points that are in the folder.
    """
    for point in wanted:
        try:
            plan = plan_experiment(settings_of(point, common))
        except ValueError as error:
            reporter.line(f"left out: {point}: {error}")
            continue
        reporter.line(f"{point}:")
        try:
            run_planned(plan, out / "runs" / point.folder, reporter, command)
        except TooFewBytes as error:  # of a class whose images code worse than those the plan was made by
            reporter.line(f"left out: {point}: {error}")
            continue
        write_text(out / "rows.csv", finished(out).to_csv(index=False))
    return finished(out)


def finished(out: Path) -> pd.DataFrame:
    """Rows of all finished points of a folder, see :data:`COLUMNS`."""
    rows = [row for folder in sorted((out / "runs").glob("*")) for row in _rows(folder)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(path: Path) -> list[dict[str, Any]]:
    """Of one point; none if it is not finished."""
    folder = RunFolder(path)
    if not folder.settings_file.is_file():
        return []
    settings = read_settings(path)
    results = folder.rows()
    last = results[results.step == settings["steps"] - 1]
    memories = sorted(path.glob("memory*.safetensors"))
    if len(last) < settings["networks"] or len(memories) != 1:
        return []
    memory = ReplayMemory.load(memories[0])
    (name,) = settings["memories"]
    common = {
        "dataset": settings["dataset"],
        "steps": settings["steps"],
        "memory": name,
        "kept": str(Kept(settings["store"], settings.get("quality"), settings.get("pixels"))),
        "budget_bytes": settings["mem_bytes"],
        "bytes": memory.memory_bytes,
        "images": len(memory),
        "images_trained_on": len(memory.labels),
        "updates": settings["training"]["updates"],
        "protocol": settings.get("protocol", "common"),
        "network": settings["training"]["network"],
        "width": settings["training"]["width"],
        "condense_seconds": round(float(results.drop_duplicates("step").condense_seconds.sum()), 1),
        "preset": settings["preset"],
        "device": settings.get("device_name", settings["device"]),
        "commit": settings.get("commit", "unknown"),
        "versions": _versions(settings.get("versions", {})),
    }
    return [
        {**common, "draw": int(row.network), "accuracy": row.accuracy, "train_seconds": round(row.train_seconds, 1)}
        for row in last.itertuples()
    ]


def _versions(versions: Mapping[str, Any]) -> str:
    return " ".join(f"{name} {version}" for name, version in versions.items() if name in ("python", "torch"))
