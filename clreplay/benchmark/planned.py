"""A table as a person asks for it, and a planned cell: the units that are missing for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from clreplay.benchmark.cells import Cell
from clreplay.benchmark.protocols import Training
from clreplay.benchmark.request import TableRequest
from clreplay.benchmark.sets import SetSpec, plain
from clreplay.benchmark.store import Contents, key_of
from clreplay.benchmark.units import ChoiceUnit, NetworksUnit, SetUnit

TOGETHER = 20
"""Networks of one unit at most on a GPU, where they train together; on a CPU each is a unit."""


@dataclass(frozen=True, eq=False)
class PlannedNetworks:
    """Networks of one kind on one set of images: what a cell averages over, or one architecture of a search."""

    grid: TableRequest
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
            settled = self.spec.with_execution(contents, device_type)
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
class PlannedCell:
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
    trained: tuple[PlannedNetworks, ...] = ()
    real: tuple[PlannedNetworks, ...] = ()
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
        unsettled = {s.asked_key: s for s in self.specs if s.with_execution(contents, device_type) is None}
        return [ChoiceUnit(spec) for spec in unsettled.values()]

    def set_units(self, contents: Contents, device_type: str) -> list[SetUnit]:
        """The sets that are known and not there yet."""
        settled = (spec.with_execution(contents, device_type) for spec in self.specs)
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
