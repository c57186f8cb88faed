"""Memories of real images: random, herding, k-means, forgetting. No pixel is modified."""

from clreplay.condensation.selection.forgetting import select_forgetting
from clreplay.condensation.selection.herding import herd, select_herding
from clreplay.condensation.selection.kmeans import nearest_to_centres, select_kmeans
from clreplay.condensation.selection.random_choice import select_random

__all__ = [
    "herd",
    "nearest_to_centres",
    "select_forgetting",
    "select_herding",
    "select_kmeans",
    "select_random",
]
