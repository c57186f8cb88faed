"""Tiny runs, and what is compared of them."""

from __future__ import annotations

from dataclasses import replace

import torch

from clreplay.incremental.settings import ContinualSettings
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.runtime.progress import Reporter

QUIET = Reporter(None)
TINY = {
    "ddm.iterations": 2,
    "ddm.width": 4,
    "ddm.real_batch": 6,
    "train.width": 4,
    "train.updates": 3,
    "train.lr": 0.05,
}


def tiny_settings() -> ContinualSettings:
    """Two memories of the digits, two class orders, two networks a step."""
    return ContinualSettings(
        dataset="digits", memories=("random", "ddm"), images_per_class=3, preset="smoke", host="none",
        device="cpu", networks=2, class_orders=2, overrides=TINY,
    )  # fmt: skip


def one(settings: ContinualSettings, **changes) -> ContinualSettings:
    """A single line: DDM, one order, one network."""
    return replace(settings, **{"memories": ("ddm",), "class_orders": 1, "networks": 1, **changes})


def memory_bytes_of(path) -> dict[str, torch.Tensor]:
    """The tensors of a memory's file, without those of its record."""
    state = ReplayMemory.load(path).state_dict()
    return {name: part for name, part in state.items() if name != "settings" and not name.startswith("record.")}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Whether two memories hold the same bytes."""
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)
