"""What a condensed set is and where work is done, as plain values that can be hashed and sent elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from clreplay.benchmark.store import Contents, key_of
from clreplay.cache import ARITHMETIC
from clreplay.recipes import load_recipe
from clreplay.typed import build


@dataclass(frozen=True)
class Place:
    """Where a unit runs; nothing of it decides what comes out, but for float rounding.

    Attributes:
        device: where to compute.
        data_root: where data is looked for.
        work: folder for condensations under way and for locks; None keeps neither.
        commit: of the code, written beside every result.
    """

    device: str
    data_root: str | None = None
    work: str | None = None
    commit: str = "unknown"


@dataclass(frozen=True, eq=False)
class SetSpec:
    """One condensed set.

    Attributes:
        dataset: name of the data.
        recipe: name or file of the recipe, by which the method is found.
        method: the registered condenser; ``code`` is the hash of its file where it is one's own.
        settings: of the method, as plain values.
        images_per_class: what is stored.
        seed: of all chance.
    """

    dataset: str
    recipe: str
    method: str
    code: str
    settings: Mapping[str, Any]
    images_per_class: int
    seed: int

    @cached_property
    def asked(self) -> dict[str, Any]:
        """All that decides the outcome, but for the seed."""
        code = {"code": self.code} if self.code else {}
        return {
            "kind": "set",
            "arithmetic": ARITHMETIC,
            "dataset": self.dataset,
            "method": self.method,
            **code,
            "settings": plain(self.settings),
            "images_per_class": self.images_per_class,
        }

    @cached_property
    def asked_key(self) -> str:
        """Hash of :attr:`asked`; choices made on the spot are kept under it, the same for all seeds."""
        return key_of(self.asked)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that decides the outcome."""
        return {**self.asked, "seed": self.seed}

    @cached_property
    def key(self) -> str:
        """Hash of :attr:`identity`."""
        return key_of(self.identity)

    @property
    def open(self) -> bool:
        """Whether settings leave something to be measured."""
        return "auto" in self.settings.values()

    def settled(self, contents: Contents, device_type: str) -> SetSpec | None:
        """The same with what was chosen on the spot; None if that is still to be measured.

        A set that is finished counts, whichever kind of machine it was made on; a new one keeps to the choice that
        was made for its kind of device.
        """
        if not self.open:
            return self
        choices = contents.choices.get(self.asked_key, [])
        made = [(kind, replace(self, settings={**self.settings, **chosen})) for kind, chosen in choices]
        finished = (spec for _, spec in made if spec.key in contents.units)
        return next(finished, next((spec for kind, spec in made if kind == device_type), None))

    def built(self) -> Any:
        """The settings as the method's dataclass."""
        return build(load_recipe(self.recipe).method.settings, self.settings, self.recipe)


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: tuples are lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
