"""How long matching takes here, from a few iterations."""

from __future__ import annotations

from dataclasses import replace

import torch

from clreplay.condensation.engine.calibration import Trial
from clreplay.condensation.engine.execution import Execution
from clreplay.condensation.matching.engine import MatchingEngine
from clreplay.condensation.matching.settings import MatchingSettings, under_random_networks
from clreplay.condensation.real_images import RealImages


def seconds_per_class_iteration(
    settings: MatchingSettings, execution: Execution, real: RealImages, counts: dict[int, int], device: torch.device
) -> float:
    """Seconds of one iteration of one class, networks at hand.

    Args:
        settings, execution: of the memory.
        real, counts: an experience, of which the first classes are tried, and images to make of every class.
        device: where.
    """

    def seconds(reuse: int) -> float:
        reusing = replace(under_random_networks(settings), network_reuse=reuse)
        return Trial(MatchingEngine, reusing, execution, real, counts, device)({})

    if settings.network_reuse == 1:
        return seconds(1)
    again = seconds(10**9)  # the same network from the second on: only the synthetic side is computed
    return (seconds(1) + (settings.network_reuse - 1) * again) / settings.network_reuse
