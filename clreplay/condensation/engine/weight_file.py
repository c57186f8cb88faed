"""Weights that were trained on an experience, in a file of their own: found again by whoever needs the same ones."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clreplay.condensation.real_images import RealImages
from clreplay.runtime.checksum import read_tensors, tensor_bytes, write_bytes
from clreplay.runtime.files import user_cache
from clreplay.runtime.seeding import content_address

logger = logging.getLogger(__name__)

ARITHMETIC = 1
"""Raised whenever a change of the code changes trained weights."""


@dataclass(frozen=True)
class Saved:
    """What a file holds.

    Attributes:
        weights: the kept ones, (rows, parameters).
        epoch: epochs done.
        seconds: that they took.
        current, momentum: of a training that is not finished, (parameters,).
        buffers: what the network has beside weights, by name: statistics of batch norm.
    """

    weights: Tensor
    epoch: int
    seconds: float
    current: Tensor | None = None
    momentum: Tensor | None = None
    buffers: Mapping[str, Tensor] = field(default_factory=dict)


class WeightFile:
    """The file of one network's weights, finished or in training; a full or read-only disk costs a warning.

    Args:
        real: the experience; its classes, in order, and their images are part of the address.
        device: its kind is, too, and the version of PyTorch.
        parts: all else that decides the weights, as JSON knows it.
        traced: whether ``parts`` tell the network's code; otherwise nothing is found and nothing is kept.
    """

    def __init__(self, real: RealImages, device: torch.device, parts: Sequence[Any], traced: bool = True) -> None:
        self.traced = traced
        classes = [[real.keys[label], real.count(label)] for label in real.classes]
        name = content_address(ARITHMETIC, classes, torch.device(device).type, *parts)
        self.path = user_cache() / "weights" / f"{name}.safetensors"

    @property
    def under_way(self) -> Path | None:
        """File beside it of a training that is kept by :class:`clreplay.training.going_on.Training`."""
        return self.path.with_suffix(".training") if self.traced else None

    def load(self, parameters: int) -> Saved | None:
        """What is there; None if nothing is, or nothing that fits so many parameters."""
        if not self.traced or not self.path.is_file():
            return None
        try:
            tensors, about = read_tensors(self.path, ("epoch", "seconds"))
            buffers = {name.removeprefix("buffer."): t for name, t in tensors.items() if name.startswith("buffer.")}
            found = Saved(
                tensors["weights"],
                int(about["epoch"]),
                float(about["seconds"]),
                tensors.get("current"),
                tensors.get("momentum"),
                buffers,
            )
            rows = [found.weights, *(part[None] for part in (found.current, found.momentum) if part is not None)]
            if any(part.ndim != 2 or part.shape[1] != parameters for part in rows):
                raise ValueError("its weights are of another network")
        except (OSError, KeyError, ValueError) as error:
            logger.warning("ignoring the damaged file of trained weights %s (%s)", self.path, error)
            return None
        return found

    def save(self, content: Saved) -> None:
        """Write all of it, or leave what is there."""
        if not self.traced:
            return
        tensors = {"weights": content.weights.cpu()}
        if content.current is not None and content.momentum is not None:
            tensors |= {"current": content.current.cpu(), "momentum": content.momentum.cpu()}
        tensors |= {f"buffer.{name}": values.cpu() for name, values in content.buffers.items()}
        about = {"epoch": str(content.epoch), "seconds": str(content.seconds)}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(self.path, tensor_bytes(tensors, about))
        except OSError as error:
            logger.warning("cannot keep trained weights in %s: %s", self.path.parent, error)
