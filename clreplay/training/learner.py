"""Train a learner by whichever loop its settings are of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from clreplay.data import Normalization
from clreplay.training.cutmix import CutMixSettings, train_with_cutmix
from clreplay.training.loop import train
from clreplay.training.settings import TrainingSettings


def train_learner(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    settings: TrainingSettings,
    key: tuple[int | str, ...],
    normalization: Normalization | None = None,
    progress: Callable[[int, int], None] | None = None,
    keep: Path | None = None,
) -> float:
    """:func:`clreplay.training.loop.train`, or with :class:`CutMixSettings` its relative that mixes images.

    Arguments, what is returned and errors are theirs.
    """
    if isinstance(settings, CutMixSettings):
        return train_with_cutmix(network, images, labels, settings, key, normalization, progress, keep)
    return train(network, images, labels, settings, key, normalization, progress, keep=keep)
