"""Settings of Dataset Distillation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from clreplay.condensation.engine.start import INITS
from clreplay.condensation.tiles import TiledSettings
from clreplay.networks.settings import NetworkSettings
from clreplay.runtime.checks import check_choice, check_counts, check_positive


@dataclass(frozen=True)
class UnrolledSettings(TiledSettings, NetworkSettings):
    """Settings of Dataset Distillation.

    Attributes:
        epochs: passes over the real images of an experience, a batch an update of the learned images.
        updates: length in updates instead of epochs, the same whatever the experience's size.
        real_batch: real images of all classes together an update; the last batch of an epoch may be smaller.
        distill_epochs: times the unrolled training goes through the learned images.
        step_size: initial value of every learned step size.
        networks: fresh networks an update, over which gradients are averaged.
        lr_img: of Adam, on the images and on the softplus parameters of the step sizes.
        betas: of Adam.
        lr_stages: equal stretches of the run; the learning rate halves from each to the next.
        init: ``noise`` starts from N(0, 1), ``real`` from random real images of the class.
        tiles: see :class:`TiledSettings`; a step takes all tiles of a stored image of every class.
    """

    epochs: int = 400
    updates: int | None = None
    real_batch: int = 1024
    distill_epochs: int = 3
    step_size: float = 0.02
    networks: int = 1
    lr_img: float = 0.01
    betas: tuple[float, ...] = (0.5, 0.999)
    lr_stages: int = 10
    init: str = "noise"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("init", self.init, INITS)
        check_counts(self, "epochs", "updates", "real_batch", "distill_epochs", "networks", "lr_stages")
        check_positive(self, "step_size", "lr_img")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers within [0, 1), got {list(self.betas)}")

    def updates_for(self, images: int) -> int:
        """Updates that an experience of ``images`` real images gets."""
        return self.epochs * math.ceil(images / self.real_batch) if self.updates is None else self.updates
