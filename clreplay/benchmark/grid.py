"""A table as a person asks for it, and a planned cell: the units that are missing for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from clreplay.benchmark import protocols
from clreplay.benchmark.cells import SEARCH, WHOLE, Cell
from clreplay.benchmark.protocols import Training
from clreplay.benchmark.specs import SetSpec, plain
from clreplay.benchmark.store import Contents, key_of
from clreplay.benchmark.units import ChoiceUnit, NetworksUnit, SetUnit
from clreplay.networks import search_space
from clreplay.recipes import PRESETS, RecipeError

REPEATS = {"paper": (5, 20), "cpu": (1, 3), "smoke": (1, 1)}
"""Condensed sets, and networks trained on each, by preset; the paper's are five sets and twenty networks."""
ARCHITECTURES = {"paper": None, "cpu": 40, "smoke": 3}
"""Networks of Table 7 by preset; None are all."""
TOGETHER = 20
"""Networks of one unit at most on a GPU, where they train together; on a CPU each is a unit."""


@dataclass(frozen=True)
class Grid:
    """A table, or a part of it, as a person asks for it; what is None is chosen by the preset.

    Attributes:
        table: a key of :data:`clreplay.benchmark.published.TITLES`.
        datasets, images_per_class, methods, train_networks, test_networks: which cells, see
            :func:`clreplay.benchmark.cells.select`; empty takes all.
        sets: condensed sets of every method.
        networks: networks trained on each.
        preset: ``paper``, ``cpu`` or ``smoke``.
        overrides: single settings, see :func:`clreplay.recipes.split_overrides`.
        protocol: a key of :data:`clreplay.benchmark.protocols.PROTOCOLS`.
        store: how condensed images are held before training: ``float32`` as the authors hold them, or ``uint8`` as
            a replay memory does.
        seed: of all chance.
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

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise RecipeError(f"preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")
        if self.protocol not in protocols.PROTOCOLS:
            raise ValueError(f"protocol must be one of {', '.join(protocols.PROTOCOLS)}, got {self.protocol!r}")
        if self.store not in ("float32", "uint8"):
            raise ValueError(f"store must be float32 or uint8, got {self.store!r}")
        for name in ("sets", "networks", "architectures"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.table == SEARCH and self.protocol != "common":
            raise ValueError(f"protocol must be common for table {SEARCH}, which has its own, got {self.protocol!r}")
        if self.table != SEARCH and self.architectures is not None:
            raise ValueError(f"architectures belongs to table {SEARCH}, got it for table {self.table}; leave it out")
        if self.architectures is not None and self.architectures > (most := len(list(search_space()))):
            raise ValueError(f"architectures must be at most {most}, got {self.architectures}")
        for key in self.overrides:
            if key.rpartition(".")[2] == "network":
                raise ValueError(f"--set {key}: a table names its networks; choose cells with --test-network")

    @property
    def searched(self) -> int | None:
        """How many networks of Table 7 are searched; None are all."""
        return ARCHITECTURES[self.preset] if self.architectures is None else self.architectures

    def repeats(self, recipe: str) -> tuple[int, int]:
        """Sets, and networks trained on each; on all real images there are no sets."""
        sets, networks = REPEATS[self.preset]
        if recipe == WHOLE:
            return 1, min(networks, protocols.WHOLE_NETWORKS) if self.networks is None else self.networks
        return (sets if self.sets is None else self.sets), (networks if self.networks is None else self.networks)


@dataclass(frozen=True, eq=False)
class Trained:
    """Networks of one kind on one set of images: what a cell averages over, or one architecture of a search."""

    grid: Grid
    dataset: str
    spec: SetSpec | None
    training: Training
    draws: tuple[tuple[int, int], ...]
    title: str
    may_diverge: bool = False

    def unit(self, contents: Contents, device_type: str) -> NetworksUnit | None:
        """All of its networks as one unit; None while it is not known which set they are trained on."""
        needs = None
        if self.spec is not None:
            settled = self.spec.settled(contents, device_type)
            if settled is None:
                return None
            needs = settled.key
        if needs not in self._units:
            self._units[needs] = NetworksUnit(
                dataset=self.dataset,
                needs=needs,
                training=self.training,
                store=self.grid.store,
                seed=self.grid.seed,
                draws=self.draws,
                title=self.title,
                may_diverge=self.may_diverge,
            )
        return self._units[needs]

    @cached_property
    def _units(self) -> dict[str | None, NetworksUnit]:
        return {}


@dataclass(frozen=True, eq=False)
class Planned:
    """A cell and what has to be done for it.

    Attributes:
        cell: the cell.
        problem: why nothing can be done; empty where something can.
        trained: networks on condensed sets, or on all real images.
        real: of a search, the same architectures on all real images.
        reduced: in what its settings fall short of the paper's, one phrase each.
        notes: what the paper leaves open and was decided here, one sentence each.
    """

    cell: Cell
    problem: str = ""
    trained: tuple[Trained, ...] = ()
    real: tuple[Trained, ...] = ()
    reduced: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def specs(self) -> list[SetSpec]:
        """The condensed sets as asked for."""
        return list({one.spec.key: one.spec for one in self.trained if one.spec is not None}.values())

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that decides the cell's number, whatever the number of sets and networks; as JSON knows it."""
        grid = (self.trained or self.real)[0].grid
        return {
            "dataset": self.cell.dataset,
            "seed": grid.seed,
            "store": grid.store,
            "condensed": next((spec.asked for spec in self.specs), None),
            "trained": _distinct(one.training.as_plain() for one in self.trained),
            "trained_on_all_real_images": _distinct(one.training.as_plain() for one in self.real),
        }

    @cached_property
    def settings_key(self) -> str:
        """Hash of :attr:`settings`: 12 hex digits."""
        return key_of(self.settings)[:12]

    def choice_units(self, contents: Contents, device_type: str) -> list[ChoiceUnit]:
        """What is to be measured before sets can be condensed."""
        unsettled = {s.asked_key: s for s in self.specs if s.settled(contents, device_type) is None}
        return [ChoiceUnit(spec) for spec in unsettled.values()]

    def set_units(self, contents: Contents, device_type: str) -> list[SetUnit]:
        """The sets that are known and not there yet."""
        settled = (spec.settled(contents, device_type) for spec in self.specs)
        return [SetUnit(spec) for spec in settled if spec is not None and spec.key not in contents.units]

    def network_units(self, contents: Contents, device_type: str) -> list[NetworksUnit]:
        """The networks that can be trained and are not there yet, in units of a size that suits the device."""
        found = []
        for one in (*self.trained, *self.real):
            unit = one.unit(contents, device_type)
            if unit is None or (unit.needs is not None and unit.needs not in contents.units):
                continue
            missing = [draw for key, draw in zip(unit.keys, unit.draws) if key not in contents.units]
            together = TOGETHER if device_type == "cuda" and unit.needs is not None else 1
            parts = (missing[i : i + together] for i in range(0, len(missing), together))
            found += [replace(unit, draws=tuple(part)) for part in parts]
        return found


def _distinct(settings: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({key_of(one): plain(one) for one in settings}.values())
