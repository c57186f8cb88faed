"""Condensed sets: what decides them, how they differ from the paper's, and their images as bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from clreplay.benchmark.cells import Cell
from clreplay.benchmark.request import TableRequest
from clreplay.benchmark.rows import key_of
from clreplay.condensation.configured import ConfiguredMethod
from clreplay.data import Dataset
from clreplay.memory.class_cache import ARITHMETIC
from clreplay.memory.kept import Kept
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.networks.settings import network_settings
from clreplay.recipes.recipe import Recipe, load_recipe
from clreplay.runtime.checksum import DamagedFile, tensor_bytes, tensors_in
from clreplay.runtime.seeding import key_seed


def sets_of(
    grid: TableRequest, cell: Cell, recipe: Recipe, overrides: Mapping[str, Any], sets: int
) -> tuple[list[SetSpec], list[str]]:
    """The condensed sets of a cell, and how their settings differ from the paper's.

    Raises:
        ValueError: a setting is unknown or has a wrong value.
    """
    mine = dict(cell.overrides)
    if "network" in recipe.keys():
        mine = {**network_settings(cell.train_network), **mine}
    where = (cell.dataset, cell.images_per_class)
    chosen = recipe.configured(grid.preset, {**overrides, **mine}, *where)
    paper, values = recipe.settings("paper", mine, *where), chosen.values()
    specs = [
        SetSpec(
            dataset=grid.data_name(cell.dataset),
            recipe=cell.recipe,
            method=recipe.method.name,
            code=recipe.method.code,
            settings={name: v for name, v in chosen.identifying().items() if name not in chosen.method.execution},
            execution={name: values[name] for name in chosen.method.execution},
            images_per_class=int(cell.images_per_class or 0),
            seed=key_seed(grid.seed, "static", "set", number),
        )
        for number in range(sets)
    ]
    return specs, differences(recipe.label, chosen.settings, paper)


def differences(what: str, settings: Any, paper: Any) -> list[str]:
    """``DM: iterations 120 (paper 20000), ...``: what differs between settings; empty if nothing does."""
    names = [one.name for one in fields(settings)]
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


@dataclass(frozen=True)
class Place:
    """Where a unit runs; outcomes do not depend on it, but for float rounding.

    Attributes:
        device: where to compute.
        data_root: where data is looked for.
        work: folder for interrupted condensations and for locks; None keeps neither.
        commit: of the code, recorded with every result.
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
        method: name of the registered method; ``code`` is the hash of its file if it is the user's own.
        settings: of the method, as plain values.
        execution: how to compute, as far as the method heeds it; not part of the key.
        images_per_class: number of stored images.
        seed: of all chance.
    """

    dataset: str
    recipe: str
    method: str
    code: str
    settings: Mapping[str, Any]
    execution: Mapping[str, Any]
    images_per_class: int
    seed: int

    @cached_property
    def condensed(self) -> dict[str, Any]:
        """The settings that decide the outcome, but for the seed."""
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
    def condensed_key(self) -> str:
        """Hash of :attr:`condensed`, the same for all seeds."""
        return key_of(self.condensed)

    @cached_property
    def execution_key(self) -> str:
        """Hash under which the store keeps what was chosen on the spot, the same for all seeds."""
        return key_of({**self.condensed, "kind": "choice", "execution": plain(self.execution)})

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that decides the outcome, to float rounding."""
        return {**self.condensed, "seed": self.seed}

    @cached_property
    def key(self) -> str:
        """Hash of :attr:`identity`."""
        return key_of(self.identity)

    @property
    def is_open(self) -> bool:
        """Whether how to compute is left to be measured on the machine."""
        return "auto" in (*self.settings.values(), *self.execution.values())

    def configured(self) -> ConfiguredMethod:
        """The method with its settings."""
        return load_recipe(self.recipe).rebuilt({**self.settings, **self.execution})


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON returns them: tuples are lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def to_bytes(memory: ReplayMemory) -> dict[int, bytes]:
    """Every class as safetensors bytes with a checksum; one blob for each class, since SQLite limits their size."""
    return {
        label: tensor_bytes({"images": source.codes}, {"decoding": source.decoding})
        for label in memory.classes
        for source in memory.sources(label)
    }


def from_bytes(images: Mapping[int, bytes], data: Dataset, store: str) -> ReplayMemory:
    """The memory that a learner gets, its images stored as ``store`` says, see :class:`clreplay.memory.kept.Kept`.

    Raises:
        ValueError: a class is damaged.
    """
    tensors, decodings = {}, set()
    for label, blob in images.items():
        try:
            found, texts = tensors_in(blob, ("decoding",))
            tensors[label] = found["images"]
            decodings.add(texts.get("decoding", "none"))
        except (DamagedFile, KeyError) as error:
            raise ValueError(
                f"class {label} of a condensed set in the store is damaged: {error}; restore the store from a copy, "
                "or choose another --out"
            ) from error
    if len(decodings) != 1:
        raise ValueError(f"a condensed set in the store has decodings {', '.join(sorted(decodings))}; it is damaged")
    (decoding,) = decodings
    kept, each = Kept.parse(store), max(map(len, tensors.values()))
    memory = ReplayMemory(
        each, normalization=data.normalization, store=kept.store, quality=kept.quality, pixels=kept.pixels
    )
    memory.add(tensors, decoding=decoding)
    return memory
