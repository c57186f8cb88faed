"""Distribution matching as a method: the matching engine on fresh random networks, calibrated on the spot."""

from __future__ import annotations

from pathlib import Path

import torch

from clreplay.condensation.engine.calibration import choose_execution
from clreplay.condensation.matching.engine import MatchingEngine
from clreplay.condensation.matching.settings import MatchingSettings
from clreplay.condensation.real_images import RealImages
from clreplay.condensation.registry import Condensed, register
from clreplay.runtime.progress import Progress


# Batch statistics mix the classes; everything else of a matching loss separates over them.
@register(
    "matching",
    MatchingSettings,
    separable=lambda settings: settings.norm != "batch",
    choose_execution=lambda settings, real, counts, device: choose_execution(
        MatchingEngine, settings, real, counts, device
    ),
)
def condense_by_matching(
    real: RealImages,
    counts: dict[int, int],
    settings: MatchingSettings,
    *,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
    keep: Path | None = None,
) -> Condensed:
    """Distribution matching with the terms that the settings compose."""
    return MatchingEngine(real, counts, settings, seed, device).run(progress, keep)
