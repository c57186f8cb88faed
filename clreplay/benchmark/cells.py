"""From a table to its cells: what each of them condenses, with which settings, and what it is tested on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from clreplay.benchmark.published import published_rows

WHOLE = "whole"
"""Name of the method that trains on all real images."""
SEARCH = "7"
"""The one table whose cells are not accuracies of a condensed set alone (:mod:`.architecture_ranking`)."""
SEARCH_IMAGES = 50
"""Images a class of the architecture search: the paper stores 500 of CIFAR-10."""
RECIPES = {"DDM": "ddm-paper", "DG": "dc", "DM+MM+CM": "dm+sm", "WholeDataset": WHOLE}
"""Recipes that are called otherwise than the paper's method in lower case. The paper's tables are about the paper's
reading of DDM; Table 1 has a row beside it for what ``ddm`` stands for in this library."""
DATASETS = {"ImageNet-1K": "imagenet", "ImageNette": "imagenette1k", "ImageWoof": "imagewoof1k"}
"""Data sets that clreplay calls otherwise than the paper's name without case and signs. The two last are ten classes of
ImageNet-1K each, as the papers at 128 pixels take them, not fast.ai's release."""
FOLDER = "folder:"
"""Beginning of the name of anybody's own data."""
OPEN = ("1", "2", "3", "4", "5", "fig3a", SEARCH)
"""Tables whose layout suits any other memory too."""


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        table: the table's name.
        dataset: name of the data set, as :func:`clreplay.data.load_dataset` spells it.
        images_per_class: None where all real images are trained on.
        method: as the paper calls it.
        recipe: name (or file) of the memory's recipe, or :data:`WHOLE`.
        train_network, test_network: what condenses, and what is trained on the outcome.
        overrides: settings of the recipe that define the cell.
        variant: what else tells it from its neighbours, as columns of the rendered table.
        metric: what is measured; the search has several.
        published, published_spread: as printed; empty where the paper has no number.
        source: of the published number.
    """

    table: str
    dataset: str
    images_per_class: int | None
    method: str
    recipe: str
    train_network: str = "ConvNet"
    test_network: str = "ConvNet"
    overrides: tuple[tuple[str, Any], ...] = ()
    variant: tuple[tuple[str, str], ...] = ()
    metric: str = "accuracy"
    published: str = ""
    published_spread: str = ""
    source: str = ""

    @property
    def called(self) -> str:
        """The method, with its recipe where that does not go without saying: ``DDM (ddm-paper)``."""
        known = self.recipe == WHOLE or self.recipe == self.method.lower() or self.recipe.endswith(".yaml")
        return self.method if known else f"{self.method} ({self.recipe})"


@cache
def published_cells(table: str) -> tuple[Cell, ...]:
    """Every cell of a table, in the paper's order; those with a dash too.

    Raises:
        ValueError: there is no such table.
    """
    cells = [_cell(table, row) for row in published_rows(table)]
    if table != "1":
        return tuple(cells)
    both = ((cell, replace(cell, recipe="ddm")) if cell.method == "DDM" else (cell,) for cell in cells)
    return tuple(cell for some in both for cell in some)


def select(
    table: str,
    datasets: Sequence[str] = (),
    images_per_class: Sequence[int] = (),
    methods: Sequence[str] = (),
    train_networks: Sequence[str] = (),
    test_networks: Sequence[str] = (),
    known_datasets: Sequence[str] = (),
) -> list[Cell]:
    """The cells that a person asks for; no filter takes all.

    A data set, a number of images a class or a memory that the paper's table does not have gets the cells that
    the table's layout gives it, without a published number. Whole-data cells pass any number of images a class.

    Args:
        table: a key of :data:`clreplay.benchmark.published.TITLES`.
        datasets: names of data sets, in any spelling.
        images_per_class: numbers of images a class.
        methods: recipes, or else the paper's names, in any case; :data:`WHOLE` for all real images.
        train_networks, test_networks: names of networks.
        known_datasets: data sets beside the table's own.

    Raises:
        ValueError: nothing of that name; the message says what there is.
    """
    cells = list(published_cells(table))
    if datasets:
        cells = [cell for name in datasets for cell in _of_dataset(cells, name, known_datasets)]
    if images_per_class:
        cells = _of_counts(cells, images_per_class)
    if methods:
        cells = _of_methods(cells, table, methods)
    for attribute, names in (("train_network", train_networks), ("test_network", test_networks)):
        if names:
            cells = _of_networks(cells, attribute, names)
    return list(dict.fromkeys(cells))


def plain_name(name: str) -> str:
    """A name without case and punctuation: ``ImageNet-1K`` is ``imagenet1k``."""
    return "".join(letter for letter in str(name).lower() if letter.isalnum())


def dataset_name(name: str, known: Sequence[str]) -> str:
    """The data set that a person means, as :func:`clreplay.data.load_dataset` spells it.

    A name of ``known`` means exactly that; in any other spelling the paper's names come first: ``imagenette`` is
    fast.ai's release, ``ImageNette`` the ten classes of ImageNet-1K that the paper calls so.
    """
    if name in known or name.startswith(FOLDER):
        return name
    plain = plain_name(name)
    return next((ours for printed, ours in DATASETS.items() if plain_name(printed) == plain), plain)


# ---------------------------------------------------------------- the paper's rows


def _cell(table: str, row: dict[str, str]) -> Cell:
    recipe = RECIPES.get(row["method"], row["method"].lower())
    whole = recipe == WHOLE
    networks = [_network(row.get(name, "ConvNet"), recipe) for name in ("arch_train", "arch_test")]
    overrides, variant = _VARIANTS[table](row) if table in _VARIANTS else ((), ())
    return Cell(
        table=table,
        dataset=DATASETS.get(row["dataset"], plain_name(row["dataset"])),
        images_per_class=None if whole else SEARCH_IMAGES if table == SEARCH else int(row["ipc"]),
        method=row["method"],
        recipe=recipe,
        train_network=networks[0],
        test_network=networks[1],
        overrides=overrides,
        variant=variant,
        metric=row.get("metric", "accuracy"),
        published=row.get("mean", row.get("value", "")),
        published_spread=row.get("std", ""),
        source=row["source"],
    )


def _network(name: str, recipe: str) -> str:
    # What Dataset Distillation calls AlexNet is another network than everybody else's.
    return "AlexCifarNet" if recipe == "dd" and name == "AlexNet" else name


_Variant = tuple[tuple[tuple[str, Any], ...], tuple[tuple[str, str], ...]]


def _neighbours(row: dict[str, str]) -> _Variant:
    share, count = row["k_over_ipc"], int(row["ipc"])
    # The image itself is no neighbour: 1.0 of 10 images are nine, the same set as 0.9.
    used = min(float(share), (count - 1) / count)
    return ((("neighbours", used),) if used else ()), (("k / IPC", share),)


def _blocks(row: dict[str, str]) -> _Variant:
    used = [i for i in range(3) if row[f"sm_block{i + 1}"] == "1"]
    shown = "+".join(str(i + 1) for i in used) or "none"
    # All blocks is the default: written so, the set is the one of Table 5.
    return ((("style_layers", tuple(used)),) if 0 < len(used) < 3 else ()), (("blocks", shown),)


def _weights(**settings: str) -> Callable[[dict[str, str]], _Variant]:
    def weights(row: dict[str, str]) -> _Variant:
        overrides = tuple((setting, float(row[column])) for column, setting in settings.items())
        return overrides, tuple((column, row[column]) for column in settings)

    return weights


_VARIANTS: dict[str, Callable[[dict[str, str]], _Variant]] = {
    "6": _neighbours,
    "8": _blocks,
    "fig5": _weights(alpha="alpha"),
    "fig6": _weights(**{"beta": "diversity_weight", "lambda": "style_weight"}),
}


# ---------------------------------------------------------------- the requested cells


def _unpublished(cell: Cell, **changes: Any) -> Cell:
    return replace(cell, published="", published_spread="", source="not in the paper", **changes)


def _of_dataset(cells: list[Cell], name: str, known: Sequence[str]) -> list[Cell]:
    theirs = list(dict.fromkeys(cell.dataset for cell in cells))
    wanted = dataset_name(name, known)
    if wanted in theirs:
        return [cell for cell in cells if cell.dataset == wanted]
    if wanted not in known and not wanted.startswith(FOLDER):
        allowed = ", ".join(dict.fromkeys([*theirs, *known]))
        raise ValueError(f"--dataset must be among {allowed}, got {name!r}")
    return [_unpublished(cell, dataset=wanted) for cell in cells if cell.dataset == theirs[0]]


def _of_counts(cells: list[Cell], counts: Sequence[int]) -> list[Cell]:
    chosen = []
    for dataset in dict.fromkeys(cell.dataset for cell in cells):
        of_data = [cell for cell in cells if cell.dataset == dataset]
        like = next(cell.images_per_class for cell in of_data if cell.images_per_class)
        for count in counts:
            if count < 1:
                raise ValueError(f"--ipc must be at least 1, got {count}")
            found = [cell for cell in of_data if cell.images_per_class == count]
            model = [cell for cell in of_data if cell.images_per_class == like]
            chosen += found or [_unpublished(cell, images_per_class=count) for cell in model]
        chosen += [cell for cell in of_data if cell.images_per_class is None]
    return chosen


def _of_methods(cells: list[Cell], table: str, names: Sequence[str]) -> list[Cell]:
    """The table's own methods in its order, then those that it does not have."""
    recipes = {cell.recipe for cell in cells}
    wanted = [name.lower() for name in names]
    by_the_paper = {name for name in wanted if name not in recipes}
    found = [cell for cell in cells if cell.recipe in wanted or cell.method.lower() in by_the_paper]
    theirs = {name for cell in cells for name in (cell.recipe, cell.method.lower())}
    for name in names:
        if name.lower() not in theirs:
            found += _of_own_method(cells, table, name)
    return found


