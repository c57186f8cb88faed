"""Table 7: do condensed images find the best of 720 ConvNets? (DDM, supplement F; before it DC, DSA and DM.)

Every architecture is trained on the condensed images (50 a class, one set a method) and on all real images. Reported:
the accuracy, trained on all real images, of the architecture that ranks first on the condensed ones; Spearman's
correlation between both accuracies over the first few of that ranking; minutes and images that the ranking takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from clreplay.benchmark.cells import Cell
from clreplay.benchmark.planned import PlannedCell, PlannedNetworks
from clreplay.benchmark.protocols import lasting, search_trainings
from clreplay.benchmark.request import TableRequest
from clreplay.benchmark.sets import differences, sets_of
from clreplay.networks import search_space
from clreplay.recipes.recipe import Recipe
from clreplay.runtime.seeding import generator

TOPS = ("5", "10", "20", "5 %", "all")
"""Over how many of the first architectures Spearman's correlation is taken; the paper does not say."""


def architectures(count: int | None) -> list[dict[str, Any]]:
    """The whole space, or the first ``count`` networks of one shuffled order: fewer are a part of more.

    Raises:
        ValueError: more are requested than there are.
    """
    space = list(search_space())
    if count is None or count == len(space):
        return space
    if count > len(space):
        raise ValueError(f"architectures must be at most {len(space)}, got {count}")
    order = torch.randperm(len(space), generator=generator(0, "architectures")).tolist()
    return [space[i] for i in order[:count]]


def planned_search(
    grid: TableRequest, cell: Cell, recipe: Recipe | None, overrides: Mapping[str, Any], learner: Mapping[str, Any]
) -> PlannedCell:
    """The plan of one method; all of its metrics share it."""
    chosen = architectures(grid.searched)
    reduced = []
    if len(chosen) < len(list(search_space())):
        reduced.append(f"{len(chosen)} of the {len(list(search_space()))} architectures")
    spec = None
    if recipe is not None:
        (spec,), short = sets_of(grid, cell, recipe, overrides, 1)
        reduced += short
    proxies, reals = _trainings(chosen, cell, grid.preset, learner)
    papers = _trainings(chosen[:1], cell, "paper", {})
    for what, ours, theirs in (("condensed", proxies, papers[0]), ("all real", reals, papers[1])):
        reduced += differences(f"training on {what} images", ours[0].settings, theirs[0].settings)

    def trained(spec: Any, training: Any) -> PlannedNetworks:
        title = f"{recipe.label if recipe and spec else 'all real images'}, {_described(training.settings)}"
        # A network without normalisation may diverge: that is what is to be known of it, and no reason to know nothing.
        return PlannedNetworks(grid, cell.dataset, spec, training, ((0, 0),), title, may_diverge=True)

    real = tuple(trained(None, training) for training in reals)
    first = real if recipe is None else tuple(trained(spec, training) for training in proxies)
    note = f"Every architecture is trained for {lasting(proxies[0].settings)} on condensed images and "
    note += f"{lasting(reals[0].settings)} on all real ones, with the learning rate and augmentation of DM's protocol."
    return PlannedCell(cell, trained=first, real=real, reduced=tuple(reduced), notes=(note,))


def _trainings(
    chosen: Sequence[Mapping[str, Any]], cell: Cell, preset: str, learner: Mapping[str, Any]
) -> list[list[Any]]:
    where = (cell.dataset, cell.images_per_class)
    pairs = [search_trainings(options, preset, learner, *where) for options in chosen]
    return [list(one) for one in zip(*pairs)]


def _described(s: Any) -> str:
    return f"depth {s.depth}, {s.norm} norm, {s.activation}, {s.pooling} pooling"


# ---------------------------------------------------------------- what is reported


def selected(proxy: Sequence[float], real: Sequence[float]) -> float:
    """Accuracy on all real images of the architecture that ranks first; the earlier one of a tie."""
    return float(real[ranking(proxy)[0]])


def ranking(proxy: Sequence[float]) -> list[int]:
    """Architectures by falling accuracy; ties in their order."""
    order: list[int] = np.argsort(-np.asarray(proxy, dtype=float), kind="stable").tolist()
    return order


def correlation(proxy: Sequence[float], real: Sequence[float], top: str) -> float | None:
    """Spearman's correlation over the first of a ranking.

    Args:
        proxy, real: accuracies of the same architectures, on condensed and on all real images.
        top: one of :data:`TOPS`.

    Returns:
        None where it is not defined: fewer architectures than ``top`` (or than two), or all alike.
    """
    from scipy.stats import spearmanr

    count = how_many(top, len(proxy))
    rows = ranking(proxy)[:count]
    first, second = np.asarray(proxy)[rows], np.asarray(real)[rows]
    if count > len(proxy) or count < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(spearmanr(first, second).statistic)


def how_many(top: str, architectures: int) -> int:
    """Architectures that one of :data:`TOPS` means."""
    if top == "all":
        return architectures
    if top.endswith("%"):
        return math.ceil(float(top.rstrip(" %")) / 100 * architectures)
    return int(top)
