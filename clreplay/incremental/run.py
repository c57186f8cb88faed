"""The class-incremental experiment: classes arrive in steps, a small memory is filled, networks are trained on it.

Protocol (DM's class-incremental script, which the DDM paper follows): at every step the memory of the new
classes is made from their data alone; old classes stay; networks with an output for every class are trained
from scratch on the memory, and tested on the test images of all classes seen so far, without masking.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from clreplay.incremental.confusion_file import Tested
from clreplay.incremental.core_host import core_steps
from clreplay.incremental.domain_plan import DomainPlan
from clreplay.incremental.experiment_plan import ExperimentPlan
from clreplay.incremental.forecast import Forecast
from clreplay.incremental.plan import default_folder, plan_experiment
from clreplay.incremental.recipe_run import Measured, RecipeRun
from clreplay.incremental.report import (
    accuracy_picture,
    announce,
    memory_picture,
    print_summary,
    save_memories,
    spread_text,
)
from clreplay.incremental.report_page import leave_report
from clreplay.incremental.run_folder import RunFolder
from clreplay.incremental.settings import ContinualSettings
from clreplay.incremental.tensorboard import FOLDER, Board, check_tensorboard
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.recipes.recipe import Recipe
from clreplay.runtime.device import device_name
from clreplay.runtime.progress import Reporter, counted, duration, size
from clreplay.runtime.provenance import provenance
from clreplay.training.evaluate import percent_right


def run_experiment(
    settings: ContinualSettings,
    out: str | Path | None = None,
    reporter: Reporter | None = None,
    command: str = "",
    tensorboard: bool = False,
) -> Path:
    """Run an experiment, or go on with it after its last finished step.

    Args:
        settings: what to do.
        out: the run's folder; None takes :func:`default_folder`.
        reporter: prints progress.
        command: the command line, recorded in ``settings.yaml``.
        tensorboard: write event files for TensorBoard into the run's folder, too.

    Returns:
        the run's folder with settings.yaml, results.csv, accuracy.png, memory.png and the memories.

    Raises:
        ValueError, FileNotFoundError: as :func:`plan_experiment`; or the folder holds another run, a damaged one, or
            one that another process works on; or TensorBoard is wanted and not installed.
    """
    if tensorboard:
        check_tensorboard()
    return run_planned(plan_experiment(settings), out, reporter, command, tensorboard)


def run_planned(
    plan: ExperimentPlan,
    out: str | Path | None = None,
    reporter: Reporter | None = None,
    command: str = "",
    tensorboard: bool = False,
) -> Path:
    """:func:`run_experiment` of what is planned already."""
    if tensorboard:
        check_tensorboard()
    reporter = reporter or Reporter()
    folder = RunFolder(default_folder(plan) if out is None else out)
    try:
        with folder.locked():
            _work(plan, folder, reporter, command, tensorboard)
    finally:
        reporter.seconds_left = None
    return folder.path


def _work(plan: ExperimentPlan, folder: RunFolder, reporter: Reporter, command: str, tensorboard: bool) -> None:
    """All that is done in the folder while no other process may."""
    name = device_name(plan.device, threads=True)
    recorded = {**plan.as_settings(), **provenance(name), "created": time.strftime("%Y-%m-%d")}
    resumed = folder.open({**recorded, **({"command": command} if command else {})})
    before = folder.chosen()
    fixed = plan.with_execution(before or {})
    if before is None:
        folder.choose(plan.chosen(fixed))
    plan = fixed
    expected = announce(plan, folder, resumed, name, reporter)
    if tensorboard:
        reporter.line(f"  watch     tensorboard --logdir {folder.path / FOLDER}")
    reporter.seconds_left = None if expected is None else _countdown(expected)
    for order in range(plan.settings.class_orders):
        for recipe in plan.recipes:
            _run_line(plan, recipe, order, folder, reporter, expected, tensorboard)
    memory_picture(plan, folder, save_memories(plan, folder))
    accuracy_picture(plan, folder)
    print_summary(plan, folder, reporter)
    reporter.line(leave_report(folder, plan.data))


def _countdown(expected: Forecast) -> Callable[[], float | None]:
    """What is left of the estimate; nothing once it is used up, or where it leaves out what nobody could try."""
    start = time.monotonic()

    def left() -> float | None:
        seconds = expected.total - (time.monotonic() - start)
        return None if seconds <= 0 or set(expected.unknown) - expected.corrected else seconds

    return left


def _run_line(
    plan: ExperimentPlan,
    recipe: Recipe,
    order: int,
    folder: RunFolder,
    reporter: Reporter,
    expected: Forecast | None,
    tensorboard: bool,
) -> None:
    todo = _unfinished_steps(folder, recipe.name, order, plan.settings)
    if not todo and not tensorboard:
        return
    memory = _memory_of(plan, recipe, order, folder, len(todo) < plan.settings.steps)
    recipe_run = RecipeRun(plan, recipe, order, folder, memory, reporter, expected)
    if todo:
        _check_memory(recipe_run, todo)
        recipe_run.forget_finished()  # of a process that was killed just after it had saved the memory
    place = folder.path / FOLDER / recipe_run.checkpoint.stem
    with Board(place).of(recipe_run, _finished(recipe_run, todo)) if tensorboard else nullcontext():
        _do_steps(recipe_run, todo)


def _do_steps(recipe_run: RecipeRun, todo: Sequence[int]) -> None:
    """Condense, train and test, step by step; what is measured is written down at once."""
    if not todo:
        return
    plan, folder = recipe_run.plan, recipe_run.folder
    steps = _host_of(plan)
    for step, measured in zip(todo, steps(recipe_run, todo)):
        rows = _rows(recipe_run, step, measured)
        folder.keep_confusions(_tested(recipe_run, step, measured))  # first: a step with rows is not done again
        folder.keep_domains(_domain_rows(recipe_run, step, measured))
        folder.append(rows)
        recipe_run.forget_trainings(step)
        accuracy_picture(plan, folder)
        if recipe_run.board is not None:
            recipe_run.board.measured(recipe_run, step, rows)
        values = np.array([row["accuracy"] for row in rows])
        condensed = recipe_run.memory.info["condense_seconds"][step]
        decoded = sum(slot.decoded for slot in recipe_run.slots(step))
        more = f" (decoded to {decoded})" if decoded != rows[0]["memory_images"] else ""
        recipe_run.reporter.line(
            f"{recipe_run.title(step):<28} {_seen_text(recipe_run, step)}  "
            f"{values.mean():5.1f} %{spread_text(values):<22}  "
            f"memory {rows[0]['memory_images']} images{more}, {size(rows[0]['memory_bytes'])}; "
            f"made in {duration(condensed)}, trained in {duration(sum(one.seconds for one in measured))}"
        )


def _finished(recipe_run: RecipeRun, todo: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of the steps of a line that are not to be done again."""
    rows = recipe_run.folder.rows()
    own = rows[(rows.memory == recipe_run.recipe.name) & (rows.class_order == recipe_run.order)]
    return own[~own.step.isin(todo)].to_dict("records")


