"""The class-incremental experiment without Avalanche: condense, train, test, step by step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch

from clreplay.condensation import condense_experience
from clreplay.data import ImageSet
from clreplay.incremental.experiment_plan import ExperimentPlan
from clreplay.incremental.recipe_run import TOGETHER, Measured, RecipeRun
from clreplay.networks import reinitialize
from clreplay.runtime.seeding import key_seed
from clreplay.training.evaluate import confusion, confusions_together
from clreplay.training.learner import train_learner
from clreplay.training.stacked import should_stack, train_together


def core_steps(recipe_run: RecipeRun, todo: Sequence[int]) -> Iterator[list[Measured]]:
    """The core host: what every network gives, for every step that is to be done."""
    plan = recipe_run.plan
    for step in todo:
        if not recipe_run.has(step):
            with recipe_run.condensing(step) as progress:
                seconds = condense_experience(
                    recipe_run.memory,
                    plan.real_images(recipe_run.classes[step], step),
                    plan.methods[recipe_run.recipe.name],
                    seed=plan.seed_of(recipe_run.recipe, recipe_run.order),
                    device=plan.device,
                    keep_whole=True,
                    returning=plan.returning,
                    progress=progress,
                    keep=recipe_run.work_in_progress(step),
                    cache=plan.cache(),
                )
            recipe_run.keep(step, seconds)
        images, labels, _ = (t.to(plan.device) for t in recipe_run.memory.of_classes(recipe_run.seen(step)))
        test = plan.test_sets(recipe_run.seen(step), step)
        if plan.settings.protocol == "common" and should_stack(plan.device, plan.settings.networks):
            yield _train_all(recipe_run, step, images, labels, test)
        else:
            yield [
                _train_one(recipe_run, step, network, images, labels, test) for network in range(plan.settings.networks)
            ]


def _train_one(
    recipe_run: RecipeRun, step: int, number: int, images: torch.Tensor, labels: torch.Tensor, test: Sequence[ImageSet]
) -> Measured:
    plan, seed = recipe_run.plan, recipe_run.plan.training_seed(recipe_run.order, number)
    start = time.perf_counter()
    network = _drawn(plan, seed, step)
    with recipe_run.reporter.task(f"{recipe_run.title(step)}, network {number + 1}/{plan.settings.networks}") as task:
        before = train_learner(
            network,
            images,
            labels,
            plan.learner,
            (seed, "train", step),
            progress=lambda d, t: task(d, t, "epochs"),
            keep=recipe_run.training(step, number),
        )
    seconds = before + time.perf_counter() - start
    parts = [confusion(network, part, plan.data.normalization, plan.device) for part in test]
    return Measured.of_parts(parts, seconds)


def _train_all(
    recipe_run: RecipeRun, step: int, images: torch.Tensor, labels: torch.Tensor, test: Sequence[ImageSet]
) -> list[Measured]:
    """All networks of a step at once, each drawn and keyed as by :func:`_train_one`; seconds are equal shares."""
    plan = recipe_run.plan
    start = time.perf_counter()
    seeds = [plan.training_seed(recipe_run.order, number) for number in range(plan.settings.networks)]
    networks = [_drawn(plan, seed, step) for seed in seeds]
    keys = [(seed, "train", step) for seed in seeds]
    with recipe_run.reporter.task(f"{recipe_run.title(step)}, {len(seeds)} networks together") as task:
        before = train_together(
            networks,
            images,
            labels,
            plan.learner,
            keys,
            progress=lambda d, t: task(d, t, "epochs"),
            keep=recipe_run.training(step, TOGETHER),
        )
    seconds = (before + time.perf_counter() - start) / len(seeds)
    by_part = [confusions_together(networks, part, plan.data.normalization, plan.device) for part in test]
    return [Measured.of_parts(parts, seconds) for parts in zip(*by_part)]


def _drawn(plan: ExperimentPlan, seed: int, step: int) -> torch.nn.Module:
    """A learner on the device, with the weights that its seed draws at a step."""
    network = plan.network()
    reinitialize(network, key_seed(seed, "weights", step))
    return network.to(plan.device)
