"""Several tables asked for at once: each takes what it prints of what is asked for, and says what it leaves out.

Alone, a table measures other data and memories in its layout; of ``--table all --dataset cifar10`` nobody expects
CIFAR-10 in the layout of the table at 128 x 128 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from clreplay.benchmark.cells import OPEN, SEARCH, Cell, dataset_name, plain_name, published_cells, select
from clreplay.benchmark.published import TITLES


@dataclass(frozen=True)
class Asked:
    """The cells that are asked for of one table, see :func:`clreplay.benchmark.cells.select`.

    Attributes:
        table: its name.
        datasets, methods, train_networks, test_networks: as a person names them; empty takes all.
    """

    table: str
    datasets: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    train_networks: tuple[str, ...] = ()
    test_networks: tuple[str, ...] = ()


def shared_out(asked: Sequence[Asked], protocol: str, known_datasets: Sequence[str]) -> tuple[list[Asked], list[str]]:
    """What each of several tables takes of what is asked for.

    A data set, memory or network that some table of the paper prints is measured in those that print it; data and
    memories that none prints, in every table whose layout suits them. A table that is asked for alone takes all.

    Args:
        asked: the same of every table.
        protocol: by which networks are trained.
        known_datasets: data sets beside the tables' own.

    Returns:
        what is left for each table that has something, and a sentence on everything that is left out.

    Raises:
        ValueError: no table is left, or nothing has such a name.
    """
    if len(asked) == 1:
        return list(asked), []
    taken, said = [], []
    for one in asked:
        if one.table == SEARCH and protocol != "common":
            said.append(f"table {SEARCH} has a protocol of its own, not {protocol}: skipped")
            continue
        mine, absent = _of_table(one, known_datasets)
        if absent:
            what = "skipped" if mine is None else "left out there"
            said.append(f"table {one.table} has no {', '.join(absent)}: {what}")
        if mine is not None:
            taken.append(mine)
    if not taken:
        tables = ", ".join(one.table for one in asked)
        raise ValueError(f"none of the tables {tables} has what is asked for, name others: {'; '.join(said)}")
    return taken, said


def _of_table(asked: Asked, known: Sequence[str]) -> tuple[Asked | None, list[str]]:
    """What a table takes, None if that is nothing, and the names of what it has not."""
    absent, cells, chosen = [], list(published_cells(asked.table)), Asked(asked.table)
    spelled: dict[str, Callable[[str], str]] = {
        "datasets": lambda name: dataset_name(name, known),
        "methods": str.lower,
    }
    for kind, names_of in _NAMES.items():
        wanted = getattr(asked, kind)
        theirs = {name for cell in cells for name in names_of(cell)}
        # What no table prints is a person's own, or a slip that select tells.
        printed = {name for table in TITLES for cell in published_cells(table) for name in names_of(cell)}
        if kind == "methods" and asked.table not in OPEN:
            printed.update(spelled[kind](name) for name in wanted)
        plain = {name: spelled.get(kind, plain_name)(name) for name in wanted}
        kept = tuple(name for name in wanted if plain[name] in theirs or plain[name] not in printed)
        absent += [name for name in wanted if name not in kept]
        if wanted and not kept:
            return None, absent
        chosen = replace(chosen, **{kind: kept})
        cells = select(chosen.table, chosen.datasets, (), chosen.methods, known_datasets=known)
    return chosen, absent


_NAMES: dict[str, Callable[[Cell], list[str]]] = {
    "datasets": lambda cell: [cell.dataset],
    "methods": lambda cell: [cell.recipe, cell.method.lower()],
    "train_networks": lambda cell: [plain_name(cell.train_network)],
    "test_networks": lambda cell: [plain_name(cell.test_network)],
}
