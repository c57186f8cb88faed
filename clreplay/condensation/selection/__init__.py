"""Memories of real images: random, herding, forgetting. No pixel is modified."""

from clreplay.condensation.selection.forgetting import select_forgetting
from clreplay.condensation.selection.herding import herd, select_herding
from clreplay.condensation.selection.random_choice import select_random

__all__ = [
    "herd",
    "select_forgetting",
    "select_herding",
    "select_random",
]
