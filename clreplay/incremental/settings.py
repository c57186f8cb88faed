"""Settings of the class-incremental experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clreplay.data import Normalization
from clreplay.memory.budget import Budget
from clreplay.memory.replay_memory import ReplayMemory

HOSTS = ("avalanche", "none")
PROTOCOLS = ("common", "idc")


REPEATS = {"paper": (5, 3), "cpu": (1, 3), "smoke": (1, 1)}
"""Class orders and networks a step, by preset; the paper's are DM's: five orders, three networks."""


@dataclass(frozen=True)
class ContinualSettings:
    """A requested experiment; what is None is chosen by :func:`clreplay.incremental.plan.plan_experiment`.

    Attributes:
        dataset: a name that :func:`clreplay.data.load_dataset` knows; may be empty where all domains are data sets.
        domains: of a domain-incremental experiment, see :func:`clreplay.data.domains.load_domains`: one a step, all
            with the same classes. None where classes arrive in steps.
        memories: names or recipe files of the memories to compare.
        images_per_class, mem_size, bytes_per_class, mem_bytes: the budget, one of them; see
            :class:`clreplay.memory.budget.Budget`.
        store: how images are kept, one of :data:`clreplay.memory.stores.STORES`.
        quality: of a store that is an image codec; None takes its default, ``auto`` as high as a
            budget in bytes allows, see :class:`clreplay.ReplayMemory`.
        pixels: height and width of what is kept of every image, enlarged again to be trained on.
        steps: experiences that the classes are split into evenly.
        first_step: classes of the first of them, where it is larger (or smaller); the rest is split evenly.
        class_order: labels, or names, of all classes in the order in which they come, in place of drawn orders.
        class_orders: how many orders (legacy NumPy permutations of seeds 0, 1, ...).
        networks: networks trained a step.
        preset: ``paper``, ``cpu``, ``smoke``; None takes ``paper`` on a GPU and ``cpu`` otherwise.
        device: None takes a GPU if there is one.
        host: ``avalanche`` or ``none``; None takes Avalanche where it is installed and can do what is asked.
        protocol: how every memory's networks are trained: ``common`` as DM does, ``idc`` as IDC does (CutMix, batches
            of 64, rate x 0.2 after two thirds and five sixths), without Avalanche.
        seed: of everything but the class orders.
        channels: 1 or 3, of grey sets and folders.
        cache: folder where condensed classes are stored and found again; None stores none.
        overrides: single settings, see :func:`clreplay.recipes.overrides.split_overrides`.
    """

    dataset: str = "cifar100"
    memories: tuple[str, ...] = ("ddm",)
    images_per_class: int | None = None
    mem_size: int | None = None
    bytes_per_class: int | None = None
    mem_bytes: int | None = None
    store: str = "uint8"
    quality: int | str | None = None
    pixels: int | None = None
    steps: int = 5
    first_step: int | None = None
    class_order: tuple[int | str, ...] | None = None
    class_orders: int | None = None
    networks: int | None = None
    preset: str | None = None
    device: str | None = None
    host: str | None = None
    protocol: str = "common"
    seed: int = 0
    channels: int | None = None
    data_root: str | None = None
    cache: str | Path | None = None
    domains: tuple[str, ...] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def budget(self) -> Budget:
        """The one that is given.

        Raises:
            ValueError: none is, or several.
        """
        return Budget(self.images_per_class, self.mem_size, self.bytes_per_class, self.mem_bytes)

    def memory(
        self,
        normalization: Normalization | None = None,
        total_classes: int | None = None,
        total_sources: int | None = None,
    ) -> ReplayMemory:
        """An empty memory.

        Raises:
            ValueError: there is no such budget or store.
        """
        return ReplayMemory(
            **asdict(self.budget),
            normalization=normalization,
            store=self.store,
            quality=self.quality,
            pixels=self.pixels,
            total_classes=total_classes,
            total_sources=total_sources,
        )
