"""The terms that settings of the matching engine compose."""

from __future__ import annotations

from typing import Any

from clreplay.condensation.matching.settings import MatchingSettings
from clreplay.losses import AttentionMatching, CorrelationMatching, IntraClassDiversity, MeanMatching, MomentMatching


def terms_of(settings: MatchingSettings, images_per_class: int) -> list[Any]:
    """The terms that settings compose: L_MMD + lambda (alpha L_MM + L_CM) + beta L_ICD (DDM, eq. 11), and
    attention matching (DataDAM).

    Diversity does not apply at one image a class and is left out there (DDM, section 4.2).

    Raises:
        ValueError: no term is left.
    """
    s = settings
    style = (s.style_weight * s.alpha, s.style_weight * s.correlation)
    terms = [
        MeanMatching(s.mean_weight),
        MomentMatching(style[0], s.sigma_of, s.spread, s.moment_channels, s.style_layers),
        CorrelationMatching(style[1], s.gram_quarter, s.style_layers),
        IntraClassDiversity(s.diversity_weight, s.neighbours, s.diversity_reduction, s.detach_neighbours),
        AttentionMatching(s.attention_weight, s.attention_power, s.attention_layers),
    ]
    kept = [term for term in terms if term.weight > 0 and not (term.name == "diversity" and images_per_class == 1)]
    if not kept:
        raise ValueError("every term has weight zero; give mean_weight (or another term's) a positive value")
    return kept


FLAT_NAMES: dict[str, dict[str, str]] = {
    "mean": {"weight": "mean_weight"},
    "style": {
        "weight": "style_weight",
        "moments": "alpha",
        "correlation": "correlation",
        "sigma_of": "sigma_of",
        "spread": "spread",
        "channels": "moment_channels",
        "quarter": "gram_quarter",
        "layers": "style_layers",
    },
    "diversity": {
        "weight": "diversity_weight",
        "neighbours": "neighbours",
        "reduction": "diversity_reduction",
        "detach_neighbours": "detach_neighbours",
    },
    "attention": {"weight": "attention_weight", "power": "attention_power", "layers": "attention_layers"},
}
"""The settings of every term: what a recipe calls them under ``terms:``, and their names as settings of the method."""
