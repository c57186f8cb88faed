"""The replay memory: slots under a budget, codes, decoders and files; and the cache of condensed classes."""

from clreplay.memory.budget import Budget
from clreplay.memory.class_cache import ClassCache
from clreplay.memory.replay_memory import ReplayMemory

__all__ = [
    "Budget",
    "ClassCache",
    "ReplayMemory",
]
