"""The class-incremental experiment: classes arrive in steps, a small memory is filled, networks are trained on it.

Protocol (DM's class-incremental script, which the DDM paper follows): at every step the memory of the new
classes is made from their data alone; old classes stay; networks with an output for every class are trained
from scratch on the memory, and tested on the test images of all classes seen so far, without masking.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clreplay.incremental.core_host import core_steps
from clreplay.incremental.forecast import Forecast
from clreplay.incremental.plan import ExperimentPlan, default_folder, plan_experiment
from clreplay.incremental.recipe_run import RecipeRun
from clreplay.incremental.report import (
    accuracy_picture,
    announce,
    memory_picture,
    print_summary,
    save_memories,
    spread_text,
)
from clreplay.incremental.run_folder import RunFolder
from clreplay.incremental.settings import ContinualSettings
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.recipes.recipe import Recipe
from clreplay.runtime.device import device_name
from clreplay.runtime.progress import Reporter, duration, size
from clreplay.runtime.provenance import provenance


def run_experiment(
    settings: ContinualSettings, out: str | Path | None = None, reporter: Reporter | None = None, command: str = ""
) -> Path:
    """Run an experiment, or go on with it after its last finished step.

    Args:
        settings: what to do.
        out: the run's folder; None takes :func:`default_folder`.
        reporter: prints progress.
        command: the command line, recorded in ``settings.yaml``.

    Returns:
        the run's folder with settings.yaml, results.csv, accuracy.png, memory.png and the memories.

    Raises:
        ValueError, FileNotFoundError: as :func:`plan_experiment`; or the folder holds another run.
    """
    reporter = reporter or Reporter()
    plan = plan_experiment(settings)
    folder = RunFolder(default_folder(plan) if out is None else out)
    name = device_name(plan.device, threads=True)
    recorded = {**plan.as_settings(), **provenance(name), "created": time.strftime("%Y-%m-%d")}
    resumed = folder.open({**recorded, **({"command": command} if command else {})})
    before = folder.chosen()
    fixed = plan.with_execution(before or {})
    if before is None:
        folder.choose(plan.chosen(fixed))
    plan = fixed
    expected = announce(plan, folder, resumed, name, reporter)
    for order in range(plan.settings.class_orders):
        for recipe in plan.recipes:
            _run_line(plan, recipe, order, folder, reporter, expected)
    memory_picture(plan, folder, save_memories(plan, folder))
    accuracy_picture(plan, folder)
    print_summary(plan, folder, reporter)
    return folder.path


def _run_line(
    plan: ExperimentPlan, recipe: Recipe, order: int, folder: RunFolder, reporter: Reporter, expected: Forecast | None
) -> None:
    first = _finished_steps(folder, recipe.name, order, plan.settings.networks)
    if first == plan.settings.steps:
        return
    recipe_run = RecipeRun(
        plan, recipe, order, folder, _memory_of(plan, recipe, order, folder, first), reporter, expected
    )
    steps = _host_of(plan)
    for step, measured in enumerate(steps(recipe_run, first), start=first):
        rows = _rows(recipe_run, step, measured)
        folder.append(rows)
        accuracy_picture(plan, folder)
        values = np.array([row["accuracy"] for row in rows])
        condensed = recipe_run.memory.info["condense_seconds"][step]
        decoded = len(recipe_run.memory.labels)
        more = f" (decoded to {decoded})" if decoded != rows[0]["memory_images"] else ""
        reporter.line(
            f"{recipe_run.title(step):<28} {len(recipe_run.seen(step)):>4} classes  "
            f"{values.mean():5.1f} %{spread_text(values):<22}  "
            f"memory {rows[0]['memory_images']} images{more}, {size(rows[0]['memory_bytes'])}; "
            f"made in {duration(condensed)}, trained in {duration(sum(s for _, s in measured))}"
        )


def _host_of(plan: ExperimentPlan) -> Callable[[RecipeRun, int], Iterator[list[tuple[float, float]]]]:
    if plan.settings.host == "none":
        return core_steps
    from clreplay.incremental.avalanche_host import avalanche_steps  # Avalanche takes seconds to import

    return avalanche_steps


def _rows(recipe_run: RecipeRun, step: int, measured: Sequence[tuple[float, float]]) -> list[dict[str, Any]]:
    common = {
        "memory": recipe_run.recipe.name,
        "dataset": recipe_run.plan.settings.dataset,
        "class_order": recipe_run.order,
        "step": step,
        "classes_seen": len(recipe_run.seen(step)),
        "memory_images": len(recipe_run.memory),
        "memory_bytes": recipe_run.memory.memory_bytes,
        "condense_seconds": float(recipe_run.memory.info["condense_seconds"][step]),
    }
    return [
        {**common, "network": number, "accuracy": value, "train_seconds": seconds}
        for number, (value, seconds) in enumerate(measured)
    ]


def _finished_steps(folder: RunFolder, memory: str, order: int, networks: int) -> int:
    rows = folder.rows()
    steps = rows[(rows.memory == memory) & (rows.class_order == order)].groupby("step").size()
    return int((steps == networks).sum())


def _memory_of(plan: ExperimentPlan, recipe: Recipe, order: int, folder: RunFolder, finished: int) -> ReplayMemory:
    """The memory as the last step left it, or a new one."""
    path = folder.checkpoint(recipe.name, order)
    if path.is_file():
        return ReplayMemory.load(path, dataset=plan.data.name)
    if finished:
        raise FileNotFoundError(f"{folder.results_file} has finished steps but {path} is gone; use a new --out")
    memory = plan.settings.memory(plan.data.normalization, plan.data.num_classes)
    memory.info = {"dataset": plan.data.name, "method": recipe.name, "class_order": order, "condense_seconds": []}
    return memory
