"""The condensed sets of a cell, and in what settings fall short of the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from clreplay.benchmark.cells import Cell
from clreplay.benchmark.grid import Grid
from clreplay.benchmark.protocols import network_settings
from clreplay.benchmark.specs import SetSpec
from clreplay.chance import key_seed
from clreplay.condensation.calibration import CHOSEN
from clreplay.recipes import Recipe


def sets_of(
    grid: Grid, cell: Cell, recipe: Recipe, overrides: Mapping[str, Any], sets: int
) -> tuple[list[SetSpec], list[str]]:
    """The condensed sets of a cell, and in what their settings fall short of the paper's.

    Raises:
        ValueError: settings do not fit.
    """
    mine = dict(cell.overrides)
    if "network" in recipe.keys():
        mine = {**network_settings(cell.train_network), **mine}
    where = (cell.dataset, cell.images_per_class)
    chosen = recipe.settings(grid.preset, {**overrides, **mine}, *where)
    paper = recipe.settings("paper", mine, *where)
    specs = [
        SetSpec(
            dataset=cell.dataset,
            recipe=cell.recipe,
            method=recipe.method.name,
            code=recipe.method.code,
            settings=asdict(chosen),
            images_per_class=int(cell.images_per_class or 0),
            seed=key_seed(grid.seed, "static", "set", number),
        )
        for number in range(sets)
    ]
    return specs, differences(recipe.label, chosen, paper)


def differences(what: str, settings: Any, paper: Any) -> list[str]:
    """``DM: iterations 120 (paper 20000), ...``: what differs between settings; empty where nothing does."""
    # How the same is computed decides float rounding only, but for the precision of it.
    names = [one.name for one in fields(settings) if one.name not in CHOSEN or one.name == "precision"]
    changed = []
    if {"epochs", "updates"} <= set(names) and _length(settings) != _length(paper):
        changed.append(f"{_length(settings)} (paper {_length(paper)})")
    for name in names:
        ours, theirs = getattr(settings, name), getattr(paper, name)
        if ours != theirs and name not in ("epochs", "updates"):
            changed.append(f"{name} {_shown(ours)} (paper {_shown(theirs)})")
    return [f"{what}: {', '.join(changed)}"] if changed else []


def _length(settings: Any) -> str:
    return f"{settings.epochs} epochs" if settings.updates is None else f"{settings.updates} updates"


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
