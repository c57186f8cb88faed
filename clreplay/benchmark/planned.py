"""A planned cell of a table, and the units of work that are missing for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from clreplay.benchmark.cells import Cell
from clreplay.benchmark.protocols import Training
from clreplay.benchmark.request import TableRequest
from clreplay.benchmark.rows import Contents, NetworkRow, key_of
from clreplay.benchmark.sets import SetSpec, plain
from clreplay.benchmark.units import ChoiceUnit, NetworksUnit, SetUnit

TOGETHER = 20
"""Networks of one unit at most on a GPU, where they train together; on a CPU each is a unit."""


@dataclass(frozen=True, eq=False)
class PlannedNetworks:
    """Networks that differ in their draw only, on one set of images; a cell averages over them."""

    grid: TableRequest
    dataset: str
    spec: SetSpec | None
    training: Training
    draws: tuple[tuple[int, int], ...]
    title: str
    may_diverge: bool = False

    @cached_property
    def unit(self) -> NetworksUnit:
        """All of them as one unit of work."""
        return NetworksUnit(
            dataset=self.dataset,
            needs=None if self.spec is None else self.spec.key,
            training=self.training,
            store=self.grid.store,
            seed=self.grid.seed,
            draws=self.draws,
            title=self.title,
            may_diverge=self.may_diverge,
        )

    def alike(self, contents: Contents) -> list[NetworkRow]:
        """The networks of this kind in a store, whichever sets and draws were requested."""
        condensed = None if self.spec is None else self.spec.condensed_key
        return contents.alike.get(
            (self.dataset, condensed, self.unit.training_key, self.unit.stored_as, self.grid.seed), []
        )


@dataclass(frozen=True, eq=False)
class PlannedCell:
    """A cell and what has to be done to measure it.

    Attributes:
        cell: the cell.
        problem: why it cannot be measured; empty if it can.
        trained: networks on condensed sets, or on all real images.
        real: of an architecture search, the same architectures on all real images.
        reduced: how its settings fall short of the paper's, one phrase each.
        notes: what the paper leaves open and was decided here, one sentence each.
    """

    cell: Cell
    problem: str = ""
    trained: tuple[PlannedNetworks, ...] = ()
    real: tuple[PlannedNetworks, ...] = ()
    reduced: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def specs(self) -> list[SetSpec]:
        """The condensed sets, each once."""
        return list({one.spec.key: one.spec for one in self.trained if one.spec is not None}.values())

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that decides the cell's number but the number of sets and networks, as JSON values."""
        grid = (self.trained or self.real)[0].grid
        return {
            "dataset": self.cell.dataset,
            "seed": grid.seed,
            "store": grid.store,
            "condensed": next((spec.condensed for spec in self.specs), None),
            "trained": _distinct(one.training.as_plain() for one in self.trained),
            "trained_on_all_real_images": _distinct(one.training.as_plain() for one in self.real),
        }

    @cached_property
    def settings_key(self) -> str:
        """Hash of :attr:`settings`: 12 hex digits."""
        return key_of(self.settings)[:12]

    def choice_units(self, contents: Contents, device_type: str) -> list[ChoiceUnit]:
        """What is to be measured before the missing sets can be condensed."""
        missing = {spec.execution_key: spec for spec in self._missing(contents) if spec.is_open}
        return [ChoiceUnit(spec) for key, spec in missing.items() if (key, device_type) not in contents.choices]

    def set_units(self, contents: Contents, device_type: str) -> list[SetUnit]:
        """The missing sets whose execution is known."""
        units = []
        for spec in self._missing(contents):
            chosen = contents.choices.get((spec.execution_key, device_type), None if spec.is_open else {})
            if chosen is not None:
                units.append(SetUnit(spec, chosen))
        return units

    def network_units(self, contents: Contents, device_type: str) -> list[NetworksUnit]:
        """The missing networks whose set is finished, in units of a size that suits the device."""
        found = []
        for one in (*self.trained, *self.real):
            unit = one.unit
            if unit.needs is not None and unit.needs not in contents.sets:
                continue
            missing = [draw for key, draw in zip(unit.keys, unit.draws) if key not in contents.networks]
            together = TOGETHER if device_type == "cuda" and unit.needs is not None else 1
            parts = (missing[i : i + together] for i in range(0, len(missing), together))
            found += [replace(unit, draws=tuple(part)) for part in parts]
        return found

    def _missing(self, contents: Contents) -> list[SetSpec]:
        return [spec for spec in self.specs if spec.key not in contents.sets]


def _distinct(settings: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({key_of(one): plain(one) for one in settings}.values())
