"""The plan of a grid: what has to be condensed and trained for every cell of it, or why nothing can be done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from clreplay.benchmark import protocols
from clreplay.benchmark.architecture_ranking import planned_search
from clreplay.benchmark.cells import FOLDER, SEARCH, WHOLE, Cell, select
from clreplay.benchmark.planned import PlannedCell, PlannedNetworks
from clreplay.benchmark.protocols import training_of, whole_note
from clreplay.benchmark.request import REPEATS, TableRequest
from clreplay.benchmark.sets import SetSpec, differences, sets_of
from clreplay.data import DATASETS
from clreplay.networks import search_space
from clreplay.recipes.overrides import split_overrides
from clreplay.recipes.recipe import Recipe, load_recipe
from clreplay.recipes.typed_settings import RecipeError


def plan(grid: TableRequest, cells: Sequence[Cell] | None = None) -> list[PlannedCell]:
    """Every cell of a grid with what has to be done for it; what cannot be done says why.

    Args:
        grid: the requested table.
        cells: others of the table than those that the grid asks for.

    Raises:
        ValueError: the grid itself is wrong: a name, a number, a setting that nothing has.
    """
    if cells is None:
        chosen = (grid.datasets, grid.images_per_class, grid.methods, grid.train_networks, grid.test_networks)
        cells = select(grid.table, *chosen, tuple(DATASETS))
    recipes, absent = _recipes(cells)
    learner, by_recipe = split_overrides(grid.overrides, recipes.values())
    training_of(
        grid.protocol, "ddm", "ConvNet", grid.preset, learner
    )  # a wrong setting is an error now, not once for each cell
    stood_for = {name for cell in cells for name, _ in cell.overrides}
    architecture = set(next(search_space())) if grid.table == SEARCH else set()
    for key in grid.overrides:
        owner, _, name = key.rpartition(".")
        if name in stood_for and owner != "train" or name in architecture and owner in ("", "train"):
            raise ValueError(f"--set {key}: it is what the cells of table {grid.table} differ in; leave it out")
    work = planned_search if grid.table == SEARCH else _planned
    found, known = [], {}
    for cell in cells:
        same = replace(cell, metric="", published="", published_spread="", source="")
        if same not in known:  # the metrics of a search share their work
            try:
                if cell.recipe in absent:
                    raise RecipeError(absent[cell.recipe])
                if cell.dataset not in DATASETS and not cell.dataset.startswith(FOLDER):
                    raise ValueError(f"clreplay does not load {cell.dataset}; it loads {', '.join(DATASETS)}")
                recipe = recipes.get(cell.recipe)
                known[same] = work(grid, cell, recipe, by_recipe.get(recipe.name, {}) if recipe else {}, learner)
            except ValueError as error:
                known[same] = PlannedCell(cell, problem=str(error).splitlines()[0])
        found.append(replace(known[same], cell=cell))
    return found


def _planned(
    grid: TableRequest, cell: Cell, recipe: Recipe | None, overrides: Mapping[str, Any], learner: Mapping[str, Any]
) -> PlannedCell:
    sets, networks = grid.repeats(cell.recipe)
    who, where = (grid.protocol, cell.recipe, cell.test_network), (cell.dataset, cell.images_per_class)
    training = training_of(*who, grid.preset, learner, *where)
    paper = training_of(*who, "paper", None, *where)
    specs: Sequence[SetSpec | None] = [None]
    reduced: list[str] = []
    if recipe is not None:
        specs, reduced = sets_of(grid, cell, recipe, overrides, sets)
    what = "all real images" if recipe is None else "training"
    reduced += differences(f"{what} ({training.settings.summary()})", training.settings, paper.settings)
    title = cell.method if recipe is None else f"{recipe.label}, IPC {cell.images_per_class}"
    trained = [
        PlannedNetworks(
            grid, grid.data_name(cell.dataset), spec, training, tuple((number, n) for n in range(networks)), title
        )
        for number, spec in enumerate(specs)
    ]
    return PlannedCell(
        cell,
        trained=tuple(trained),
        reduced=(*_fewer(cell.recipe, sets, networks), *_without(grid.held_out), *reduced),
        notes=() if recipe is not None else (whole_note(training.settings, networks),),
    )


def _fewer(recipe: str, sets: int, networks: int) -> list[str]:
    full = REPEATS["paper"]
    if recipe == WHOLE:
        known = networks >= protocols.WHOLE_NETWORKS
        return [] if known else [f"networks on all real images: {networks} (paper preset {protocols.WHOLE_NETWORKS})"]
    fewer = sets < full[0] or networks < full[1]
    return [f"sets x networks: {sets} x {networks} (paper {full[0]} x {full[1]})"] if fewer else []


def _without(held_out: float) -> list[str]:
    return [f"training images held out: {held_out:g} of every class (paper none)"] if held_out else []


def _recipes(cells: Iterable[Cell]) -> tuple[dict[str, Recipe], dict[str, str]]:
    """The recipes that cells name, and why those that cannot be had cannot."""
    recipes, absent = {}, {}
    for name in dict.fromkeys(cell.recipe for cell in cells if cell.recipe != WHOLE):
        try:
            recipes[name] = load_recipe(name)
        except RecipeError as error:
            absent[name] = f"no memory of that name: {error}".splitlines()[0]
    return recipes, absent
