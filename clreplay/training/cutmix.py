"""Training as IDC's authors evaluate: CutMix, a composed augmentation, two drops of the learning rate.

Source: IDC (Kim et al., ICML 2022), the evaluation that DANCE and NCFM follow, as in the authors' code. Here
the network of the last epoch counts; their code also prints the best accuracy of all epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clreplay.data import Normalization
from clreplay.runtime.checks import check_share
from clreplay.runtime.precision import logits_in
from clreplay.runtime.seeding import generator
from clreplay.training.augmentation import OPERATORS
from clreplay.training.going_on import Training
from clreplay.training.loop import changed_by_training, check_finite, fit_by_settings, whose
from clreplay.training.settings import TrainingSettings

FIRST = ("flip", "color")
"""Operators that every image gets, in this order; one of the strategy's others follows."""


@dataclass(frozen=True)
class CutMixSettings(TrainingSettings):
    """How a network is trained; the defaults are IDC's for images of 32 pixels.

    Attributes:
        augment: operators joined by ``_``: flip and color are applied to every batch, then one of the others, drawn
            a batch; parameters an image. None for no augmentation.
        lr_drop: factor on the learning rate after two thirds and after five sixths of the epochs; momentum goes on.
        mix: probability that a batch is mixed by CutMix.
    """

    lr_drop: float = 0.2
    batch_size: int = 64
    augment: str | None = "color_crop_flip_scale_rotate"
    mix: float = 0.5

    drop_resets_momentum: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if "+" in (self.augment or ""):
            raise ValueError(f"augment must join operators with '_', got {self.augment!r}; their order is fixed here")
        check_share(self, "mix")

    def epochs_for(self, images: int) -> int:
        """Exactly ``epochs``: the extra one belongs to DM's protocol."""
        return self.epochs if self.updates is None else super().epochs_for(images)

    def drops_after(self, images: int) -> set[int]:
        """Indices of the epochs after which the learning rate drops."""
        epochs = self.epochs_for(images)
        return {2 * epochs // 3 - 1, 5 * epochs // 6 - 1} - {-1}


def train_with_cutmix(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    settings: CutMixSettings,
    key: tuple[int | str, ...],
    normalization: Normalization | None = None,
    progress: Callable[[int, int], None] | None = None,
    keep: Path | None = None,
) -> float:
    """Train ``network`` in place by cross-entropy on mixed batches from start to end; no test data, no early stopping.

    Args:
        network: on the images' device.
        images: (n, c, h, w) normalised floats, or uint8 with ``normalization``.
        labels: (n,) integers.
        settings: length, optimiser, augmentation, mixing.
        key: what all chance is keyed by.
        normalization: for uint8 images.
        progress: called with epochs done and epochs in all.
        keep: file of a training that can be stopped, see :class:`.going_on.Training`; the caller removes it.

    Returns:
        seconds that processes before this one spent on it.

    Raises:
        FloatingPointError: the loss is no longer finite at the end.
    """

    loss = partial(mixed_loss, network, settings.precision)

    def mixed_batches(epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor, float]]:
        return batches(images, labels, settings, (*key, "epoch", epoch), normalization)

    training = Training(keep, whose(settings, key), (images, labels))
    last = fit_by_settings(
        network, changed_by_training(network), images, mixed_batches, loss, settings, progress, training
    )
    check_finite(last, settings)
    return training.seconds


def mixed_loss(network: nn.Module, precision: str, mixed: tuple[Tensor, Tensor, Tensor, float]) -> Tensor:
    """Cross-entropy of a mixed batch: of either labels, by the share of the pixels that are theirs.

    Args:
        network: brings the batch to its device.
        precision: see :func:`clreplay.runtime.precision.logits_in`.
        mixed: of :func:`batches`.
    """
    device = next(network.parameters()).device
    batch, targets, others = (part.to(device) for part in mixed[:3])
    share, logits = mixed[3], logits_in(precision, network, batch)
    value = share * F.cross_entropy(logits, targets)
    return value + (1 - share) * F.cross_entropy(logits, others) if share < 1 else value


def batches(
    images: Tensor,
    labels: Tensor,
    settings: CutMixSettings,
    key: tuple[int | str, ...],
    normalization: Normalization | None,
) -> Iterator[tuple[Tensor, Tensor, Tensor, float]]:
    """The mini-batches of one epoch: images, labels, the labels mixed in, and the weight of the former."""
    chance, device = generator(*key), images.device
    names = settings.augment.lower().split("_") if settings.augment and settings.augment.lower() != "none" else []
    always = [name for name in FIRST if name in names]
    others = [name for name in names if name not in FIRST]
    for rows in torch.randperm(len(images), generator=chance).split(settings.batch_size):
        choice, mixing = torch.rand(2, generator=chance).tolist()
        numbers = torch.rand(len(always) + 1, len(rows), 3, generator=chance).to(device)
        order, box = torch.randperm(len(rows), generator=chance), torch.rand(3, generator=chance).tolist()
        rows = rows.to(device)
        batch, targets = images[rows], labels[rows]
        if normalization is not None:
            batch = normalization.apply(batch)
        applied = always + ([others[min(int(choice * len(others)), len(others) - 1)]] if others else [])
        for name, parameters in zip(applied, numbers):
            batch = OPERATORS[name](batch, parameters)
        share = 1.0
        if mixing < settings.mix:
            batch, share = cut_and_mix(batch, batch[order.to(device)], *box)
        yield batch, targets, targets[order.to(device)], share


def cut_and_mix(images: Tensor, others: Tensor, share: float, row: float, column: float) -> tuple[Tensor, float]:
    """CutMix (Yun et al., ICCV 2019): a box of the others in the place of the images' own.

    Args:
        images, others: (n, c, h, w).
        share: share of the image's area that stays its own, uniform in [0, 1): Beta(1, 1), as in IDC.
        row, column: centre of the box as fractions of the sides; the box is clipped at the border of the image.

    Returns:
        the mixed images, and the share of the pixels that really stayed.
    """
    h, w = images.shape[-2:]
    half_h, half_w = (int(side * (1 - share) ** 0.5) // 2 for side in (h, w))
    middle_h, middle_w = int(row * h), int(column * w)
    top, bottom = max(0, middle_h - half_h), min(h, middle_h + half_h)
    left, right = max(0, middle_w - half_w), min(w, middle_w + half_w)
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (h * w)
