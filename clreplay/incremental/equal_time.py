"""Memories that were each given the same time to condense, on one step of all classes."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from clreplay.runtime.command_line import exit_code, started_as

if TYPE_CHECKING:
    from clreplay.incremental.experiment_plan import ExperimentPlan
    from clreplay.recipes.recipe import Recipe

DESCRIPTION = """Compare memories that were each given the same time to condense, on one step of all classes.

    %(prog)s --dataset cifar10 --images-per-class 10 --seconds 60 --memory random dm ddm

Every condenser is tried for a few seconds, and its number of iterations (or updates) set so that it takes
about the time asked for on this machine; the run's settings.yaml records the number, and results.csv the
seconds it took. Memories that are selected, not condensed, keep their preset's length.
"""
LENGTHS = ("iterations", "updates")
SELECTIONS = ("random", "herding", "forgetting")
PLENTY = 10**6
"""Iterations of a trial, which is stopped long before."""


class _Enough(Exception):
    """The trial has gone on for long enough."""


def parser(program: str | None = None) -> argparse.ArgumentParser:
    """Flags of ``runs/equal_time.py``."""
    arguments = argparse.ArgumentParser(
        prog=started_as(program), description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = arguments.add_argument
    add("--memory", nargs="+", required=True, metavar="NAME")
    add("--dataset", default="cifar10")
    add("--images-per-class", type=int, default=10, metavar="N")
    add("--seconds", type=float, default=60.0, help="of condensing, a memory (default: 60)")
    add("--preset", choices=("cpu", "smoke", "paper"), default="cpu")
    add("--networks", type=int, default=3)
    add("--device", default="cpu")
    add("--data-root", metavar="DIR")
    add("--seed", type=int, default=0)
    add("--set", nargs="+", action="extend", default=[], metavar="MEMORY.KEY=VALUE", dest="overrides")
    add("--out", metavar="DIR")
    return arguments


def main(argv: Sequence[str] | None = None, program: str | None = None) -> int:
    """Time, choose lengths, run; 2 for a user's error, printed in one line."""
    options = parser(program).parse_args(argv)
    return exit_code(lambda: _run(options), goes_on=False)


def _run(options: argparse.Namespace) -> int:
    from clreplay.incremental.plan import plan_experiment
    from clreplay.incremental.run import run_experiment
    from clreplay.incremental.settings import ContinualSettings
    from clreplay.recipes.overrides import parse_set

    settings = ContinualSettings(
        dataset=options.dataset,
        memories=tuple(options.memory),
        images_per_class=options.images_per_class,
        steps=1,
        class_orders=1,
        networks=options.networks,
        seed=options.seed,
        preset=options.preset,
        host="none",
        device=options.device,
        data_root=options.data_root,
        overrides=parse_set(options.overrides),
    )
    plan, lengths = plan_experiment(settings), {}
    for recipe in plan.recipes:
        length = next((name for name in LENGTHS if name in recipe.keys()), None)
        if recipe.name in SELECTIONS or length is None:
            continue
        each = seconds_an_iteration(plan, recipe, length, options.seconds / 8)
        lengths[f"{recipe.name}.{length}"] = max(1, round(options.seconds / each))
        print(f"{recipe.label}: {each:.3g} s an iteration, {length}={lengths[f'{recipe.name}.{length}']}", flush=True)
    run_experiment(replace(settings, overrides={**settings.overrides, **lengths}), options.out)
    return 0


def seconds_an_iteration(plan: ExperimentPlan, recipe: Recipe, length: str, trial_seconds: float) -> float:
    """Of a condenser on all classes of the data set, after its first iteration."""
    from clreplay.condensation import RealImages

    configured = recipe.configured(
        plan.settings.preset,
        {**_own(plan, recipe), length: PLENTY},
        plan.settings.dataset,
        plan.settings.images_per_class,
    )
    data = plan.data.train
    real = RealImages(data.images, data.labels, plan.data.normalization)
    counts = dict.fromkeys(real.classes, plan.settings.images_per_class)
    configured = configured.with_execution(lambda: (real, counts), plan.device)
    first: list[float] = []
    found = 0.0

    def progress(done: int, total: int, unit: str) -> None:
        nonlocal found
        if not first:
            first.extend((done, time.perf_counter()))
            return
        passed = time.perf_counter() - first[1]
        if passed > trial_seconds and done > first[0]:
            # A condenser tells progress in units of its own: the share of the whole is what counts.
            found = passed / ((done - first[0]) / total * PLENTY)
            raise _Enough

    try:
        configured.condense(real, counts, seed=0, device=plan.device, progress=progress)
    except _Enough:
        return found
    raise RuntimeError(f"the trial of {recipe.name} ended before it was timed")


def _own(plan: ExperimentPlan, recipe: Recipe) -> dict[str, Any]:
    """Overrides meant for one memory, without its name."""
    prefix = f"{recipe.name}."
    return {key.removeprefix(prefix): value for key, value in plan.settings.overrides.items() if key.startswith(prefix)}
