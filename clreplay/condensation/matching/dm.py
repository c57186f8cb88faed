"""Distribution matching as a method: the matching engine on fresh random networks, calibrated on the spot."""

from __future__ import annotations

from dataclasses import replace

import torch

from clreplay.condensation.engine.calibration import choose_execution
from clreplay.condensation.engine.execution import Execution
from clreplay.condensation.matching.engine import MatchingEngine
from clreplay.condensation.matching.settings import MatchingSettings, is_separable, under_random_networks
from clreplay.condensation.real_images import RealImages
from clreplay.condensation.registry import register
from clreplay.condensation.tiles import check_tiles, decoding

MATCHING_EXECUTION = ("classes_at_once", "kernels", "layout", "parallel")
"""What the matching engine heeds of an execution."""


def choose_image_execution(
    settings: MatchingSettings, execution: Execution, real: RealImages, counts: dict[int, int], device: torch.device
) -> tuple[MatchingSettings, Execution]:
    """What is fastest, by trying image updates under random networks: trained ones cost the same, once trained."""
    random = under_random_networks(settings)
    found, chosen = choose_execution(MatchingEngine, random, execution, real, counts, device)
    return replace(found, encoders=settings.encoders, constraint_weight=settings.constraint_weight), chosen


register(
    "matching",
    MatchingSettings,
    separable=is_separable,
    decoding=decoding,
    choose_execution=choose_image_execution,
    check=check_tiles,
    execution=MATCHING_EXECUTION,
    engine=True,
)(MatchingEngine)
