"""How an optimizer and its schedulers began, so that every experience can begin so again.

Nothing here imports Avalanche.
"""

from __future__ import annotations

import copy
import weakref
from typing import Any


class Starts:
    """Settings of an optimizer and states of schedulers, remembered when they are first seen.

    They belong to one optimizer: another one, of another strategy or put in its place by the user, is remembered
    anew. What comes from a checkpoint goes to the optimizer that is used next.
    """

    def __init__(self) -> None:
        self.optimizer: list[dict[str, Any]] | None = None
        self.schedulers: list[dict[str, Any]] | None = None
        self._of: weakref.ref[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A pickle of the plugin must not hold the optimizer, and with it the model; a reference cannot be pickled.
        return {**self.__dict__, "_of": None}

    def load(self, optimizer: list[dict[str, Any]] | None, schedulers: list[dict[str, Any]] | None) -> None:
        """Take over what a checkpoint holds."""
        self.optimizer, self.schedulers = copy.deepcopy(optimizer), copy.deepcopy(schedulers)
        self._of = None

    def remember(self, optimizer: Any, schedulers: list[Any]) -> None:
        """Note the settings, unless they are known; schedulers that have come since are added.

        Raises:
            ValueError: a checkpoint's optimizer had another number of parameter groups.
        """
        from_a_checkpoint = self.optimizer is not None and self._of is None
        if not from_a_checkpoint and (self._of is None or self._of() is not optimizer):
            self.optimizer = [_options(group) for group in optimizer.param_groups]
            self.schedulers = []
        assert self.optimizer is not None, "noted above"
        if from_a_checkpoint and len(self.optimizer) != len(optimizer.param_groups):
            raise ValueError(
                f"the plugin's state is of an optimizer with {len(self.optimizer)} parameter group(s), this one has "
                f"{len(optimizer.param_groups)}; make the optimizer as it was"
            )
        self._of = weakref.ref(optimizer)
        known = self.schedulers or []
        self.schedulers = [*known, *(copy.deepcopy(s.state_dict()) for s in schedulers[len(known) :])]

    def restore(self, optimizer: Any, schedulers: list[Any]) -> None:
        """Begin again: settings as they were, no optimizer state, schedulers at their start."""
        optimizer.state.clear()
        for group, start in zip(optimizer.param_groups, self.optimizer or []):
            group.update(copy.deepcopy(start))
        for scheduler, start in zip(schedulers, self.schedulers or []):
            scheduler.load_state_dict(copy.deepcopy(start))


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy({name: value for name, value in group.items() if name != "params"})


def schedulers_of(strategy: Any) -> list[Any]:
    """Schedulers in plugins of the strategy, such as Avalanche's ``LRSchedulerPlugin``."""
    schedulers = (getattr(plugin, "scheduler", None) for plugin in strategy.plugins)
    return [s for s in schedulers if hasattr(s, "state_dict") and hasattr(s, "load_state_dict")]
