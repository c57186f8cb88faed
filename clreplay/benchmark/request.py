"""Requests for several tables at once: each takes the part that it prints, and reports what it leaves out.

Alone, a table measures other data and memories in its layout; of ``--table all --dataset cifar10`` nobody expects
CIFAR-10 in the layout of the table at 128 x 128 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clreplay.benchmark import protocols
from clreplay.benchmark.cells import OPEN, SEARCH, WHOLE, Cell, dataset_name, plain_name, published_cells, select
from clreplay.benchmark.published import TITLES
from clreplay.data import held_out_name
from clreplay.memory.kept import Kept
from clreplay.memory.stores import AUTO
from clreplay.networks import search_space
from clreplay.recipes.content import PRESETS
from clreplay.recipes.typed_settings import RecipeError
from clreplay.runtime.checks import check_counts


@dataclass(frozen=True)
class CellFilter:
    """The requested cells of one table, see :func:`clreplay.benchmark.cells.select`.

    Attributes:
        table: its name.
        datasets, methods, train_networks, test_networks: as a person names them; empty takes all.
    """

    table: str
    datasets: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    train_networks: tuple[str, ...] = ()
    test_networks: tuple[str, ...] = ()


def split_request(
    requests: Sequence[CellFilter], protocol: str, known_datasets: Sequence[str]
) -> tuple[list[CellFilter], list[str]]:
    """The part of a request that each of several tables takes.

    A data set, memory or network that some table of the paper prints is measured in those that print it; data and
    memories that none prints, in every table whose layout suits them. A single table takes all.

    Args:
        requests: the same for every table.
        protocol: by which networks are trained.
        known_datasets: data sets beside the tables' own.

    Returns:
        the request of each table that has a part of it, and a sentence on everything that is left out.

    Raises:
        ValueError: no table has a part of it, or a name is unknown.
    """
    if len(requests) == 1:
        return list(requests), []
    taken, skipped = [], []
    for one in requests:
        if one.table == SEARCH and protocol != "common":
            skipped.append(f"table {SEARCH} has a protocol of its own, not {protocol}: skipped")
            continue
        mine, absent = _of_table(one, known_datasets)
        if absent:
            what = "skipped" if mine is None else "left out there"
            skipped.append(f"table {one.table} has no {', '.join(absent)}: {what}")
        if mine is not None:
            taken.append(mine)
    if not taken:
        tables = ", ".join(one.table for one in requests)
        raise ValueError(f"none of the tables {tables} has any of what is requested, name others: {'; '.join(skipped)}")
    return taken, skipped


def _of_table(request: CellFilter, known: Sequence[str]) -> tuple[CellFilter | None, list[str]]:
    """The part that a table takes (None if it is empty), and the names that it does not have."""
    absent, cells, chosen = [], list(published_cells(request.table)), CellFilter(request.table)
    spelled: dict[str, Callable[[str], str]] = {
        "datasets": lambda name: dataset_name(name, known),
        "methods": str.lower,
    }
    for kind, names_of in _NAMES.items():
        wanted = getattr(request, kind)
        theirs = {name for cell in cells for name in names_of(cell)}
        # What no table prints is a person's own, or a slip that select tells.
        printed = {name for table in TITLES for cell in published_cells(table) for name in names_of(cell)}
        if kind == "methods" and request.table not in OPEN:
            printed.update(spelled[kind](name) for name in wanted)
        plain = {name: spelled.get(kind, plain_name)(name) for name in wanted}
        printed_here = tuple(name for name in wanted if plain[name] in theirs or plain[name] not in printed)
        absent += [name for name in wanted if name not in printed_here]
        if wanted and not printed_here:
            return None, absent
        change: dict[str, Any] = {kind: printed_here}
        chosen = replace(chosen, **change)
        cells = select(chosen.table, chosen.datasets, (), chosen.methods, known_datasets=known)
    return chosen, absent


_NAMES: dict[str, Callable[[Cell], list[str]]] = {
    "datasets": lambda cell: [cell.dataset],
    "methods": lambda cell: [cell.recipe, cell.method.lower()],
    "train_networks": lambda cell: [plain_name(cell.train_network)],
    "test_networks": lambda cell: [plain_name(cell.test_network)],
}


REPEATS = {"paper": (5, 20), "cpu": (1, 3), "smoke": (1, 1)}
"""Condensed sets, and networks trained on each, by preset; the paper's are five sets and twenty networks."""


