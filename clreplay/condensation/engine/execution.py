"""How a condensation is computed, apart from what: choices that change its speed and its float rounding only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch


def resume_execution(settings: Any, chosen: Mapping[str, Any], device: torch.device) -> Any:
    """Settings whose open choices are those that were made before, so that a run keeps to them.

    Args:
        settings: a settings dataclass; open are values of ``auto``, and of None on a CPU (how many classes a GPU
            works on together depends on its free memory).
        chosen: values by name of setting; only what a calibration chooses is looked at.
        device: where the work will be done.
    """
    names = {field.name for field in fields(settings)} if is_dataclass(settings) else set()
    open_values = ("auto", None) if device.type == "cpu" else ("auto",)
    known = [name for name in EXECUTION_FIELDS if name in names and name in chosen]
    taken = {name: chosen[name] for name in known if getattr(settings, name) in open_values}
    return replace(settings, **taken) if taken else settings


EXECUTION_FIELDS = ("kernels", "layout", "parallel", "precision", "classes_at_once")


def summary(settings: Any) -> str | None:
    """Settled choices in words; None for settings that have none."""
    if any(not hasattr(settings, name) for name in EXECUTION_FIELDS):
        return None
    threads = torch.get_num_threads()
    spread = f", classes in {threads} threads" if settings.parallel == "classes" else ""
    return f"{settings.kernels} kernels, {settings.layout.replace('_', '-')} maps, {settings.precision}{spread}"


PARALLEL = ("auto", "classes", "operators")
