"""A run as a report needs it: read once, whatever folder or process it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from clreplay.data import ImageSet
    from clreplay.memory.replay_memory import ReplayMemory


@dataclass(frozen=True)
class Reported:
    """One run.

    Attributes:
        name: of its folder, which tells runs of one report apart.
        settings: of its ``settings.yaml``.
        results: rows of its ``results.csv``.
        memories: the final ones of the first class order, by name; fewer, or none, of a run that is under way.
        confusions: of its ``confusion.safetensors``, one row a pair of classes; None where it has none.
        real: the training images, beside which condensed ones are shown; None where they are not at hand.
        class_names: by label, as far as they are known.
        domains: of a domain-incremental run: rows of its ``domains.csv``; None of a class-incremental one.
    """

    name: str
    settings: Mapping[str, Any]
    results: pd.DataFrame
    memories: Mapping[str, ReplayMemory] = field(default_factory=dict)
    confusions: pd.DataFrame | None = None
    real: ImageSet | None = None
    class_names: Mapping[int, str] = field(default_factory=dict)
    domains: pd.DataFrame | None = None

    def label(self, memory: str) -> str:
        """What pictures call a memory."""
        found = self.settings.get("memories", {}).get(memory)
        return str(found.get("label", memory)) if isinstance(found, Mapping) else memory

    def class_name(self, label: int) -> str:
        """Of a class, or its number."""
        return str(self.class_names.get(label, label)).replace("_", " ")

    @property
    def seen(self) -> str:
        """What comes step by step: classes or domains."""
        return "classes" if self.domains is None else "domains"

    def place(self, steps: pd.Series, classes: pd.Series) -> pd.Series:
        """How many of them have come, given the steps (from 0) and the classes seen."""
        return classes if self.domains is None else steps + 1

    @property
    def steps(self) -> int:
        """Of the stream."""
        return int(self.settings["steps"])

    @property
    def finished(self) -> bool:
        """Whether every memory has rows of the last step under every class order."""
        last = self.results[self.results["step"] == self.steps - 1]
        wanted = len(self.settings["memories"]) * int(self.settings.get("class_orders", 1))
        return len(last.groupby(["memory", "class_order"])) >= wanted

    @property
    def outputs(self) -> int:
        """Classes seen after the last step that is measured."""
        return int(self.results["classes_seen"].max())