def _of_own_method(cells: list[Cell], table: str, name: str) -> list[Cell]:
    theirs = dict.fromkeys(cell.recipe for cell in cells)
    if name.lower() == WHOLE:
        raise ValueError(f"--method {name}: table {table} prints no whole row; choose among {', '.join(theirs)}")
    if table not in OPEN:
        raise ValueError(f"--method of table {table} must be among {', '.join(theirs)}, got {name!r}")
    from clreplay.recipes.recipe import load_recipe

    recipe = load_recipe(name)  # a typo is an error now
    model = next(recipe for recipe in ("ddm-paper", *theirs) if recipe in theirs and recipe != WHOLE)
    own = {"recipe": name, "method": recipe.label, "overrides": ()}
    return [_unpublished(cell, **own) for cell in cells if cell.recipe == model]


def _of_networks(cells: list[Cell], attribute: str, names: Sequence[str]) -> list[Cell]:
    theirs = list(dict.fromkeys(getattr(cell, attribute) for cell in cells))
    wanted = [plain_name(name) for name in names]
    for plain, name in zip(wanted, names):
        if plain not in map(plain_name, theirs):
            flag = "--" + attribute.replace("_", "-")
            raise ValueError(f"{flag} must be among {', '.join(theirs)}, got {name!r}")
    return [cell for cell in cells if plain_name(getattr(cell, attribute)) in wanted]
