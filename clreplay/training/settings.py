"""Train a network from scratch on a set of images and measure its accuracy (the DM evaluation protocol)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from clreplay.networks.settings import NetworkSettings
from clreplay.runtime.checks import check_choice, check_counts, check_momentum, check_not_negative, check_positive
from clreplay.runtime.precision import PRECISIONS
from clreplay.training.augmentation import DSA_STRATEGY, parse_strategy


@dataclass(frozen=True)
class TrainingSettings(NetworkSettings):
    """How a network is trained on a memory; the defaults are DM's evaluation protocol.

    Attributes:
        epochs: length in epochs; one more is run, as in the authors' script. Ignored when ``updates`` is set.
        updates: length in optimiser steps instead of epochs, the same for every size of the memory
            (scaled presets); rounded up to whole epochs.
        lr, momentum, weight_decay: of SGD.
        lr_drop: factor on the learning rate after half of the epochs; momentum starts anew there, because
            the authors' script builds a new optimiser. 1 leaves both alone.
        batch_size: images a step; the last batch of an epoch may be smaller.
        augment: see :func:`clreplay.training.augmentation.parse_strategy`; parameters are drawn per image.
        precision: of convolutions and matrix products: ``float32``, ``tf32`` (what PyTorch does by default on NVIDIA
            GPUs; elsewhere the same as float32) or ``bfloat16`` (fast on GPUs and on CPUs with ``amx_bf16`` or
            ``avx512_bf16``). Weights, their updates, augmentation and loss are in single precision in all of them.
            Testing a network always is.
    """

    epochs: int = 1000
    updates: int | None = None
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    lr_drop: float = 0.1
    batch_size: int = 256
    augment: str | None = DSA_STRATEGY
    precision: str = "tf32"

    # No settings of a memory's learner; other trainings set them or make them settings.
    nesterov: ClassVar[bool] = False
    drop_resets_momentum: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_strategy(self.augment)
        check_counts(self, "epochs", "batch_size")
        check_choice("precision", self.precision, PRECISIONS)
        if self.updates is not None and self.updates < 1:
            raise ValueError(f"updates must be at least 1 (or null for epochs), got {self.updates}")
        check_positive(self, "lr")
        check_momentum(self, "momentum")
        check_not_negative(self, "weight_decay", "lr_drop")

    def epochs_for(self, images: int) -> int:
        """Epochs that really run on a memory of ``images`` images."""
        if self.updates is None:
            return self.epochs + 1
        return math.ceil(self.updates / math.ceil(images / self.batch_size))

    def drops_after(self, images: int) -> set[int]:
        """Indices of the epochs after which the learning rate drops ({501} of 0..1000 in the paper's protocol)."""
        if self.lr_drop == 1.0:
            return set()  # nothing drops, so momentum goes on too
        return {self.epochs // 2 + 1 if self.updates is None else self.epochs_for(images) // 2 - 1}
