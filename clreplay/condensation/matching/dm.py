"""Distribution matching as a method: the matching engine on fresh random networks, calibrated on the spot."""

from __future__ import annotations

from functools import partial

from clreplay.condensation.engine.calibration import choose_execution
from clreplay.condensation.matching.engine import MatchingEngine
from clreplay.condensation.matching.settings import MatchingSettings, is_separable
from clreplay.condensation.registry import register

MATCHING_EXECUTION = ("classes_at_once", "kernels", "layout", "parallel")
"""What the matching engine heeds of an execution."""

register(
    "matching",
    MatchingSettings,
    separable=is_separable,
    choose_execution=partial(choose_execution, MatchingEngine),
    execution=MATCHING_EXECUTION,
    engine=True,
)(MatchingEngine)
