"""What a plugin is between experiences: tensors and plain values only, to be saved and gone on from.

Nothing here imports Avalanche.
"""

from __future__ import annotations

import copy
from typing import Any

CAME_LATER = ("keys", "made_with", "optimizer")
"""Not in states of before; they are checked where they are."""


def state_of(plugin: Any) -> dict[str, Any]:
    """All of it."""
    return {
        "memory": plugin.memory.state_dict(),
        "seen": list(plugin.seen),
        "task_labels": dict(plugin.task_labels),
        "experiences": plugin.experiences,
        "unfinished": list(plugin.unfinished),
        "optimizer_start": copy.deepcopy(plugin.starts.optimizer),
        "scheduler_start": copy.deepcopy(plugin.starts.schedulers),
        "optimizer": _optimizer_of(plugin),
        "keys": dict(plugin.keys),
        "made_with": _made_with(plugin),
    }


def go_on_from(plugin: Any, state: dict[str, Any]) -> None:
    """Load it.

    Raises:
        ValueError: the state is incomplete, or of a plugin that was made otherwise; nothing is changed then.
    """
    missing = [name for name in state_of(plugin) if name not in state and name not in CAME_LATER]
    if missing:
        raise ValueError(f"the plugin's state lacks {', '.join(missing)}; it is incomplete")
    ours, theirs = _made_with(plugin), {"mode": "retrain", "memory_share": None, **state.get("made_with", {})}
    other = [f"{name} {value!r} (here {ours.get(name)!r})" for name, value in theirs.items() if ours.get(name) != value]
    if other:
        raise ValueError(f"the state is of a plugin with {', '.join(other)}; make this one as that was made")
    plugin.memory.load_state_dict(state["memory"])
    plugin.seen, plugin.experiences = list(state["seen"]), state["experiences"]
    plugin.task_labels, plugin.unfinished = dict(state["task_labels"]), list(state["unfinished"])
    plugin.keys = dict(state.get("keys", {}))
    plugin.optimizer_state = copy.deepcopy(state.get("optimizer"))
    plugin.starts.load(state["optimizer_start"], state["scheduler_start"])


def _optimizer_of(plugin: Any) -> dict[str, Any] | None:
    """Momentum and rates with which rehearsing goes on; None where every experience starts anew."""
    strategy = plugin.strategy()
    return None if plugin.rehearsal is None or strategy is None else copy.deepcopy(strategy.optimizer.state_dict())


def _made_with(plugin: Any) -> dict[str, Any]:
    """What two plugins must have in common to go on from one another."""
    memory = plugin.memory
    budget, value = memory.budget.given
    return {
        "condenser": plugin.name,
        "mode": "retrain" if plugin.rehearsal is None else "rehearse",
        "memory_share": None if plugin.rehearsal is None else plugin.rehearsal.memory_share,
        "seed": plugin.seed,
        "training_seed": plugin.training_seed,
        budget: value,
        "store": memory.store,
        "pixels": memory.stored_pixels,
    }
