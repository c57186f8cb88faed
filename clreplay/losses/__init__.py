"""The terms of a matching loss; pure tensor functions, one idea a file."""

from clreplay.losses.diversity import IntraClassDiversity, intra_class_diversity, neighbour_count
from clreplay.losses.mean_matching import MeanMatching, mean_matching
from clreplay.losses.style import CorrelationMatching, MomentMatching, channel_moments, gram

__all__ = [
    "CorrelationMatching",
    "IntraClassDiversity",
    "MeanMatching",
    "MomentMatching",
    "channel_moments",
    "gram",
    "intra_class_diversity",
    "mean_matching",
    "neighbour_count",
]
