"""The terms of a matching loss; pure tensor functions, one idea a file."""

from clreplay.losses.attention import AttentionMatching, attention_maps
from clreplay.losses.content_diversity import ContentDiversity, principal_directions, spread_along
from clreplay.losses.cross_entropy import ClassConstraint, TrustedCrossEntropy, class_cross_entropy
from clreplay.losses.discrimination import discrimination
from clreplay.losses.diversity import IntraClassDiversity, intra_class_diversity, neighbour_count
from clreplay.losses.gradient_distance import gradient_distance, row_cosine, squared_difference, whole_cosine
from clreplay.losses.layer_alignment import LayerAlignment, layer_alignment
from clreplay.losses.mean_matching import MeanMatching, mean_matching
from clreplay.losses.patch_statistics import PatchMatching, patch_moments
from clreplay.losses.style import CorrelationMatching, MomentMatching, StyleMatching, channel_moments, gram
from clreplay.losses.style_diversity import StyleDiversity
from clreplay.losses.term import TERMS, Term, register_term, setting

__all__ = [
    "AttentionMatching",
    "ClassConstraint",
    "ContentDiversity",
    "CorrelationMatching",
    "IntraClassDiversity",
    "LayerAlignment",
    "MeanMatching",
    "MomentMatching",
    "PatchMatching",
    "StyleDiversity",
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
    "patch_moments",
    "principal_directions",
    "register_term",
    "row_cosine",
    "setting",
    "spread_along",
    "squared_difference",
    "whole_cosine",
]
