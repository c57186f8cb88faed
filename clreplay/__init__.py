"""clreplay: replay memories of condensed images for continual learning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from clreplay.api import condense
    from clreplay.buffer.replay_buffer import ReplayBuffer
    from clreplay.memory.replay_memory import ReplayMemory
    from clreplay.networks import ConvNet
    from clreplay.plugin.replay import CondensedReplayPlugin, DDMReplayPlugin
    from clreplay.scoring import Evaluation, evaluate

_HOMES = {
    "CondensedReplayPlugin": "clreplay.plugin.replay",
    "ConvNet": "clreplay.networks",
    "DDMReplayPlugin": "clreplay.plugin.replay",
    "Evaluation": "clreplay.scoring",
    "ReplayBuffer": "clreplay.buffer.replay_buffer",
    "ReplayMemory": "clreplay.memory.replay_memory",
    "condense": "clreplay.api",
    "evaluate": "clreplay.scoring",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    """Import public names when they are first used: Avalanche alone costs seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'clreplay' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
