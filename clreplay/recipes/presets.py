"""Which preset is taken where nobody says, and what a person is told of that."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from clreplay.condensation.configured import ConfiguredMethod
from clreplay.condensation.engine.execution import EXECUTION_FIELDS
from clreplay.condensation.matching.settings import MatchingSettings
from clreplay.condensation.matching.trial import seconds_per_class_iteration
from clreplay.condensation.real_images import RealImages
from clreplay.recipes.recipe import Recipe
from clreplay.runtime.progress import roughly

logger = logging.getLogger(__name__)


def default_preset(device: torch.device | str) -> str:
    """``paper`` on a GPU, ``cpu`` otherwise: what is taken where nobody says."""
    return "paper" if torch.device(device).type == "cuda" else "cpu"


@dataclass(frozen=True)
class Unasked:
    """A preset that was taken because nobody asked for one, where it is not the paper's.

    Attributes:
        preset: its name.
        paper: the method under the paper's preset, single settings of the caller among them.
    """

    preset: str
    paper: ConfiguredMethod

    @classmethod
    def of(cls, asked: str | None, chosen: str, method: Any, settings: dict[str, Any], *where: Any) -> Unasked | None:
        """None where a preset was asked for, the paper's was taken, or the method is no recipe.

        Args:
            asked, chosen: presets.
            method: a recipe, or something else.
            settings, *where: of :meth:`clreplay.recipes.recipe.Recipe.configured`.
        """
        if asked is not None or chosen == "paper" or not isinstance(method, Recipe):
            return None
        return cls(chosen, method.configured("paper", settings, *where))

    def say(
        self, chosen: ConfiguredMethod, real: RealImages, images_per_class: int | None, device: torch.device
    ) -> None:
        """Log a line on it (:func:`preset_line`), if it makes a difference."""
        counts = {label: min(images_per_class or 10, real.count(label)) for label in real.classes}
        line = preset_line(self.preset, chosen, self.paper, real, counts, device)
        if line is not None:
            logger.warning(line)


def differing(chosen: ConfiguredMethod, paper: ConfiguredMethod) -> dict[str, tuple[object, object]]:
    """Settings that a preset has otherwise than the paper's: by name, both values."""
    now, then = chosen.values(), paper.values()
    return {
        name: (now.get(name), value)
        for name, value in then.items()
        if now.get(name) != value and name not in EXECUTION_FIELDS
    }


def preset_line(
    preset: str,
    chosen: ConfiguredMethod,
    paper: ConfiguredMethod,
    real: RealImages,
    counts: Mapping[int, int],
    device: torch.device,
) -> str | None:
    """A sentence on a preset that nobody asked for and on the paper's settings; None if they are the same.

    Args:
        preset: its name.
        chosen, paper: the method under either, single settings of the caller among them.
        real, counts: the experience, of which a few classes are tried for a few iterations.
        device: where.
    """
    others = differing(chosen, paper)
    if not others:
        return None
    said = ", ".join(f"{name} {_short(now)} ({_short(then)})" for name, (now, then) in others.items())
    would, settings = "", paper.settings
    if isinstance(settings, MatchingSettings):
        each = seconds_per_class_iteration(settings, paper.execution, real, dict(counts), device)
        would = f" would take {roughly(each * settings.iterations * len(real.classes))} here"
    return (
        f"{chosen.name}: preset {preset!r} was chosen, because the work is on a CPU; in brackets the paper's: {said}. "
        f"preset='paper'{would}; preset={preset!r} leaves this line out"
    )


def _short(value: object) -> str:
    return f"{value:,}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
