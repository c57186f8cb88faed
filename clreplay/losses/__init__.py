"""The terms of a matching loss; pure tensor functions, one idea a file."""

from clreplay.losses.attention import AttentionMatching, attention_maps
from clreplay.losses.cross_entropy import TrustedCrossEntropy, class_cross_entropy
from clreplay.losses.discrimination import discrimination
from clreplay.losses.diversity import IntraClassDiversity, intra_class_diversity, neighbour_count
from clreplay.losses.gradient_distance import gradient_distance, row_cosine, squared_difference, whole_cosine
from clreplay.losses.layer_alignment import LayerAlignment, layer_alignment
from clreplay.losses.mean_matching import MeanMatching, mean_matching
from clreplay.losses.style import CorrelationMatching, MomentMatching, StyleMatching, channel_moments, gram
from clreplay.losses.term import TERMS, Term, register_term, setting

__all__ = [
    "AttentionMatching",
    "CorrelationMatching",
    "IntraClassDiversity",
    "LayerAlignment",
    "MeanMatching",
    "MomentMatching",
    "StyleMatching",
    "TERMS",
    "Term",
    "TrustedCrossEntropy",
    "attention_maps",
    "channel_moments",
    "class_cross_entropy",
    "discrimination",
    "gradient_distance",
    "gram",
    "intra_class_diversity",
    "layer_alignment",
    "mean_matching",
    "neighbour_count",
    "register_term",
    "row_cosine",
    "setting",
    "squared_difference",
    "whole_cosine",
]