def _host_of(plan: ExperimentPlan) -> Callable[[RecipeRun, Sequence[int]], Iterator[list[Measured]]]:
    if plan.settings.host == "none":
        return core_steps
    from clreplay.incremental.avalanche_host import avalanche_steps  # Avalanche takes seconds to import

    return avalanche_steps


def _rows(recipe_run: RecipeRun, step: int, measured: Sequence[Measured]) -> list[dict[str, Any]]:
    common = {
        "memory": recipe_run.recipe.name,
        "dataset": recipe_run.plan.settings.dataset,
        "class_order": recipe_run.order,
        "step": step,
        "classes_seen": len(recipe_run.seen(step)),
        "memory_images": sum(len(slot) for slot in recipe_run.slots(step)),
        "memory_bytes": sum(slot.bytes for slot in recipe_run.slots(step)),
        "condense_seconds": float(recipe_run.memory.info["condense_seconds"][step]),
    }
    return [
        {**common, "network": number, "accuracy": one.accuracy, "train_seconds": one.seconds}
        for number, one in enumerate(measured)
    ]


def _tested(recipe_run: RecipeRun, step: int, measured: Sequence[Measured]) -> list[Tested]:
    seen = recipe_run.seen(step)
    return [
        Tested(recipe_run.recipe.name, recipe_run.order, step, network, tuple(seen), one.counts[seen])
        for network, one in enumerate(measured)
    ]


def _domain_rows(recipe_run: RecipeRun, step: int, measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Of a domain-incremental run, what every network gets right of every domain seen."""
    plan = recipe_run.plan
    if not isinstance(plan, DomainPlan):
        return []
    common = {"memory": recipe_run.recipe.name, "dataset": plan.settings.dataset, "class_order": 0, "step": step}
    rows = []
    for number, one in enumerate(measured):
        for domain, counts in enumerate(one.parts):
            named = {"network": number, "domain": domain, "domain_name": plan.domain_names[domain]}
            rows.append({**common, **named, "accuracy": percent_right(counts)})
    return rows


def _seen_text(recipe_run: RecipeRun, step: int) -> str:
    """How much has come, on the line of a step."""
    plan = recipe_run.plan
    if isinstance(plan, DomainPlan):
        return f"{counted(step + 1, 'domain'):>10}"
    return f"{len(recipe_run.seen(step)):>4} classes"


def _unfinished_steps(folder: RunFolder, memory: str, order: int, settings: ContinualSettings) -> list[int]:
    """Steps without a row of every network: those that never were, and those whose rows somebody took out."""
    rows = folder.rows()
    networks = rows[(rows.memory == memory) & (rows.class_order == order)].groupby("step").network.nunique().to_dict()
    return [step for step in range(settings.steps) if networks.get(step, 0) != settings.networks]


def _memory_of(plan: ExperimentPlan, recipe: Recipe, order: int, folder: RunFolder, began: bool) -> ReplayMemory:
    """The memory as the last step left it, or a new one."""
    path = folder.checkpoint(recipe.name, order)
    if path.is_file():
        return ReplayMemory.load(path, dataset=plan.data.name, fingerprint=plan.data.fingerprint)
    if began:
        raise FileNotFoundError(f"{folder.results_file} has finished steps but {path} is gone; use a new --out")
    return plan.new_memory(recipe, order)


def _check_memory(recipe_run: RecipeRun, todo: Sequence[int]) -> None:
    """A memory must hold what finished steps left, and, where a step is to be repeated, what it was trained on."""
    memory, results = recipe_run.memory, recipe_run.folder.results_file
    for step in set(range(max(todo))) - set(todo):
        if not recipe_run.has(step):
            raise ValueError(
                f"{results} has step {step} but {recipe_run.checkpoint} lacks its classes; restore the file that "
                "belongs to these results, or choose another --out"
            )
    plan, first = recipe_run.plan, min(todo)
    if not plan.shrinks:
        return  # old classes are never touched
    more = first + 1 < plan.settings.steps and recipe_run.has(first + 1)
    if recipe_run.has(first) and (more or len(memory.slots) > len(recipe_run.seen(first))):
        raise ValueError(
            f"{results} lacks rows of step {first} of memory {recipe_run.recipe.name}, which cannot be repeated: what "
            f"came before has shrunk since, to share {memory.budget} with what came later; put the rows back, or "
            "choose another --out"
        )
