"""Memories of real images: random sampling and herding. No pixel is modified."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clreplay.condensation.real_images import RealImages
from clreplay.condensation.registry import Condensed, register
from clreplay.condensation.selection.feature_network import DataTrainingSettings, trained_on
from clreplay.runtime.progress import Progress


@dataclass(frozen=True)
class HerdingSettings(DataTrainingSettings):
    """Herding on the embedding of a network trained on the experience at hand.

    Attributes:
        unit_features: scale every feature vector to length one first, as iCaRL does. Off by default, as
            in the comparison code of the condensation literature.

    The rest is the training of the feature network, whose length the papers do not give.
    """

    epochs: int = 50
    augment: str | None = "crop+flip"
    unit_features: bool = False


@register("herding", HerdingSettings)
def select_herding(
    real: RealImages,
    counts: dict[int, int],
    settings: HerdingSettings,
    *,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
    keep: Path | None = None,
) -> Condensed:
    """Greedy mean matching in feature space (Welling 2009; iCaRL); fewer images are a prefix of more."""
    real.check_counts(counts)
    unit = "epochs of the feature network"
    network = trained_on(real, settings, "herding", seed=seed, device=device, progress=progress, unit=unit)
    chosen = {}
    for label in real.classes:
        features = _embed(network, real, label, device)
        if settings.unit_features:
            features = torch.nn.functional.normalize(features, dim=1)
        chosen[label] = real.raw(label)[herd(features, counts[label])]
    return Condensed(chosen)


def herd(features: Tensor, count: int) -> Tensor:
    """Rows whose running mean tracks the mean of all: for k = 1..count take the row x, not yet taken, that
    minimises ``|| k * mean - sum of those taken - x ||``; ties go to the lower row.

    Args:
        features: (n, d).
        count: rows to take, at most n.

    Returns:
        (count,) int64, in the order taken.
    """
    features = features.to("cpu", torch.float64)
    mean, taken_sum = features.mean(0), torch.zeros_like(features[0])
    free = torch.ones(len(features), dtype=torch.bool)
    order = []
    for k in range(1, count + 1):
        distance = (k * mean - taken_sum - features).square().sum(1).masked_fill(~free, float("inf"))
        best = int(distance.argmin())
        order.append(best)
        free[best] = False
        taken_sum += features[best]
    return torch.tensor(order, dtype=torch.int64)


@torch.no_grad()
def _embed(network: torch.nn.Module, real: RealImages, label: int, device: torch.device) -> Tensor:
    network.eval()
    return torch.cat([network.embedding(real.normalise(b.to(device))) for b in real.raw(label).split(512)])
