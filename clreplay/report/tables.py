"""The numbers of a report: final accuracies beside published ones, what runs differ in, and what to be wary of."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import torch

from clreplay.memory.replay_memory import ReplayMemory
from clreplay.report.reported import Reported

PAPER = {"training.width": 128, "training.epochs": 1000, "training.updates": None, "class_orders": 5, "networks": 3}
"""What the published class-incremental numbers were measured with, where runs here may differ."""
NAMES = {
    "training.width": "learner of width",
    "training.epochs": "epochs",
    "training.updates": "updates",
    "class_orders": "class orders",
    "networks": "networks",
    "iterations": "iterations",
    "width": "condensing width",
}


class Line(NamedTuple):
    """A memory after the last step.

    Attributes:
        memory: its name in the run.
        label: what it is called.
        step, steps: the last that is measured, counted from 1, of so many.
        accuracy, std, networks: percent of all classes seen; population standard deviation over orders and networks.
        images, bytes: that are stored.
        condense_seconds: of all steps, mean over class orders.
        train_seconds: of all steps, mean over networks.
        published, source: percent, where there is a number of the same data, steps and images a class.
        differences: from the settings behind it.
    """

    memory: str
    label: str
    step: int
    steps: int
    accuracy: float
    std: float
    networks: int
    images: int
    bytes: int
    condense_seconds: float
    train_seconds: float
    published: float | None
    source: str
    differences: tuple[str, ...]


def published_numbers() -> list[dict[str, str]]:
    """Rows of the class-incremental numbers of papers."""
    text = resources.files("clreplay.report").joinpath("published/fig3b.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def final_lines(run: Reported, called: str = "") -> list[Line]:
    """Every memory of a run, the best first.

    Args:
        run: which.
        called: the run's name behind a memory's, where there are several.
    """
    found = []
    for memory in run.settings["memories"]:
        rows = run.results[run.results["memory"] == memory]
        if not len(rows):
            continue
        last = rows[rows["step"] == rows["step"].max()]
        number = _published(run, memory)
        found.append(
            Line(
                memory,
                f"{run.label(memory)}{called}",
                int(last["step"].iloc[0]) + 1,
                run.steps,
                float(last["accuracy"].mean()),
                float(last["accuracy"].std(ddof=0)),
                len(last),
                int(last["memory_images"].iloc[0]),
                int(last["memory_bytes"].iloc[0]),
                float(
                    rows.drop_duplicates(["class_order", "step"])
                    .groupby("class_order")["condense_seconds"]
                    .sum()
                    .mean()
                ),
                float(rows.groupby(["class_order", "network"])["train_seconds"].sum().mean()),
                None if number is None else float(number["accuracy"]),
                "" if number is None else number["source"],
                () if number is None else tuple(differences_from_the_paper(run, memory)),
            )
        )
    return sorted(found, key=lambda line: -line.accuracy)


def _published(run: Reported, memory: str) -> dict[str, str] | None:
    base = {"ddm-paper": "ddm"}.get(memory, memory)
    where = (run.settings["dataset"], str(run.settings["steps"]), str(run.settings.get("images_per_class")), base)
    for row in published_numbers():
        if (row["dataset"], row["steps"], row["images_per_class"], row["memory"]) == where:
            return row
    return None


def differences_from_the_paper(run: Reported, memory: str) -> list[str]:
    """In what a run is not what the published number was measured with; nothing that is not known is said."""
    found = []
    for name, wanted in PAPER.items():
        value = _at(run.settings, name)
        if value != wanted and not (name == "training.epochs" and _at(run.settings, "training.updates")):
            found.append(f"{NAMES[name]} {value}" + (f", theirs {wanted}" if wanted is not None else ""))
    own = run.settings["memories"].get(memory) or {}
    settings = own.get("settings", {}) if isinstance(own, Mapping) else {}
    for name, wanted in (("iterations", 20_000), ("width", 128)):
        if name in settings and settings[name] != wanted:
            found.append(f"{NAMES[name]} {settings[name]:,}, theirs {wanted:,}")
    return found


def _at(settings: Mapping[str, Any], name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def settings_that_differ(runs: Sequence[Reported]) -> list[tuple[str, list[str]]]:
    """Names of settings that are not the same in all runs, with their values; not what only tells where and when."""
    skipped = ("memories", "command", "created", "chosen", "class_names", "data_fingerprint")
    flat = [_flat({k: v for k, v in run.settings.items() if k not in skipped}) for run in runs]
    names = dict.fromkeys(name for one in flat for name in one)
    found = [(name, [str(one.get(name, "not set")) for one in flat]) for name in names]
    return [(name, values) for name, values in found if len(set(values)) > 1]


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= _flat(value, f"{above}{name}.") if isinstance(value, Mapping) else {f"{above}{name}": value}
    return found


def warnings(run: Reported) -> list[str]:
    """What a reader must know before believing the numbers, a sentence each."""
    found = []
    notes = {
        "smoke": "The smoke preset only shows that everything works: its accuracies mean nothing.",
        "cpu": "The cpu preset has narrow networks and short runs: these are not the paper's accuracies.",
    }
    if (preset := run.settings.get("preset")) in notes:
        found.append(notes[preset])
    if not run.finished:
        found.append("The run has not finished: what is not measured yet is missing.")
    networks = run.results.groupby(["memory", "step"]).size().max()
    if networks == 1:
        found.append("One network a step: there is no spread, and differences of a point or two mean nothing.")
    chance = 100 / run.outputs
    last = run.results[run.results["step"] == run.results["step"].max()]
    for memory, rows in last.groupby("memory"):
        low = rows[rows["accuracy"] < 1.5 * chance]
        if len(low):
            found.append(
                f"{run.label(str(memory))}: {len(low)} of {len(rows)} networks end at chance ({chance:.1f} %): "
                "training collapsed; look at the learner's rate and batch."
            )
    for name, memory in run.memories.items():
        outside = share_outside(memory)
        if outside > 0.05:
            found.append(
                f"{run.label(name)}: {100 * outside:.0f} % of the pixels lie outside the range of pictures; they are "
                "clipped here, and not where networks are trained on them."
            )
    if str(run.settings.get("commit", "")).endswith("+"):
        found.append("The code had changes that no commit holds: nobody else can repeat this run exactly.")
    return found


def share_outside(memory: ReplayMemory) -> float:
    """Share of a memory's pixels below 0 or above 1, before they are clipped for pictures."""
    if memory.normalization is None or not len(memory):
        return 0.0
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (memory.normalization.mean, memory.normalization.std)
    )
    pixels = memory.images * std + mean
    half = 0.5 / 255  # what rounding to codes moves
    return float(((pixels < -half) | (pixels > 1 + half)).float().mean())
