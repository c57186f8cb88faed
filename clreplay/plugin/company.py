"""What a strategy and its other plugins do that does not go with training on a condensed memory alone.

Nothing here imports Avalanche: classes are known by their names, their subclasses too.
"""

from __future__ import annotations

import logging
from typing import Any

from clreplay.memory.replay_memory import ReplayMemory

logger = logging.getLogger(__name__)

KEEPS_IMAGES = {
    "AGEMPlugin",
    "AR1",
    "BiCPlugin",
    "CoPEPlugin",
    "DER",
    "ER_ACE",
    "ER_AML",
    "FeCAMOracle",
    "FeatureReplay",
    "GDumbPlugin",
    "GEMPlugin",
    "GSS_greedyPlugin",
    "ICaRL",
    "MER",
    "MIRPlugin",
    "NCMOracle",
    "RARPlugin",
    "ReplayPlugin",
    "SCR",
    "_ICaRLPlugin",
}
"""Keep real images of their own and train on them, or on features of them."""

MAKES_IMAGES = {"GenerativeReplayPlugin", "TrainGeneratorAfterExpPlugin"}
"""Train on images of a generator of their own."""

RESETS_MODEL = {"FromScratchTrainingPlugin"}
"""Put the first weights back."""

HOLDS_WEIGHTS = {
    "CWRStarPlugin",
    "EWCPlugin",
    "FeatureDistillationPlugin",
    "LFLPlugin",
    "LwFPlugin",
    "MASPlugin",
    "PackNetPlugin",
    "RWalkPlugin",
    "SynapticIntelligencePlugin",
}
"""Hold the model to what it was after the last experience."""

NO_LAST_WEIGHTS = (
    "holding the model to what it was after the last experience has no meaning where every experience starts with new "
    "weights; leave it out, unless that is what you study"
)
SHARED_AHEAD = (
    "they take their share of its total budget, and this strategy trains on fewer images than one that shared the "
    "memory step by step"
)


class Notices:
    """Warnings that are given once, until they concern something else."""

    def __init__(self) -> None:
        self.given: dict[str, list[str]] = {}

    def warn(self, what: str, names: list[str]) -> None:
        """Warn of what some names do; nothing where there are none."""
        if names and self.given.get(what) != names:
            self.given[what] = names
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            logger.warning("%s: %s", shown, what)


def check_company(strategy: Any, plugin: Any) -> None:
    """Refuse what would train on other images than the memory's, or would undo what the plugin does.

    Args:
        strategy: of Avalanche.
        plugin: the one that asks; every other plugin of its class is refused.

    Raises:
        ValueError: naming it, with the reason and the cure.
    """
    for other in (strategy, *strategy.plugins):
        if other is plugin:
            continue
        name, names = type(other).__name__, _names(other)
        if "CondensedReplayPlugin" in names:
            why = "serves a condensed memory as well, and a strategy can train on one only; give each its own strategy"
        elif names & KEEPS_IMAGES or _has_buffer(other):
            why = (
                "keeps real images of its own beside the condensed memory, so that results would be of both, or of "
                "neither; leave it out, or compare the two in strategies of their own"
            )
        elif names & MAKES_IMAGES:
            why = "adds generated images to the condensed memory, so that results would be of both; leave it out"
        elif names & RESETS_MODEL and plugin.rehearsal is not None:
            why = "puts the first weights back where rehearsing goes on with the last; leave one of the two out"
        elif names & RESETS_MODEL:
            why = "puts the first weights back where this plugin draws new ones; leave it out, this plugin does it"
        else:
            continue
        raise ValueError(f"{name} {why}")


def holders(strategy: Any) -> list[str]:
    """Names of the plugins that hold the model to what it was after the last experience."""
    return [type(other).__name__ for other in (strategy, *strategy.plugins) if _names(other) & HOLDS_WEIGHTS]


def classes_ahead(memory: ReplayMemory, served: list[int]) -> list[str]:
    """What takes a share of a memory's total budget beside the classes served; nothing where there is none."""
    ahead = memory.budget.given[0] in ("mem_size", "mem_bytes") and set(memory.classes) - {*served}
    return ["classes in memory that this strategy has not seen yet"] if ahead else []


def _names(thing: Any) -> set[str]:
    return {base.__name__ for base in type(thing).__mro__}


def _has_buffer(thing: Any) -> bool:
    """Whether it has one of Avalanche's buffers of real images, whatever it is called itself."""
    return getattr(thing, "storage_policy", None) is not None
