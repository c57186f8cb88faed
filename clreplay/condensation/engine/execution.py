"""How a condensation is computed, apart from what: choices that change its speed and its float rounding only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from clreplay.networks.fused_forward import KERNELS, LAYOUTS
from clreplay.runtime.checks import check_choice, check_counts

PARALLEL = ("auto", "classes", "operators")
EXECUTION_FIELDS = ("kernels", "layout", "parallel", "precision", "classes_at_once")
"""What a calibration chooses: fields of :class:`Execution`, and the method's ``precision`` where that is ``auto``."""


@dataclass(frozen=True)
class Execution:
    """How to compute; results agree to float rounding whatever is chosen.

    A method says at its registration which of these it heeds.

    Attributes:
        kernels: what runs between two convolutions: ``eager``, ``native`` or ``compiled``
            (:mod:`clreplay.networks.fused_forward`), or ``auto`` to take the fastest here.
        layout: of feature maps in memory, ``contiguous`` or ``channels_last``, or ``auto``.
        parallel: on a CPU, spread the ``classes`` over its cores or the work inside of each of the
            ``operators``, or ``auto``.
        classes_at_once: classes worked on together; None measures on a CPU and fills the memory of a GPU.
        together: of gradient matching, whether the classes go through the network in one batch; None does so on a
            GPU. Not with layer norm, see :mod:`clreplay.condensation.gradient_matching.class_gradients`.

    Raises:
        ValueError: naming the field and what is allowed.
    """

    kernels: str = "auto"
    layout: str = "auto"
    parallel: str = "auto"
    classes_at_once: int | None = None
    together: bool | None = None

    def __post_init__(self) -> None:
        for name, allowed in {"kernels": KERNELS, "layout": LAYOUTS, "parallel": PARALLEL}.items():
            check_choice(name, getattr(self, name), allowed)
        check_counts(self, "classes_at_once")

    def check_norm(self, norm: str) -> None:
        """The network's norm must allow these choices.

        Raises:
            ValueError: it does not.
        """
        if self.together and norm == "layer":
            raise ValueError(
                "together must be false or null with norm='layer', got True: "
                "PyTorch's second derivative of layer norm is inexact for a batch of classes"
            )

    def plain(self, device: torch.device, norm: str) -> Execution:
        """The same with every ``auto`` as it is without measuring.

        Args:
            device: where the work is done.
            norm: of the network; batch norm mixes the classes, so they cannot be worked on apart.
        """
        eager = {"kernels": "eager", "layout": "contiguous", "parallel": "operators"}
        chosen: dict[str, Any] = {name: value for name, value in eager.items() if getattr(self, name) == "auto"}
        if self.kernels == "native":
            chosen["layout"] = "channels_last"
        if device.type != "cpu" or norm == "batch":
            chosen["parallel"] = "operators"
        elif self.classes_at_once is None:
            chosen["classes_at_once"] = 1  # a class at a time stays in the cache
        return replace(self, **chosen)

    def resume(self, chosen: Mapping[str, Any], device: torch.device) -> Execution:
        """The same with its open choices as they were made before, so that a run keeps to them.

        Args:
            chosen: values by name, of which only those of this class are looked at.
            device: where the work will be done. Open are ``auto``, and on a CPU None (how many classes a GPU works
                on together depends on its free memory).
        """
        open_values = ("auto", None) if device.type == "cpu" else ("auto",)
        names = [name for name in EXECUTION_FIELDS if hasattr(self, name) and name in chosen]
        return replace(self, **{name: chosen[name] for name in names if getattr(self, name) in open_values})