ARCHITECTURES = {"paper": None, "cpu": 40, "smoke": 3}
"""Networks of Table 7 by preset; None are all."""


@dataclass(frozen=True)
class TableRequest:
    """A table, or a part of it, as a person asks for it; what is None is chosen by the preset.

    Attributes:
        table: a key of :data:`clreplay.benchmark.published.TITLES`.
        datasets, images_per_class, methods, train_networks, test_networks: which cells, see
            :func:`clreplay.benchmark.cells.select`; empty takes all.
        sets: condensed sets of every method.
        networks: networks trained on each.
        preset: ``paper``, ``cpu`` or ``smoke``.
        overrides: single settings, see :func:`clreplay.recipes.overrides.split_overrides`.
        protocol: a key of :data:`clreplay.benchmark.protocols.PROTOCOLS`.
        store: how images are stored before training, see :class:`clreplay.memory.kept.Kept`: ``float32`` holds
            condensed ones as the authors do, ``uint8`` and the others as a replay memory does.
        seed: of all chance.
        held_out: share of every class's training images that is neither condensed nor trained on, and tested on beside
            the test images: for choices between methods and settings.
        architectures: how many of the 720 networks of Table 7; None takes all, or as many as the preset does.
    """

    table: str
    datasets: tuple[str, ...] = ()
    images_per_class: tuple[int, ...] = ()
    methods: tuple[str, ...] = ()
    train_networks: tuple[str, ...] = ()
    test_networks: tuple[str, ...] = ()
    sets: int | None = None
    networks: int | None = None
    preset: str = "paper"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    protocol: str = "common"
    store: str = "float32"
    seed: int = 0
    architectures: int | None = None
    held_out: float = 0.0

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise RecipeError(f"preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")
        if self.protocol not in protocols.PROTOCOLS:
            raise ValueError(f"protocol must be one of {', '.join(protocols.PROTOCOLS)}, got {self.protocol!r}")
        if Kept.parse(self.store).quality == AUTO:
            raise ValueError(f"store must say its quality or leave it out, got {self.store!r}: a table has no budget")
        check_counts(self, "sets", "networks", "architectures")
        if self.table == SEARCH and self.protocol != "common":
            raise ValueError(f"protocol must be common for table {SEARCH}, which has its own, got {self.protocol!r}")
        if self.table != SEARCH and self.architectures is not None:
            raise ValueError(f"architectures belongs to table {SEARCH}, got it for table {self.table}; leave it out")
        held_out_name("", self.held_out)  # raises where it is no share
        if self.held_out and self.table == SEARCH:
            raise ValueError(f"--held-out: table {SEARCH} ranks networks by their test accuracy; leave it out")
        if self.architectures is not None and self.architectures > (most := len(list(search_space()))):
            raise ValueError(f"architectures must be at most {most}, got {self.architectures}")
        for key in self.overrides:
            if key.rpartition(".")[2] == "network":
                raise ValueError(f"--set {key}: a table names its networks; choose cells with --test-network")

    @property
    def searched(self) -> int | None:
        """How many networks of Table 7 are searched; None are all."""
        return ARCHITECTURES[self.preset] if self.architectures is None else self.architectures

    def data_name(self, dataset: str) -> str:
        """What :func:`clreplay.data.load_dataset` calls the data of a cell."""
        return held_out_name(dataset, self.held_out)

    def repeats(self, recipe: str) -> tuple[int, int]:
        """Sets, and networks trained on each; on all real images there are no sets."""
        sets, networks = REPEATS[self.preset]
        if recipe == WHOLE:
            return 1, min(networks, protocols.WHOLE_NETWORKS) if self.networks is None else self.networks
        return (sets if self.sets is None else self.sets), (networks if self.networks is None else self.networks)
