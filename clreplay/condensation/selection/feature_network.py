"""A network trained on the data of an experience: what selections by a trained network have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clreplay.condensation.real_images import RealImages
from clreplay.networks import ConvNet, reinitialize
from clreplay.runtime.progress import Progress
from clreplay.runtime.seeding import key_seed
from clreplay.training.loop import train
from clreplay.training.settings import TrainingSettings


@dataclass(frozen=True)
class DataTrainingSettings(TrainingSettings):
    """How a network is trained on an experience's data; no drop of the learning rate by default."""

    lr_drop: float = 1.0

    def epochs_for(self, images: int) -> int:
        """Exactly the requested epochs: the extra one belongs to the evaluation protocol."""
        return self.epochs if self.updates is None else super().epochs_for(images)


def trained_on(
    real: RealImages,
    settings: DataTrainingSettings,
    purpose: str,
    *,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
    unit: str = "epochs",
    watch: Callable[[Tensor, Tensor, Tensor], None] | None = None,
) -> nn.Module:
    """A fresh network with an output a class, trained on all images of an experience.

    Args:
        real: the experience. Its classes come one after another, each in the order of ``real.raw``.
        settings: network and training.
        purpose: beside ``seed`` and the classes' keys, what weights and shuffling are keyed by.
        seed, device, progress: as of every condenser.
        unit: what an epoch is called in progress.
        watch: see :func:`clreplay.training.loop.train`; rows are those of all classes one after another, labels
            the positions of the classes in ``real.classes``.

    Raises:
        FloatingPointError: training diverged.
    """
    key = (seed, purpose, *(real.keys[label] for label in real.classes))
    network = settings.build(len(real.classes), real.shape[0], real.shape[1])
    reinitialize(network, key_seed(*key, "network"))
    network.to(device)
    if isinstance(network, ConvNet):
        network.fuse()
    labels = torch.cat([torch.full((real.count(label),), i) for i, label in enumerate(real.classes)])
    train(
        network,
        torch.cat([real.raw(label) for label in real.classes]).to(device),
        labels.to(device),
        settings,
        key,
        real.normalization if real.images.dtype == torch.uint8 else None,
        None if progress is None else lambda done, total: progress(done, total, unit),
        watch,
    )
    return network
