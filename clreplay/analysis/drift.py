"""What a wrong style costs: networks trained on real images whose style drifts towards that of a condensed set.

The paper's argument for style matching (Fig. 1c and 1d; supplement A, equations 12 to 14).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clreplay.data import ImageSet, Normalization
from clreplay.networks.convnet import ConvNet
from clreplay.networks.redraw import reinitialize
from clreplay.runtime.precision import logits_in
from clreplay.runtime.seeding import key_seed
from clreplay.training.batches import BatchSource
from clreplay.training.evaluate import accuracy
from clreplay.training.loop import changed_by_training, check_finite, fit_by_settings
from clreplay.training.settings import TrainingSettings

if TYPE_CHECKING:
    import pandas as pd

EPSILON = 1e-8
GAMMAS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How far the style drifts, from not at all to all the way."""


class StyleDrift:
    """A block's maps with their style moved towards that of other images of the same class.

    For every channel with mean mu and variance sigma over an image's pixels, and mu', sigma' of the target style::

        map_d = sqrt((1 - gamma) sigma + gamma sigma') * (map - mu) / sqrt(sigma) + (1 - gamma) mu + gamma mu'

    The target style is the mean over the other set's images of the class, as the network has it at that moment,
    without gradient. The paper does not say after which layer: a drift before an instance norm would be undone by it,
    so it is read and applied after the activation.

    Args:
        network: a ConvNet.
        towards: the target's images, by output of the network, (k, c, h, w) normalised.
        gamma: how far, within [0, 1]; 0 changes nothing at all.
        layer: which block, from 1.

    Raises:
        ValueError: gamma or the layer is out of range.
    """

    def __init__(self, network: ConvNet, towards: Mapping[int, Tensor], gamma: float, layer: int = 1) -> None:
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma must be within [0, 1], got {gamma}")
        if not 1 <= layer <= len(network.blocks):
            raise ValueError(f"layer must be within 1 and {len(network.blocks)}, got {layer}")
        self.network, self.gamma, self.layer = network, gamma, layer
        self.images = torch.cat([towards[output] for output in sorted(towards)])
        self.counts = [len(towards[output]) for output in sorted(towards)]

    def logits(self, precision: str, images: Tensor, outputs: Tensor) -> Tensor:
        """Of drifted images, (n, classes).

        Args:
            precision: see :func:`clreplay.runtime.precision.logits_in`.
            images: (n, c, h, w).
            outputs: (n,) the class of each.
        """
        if self.gamma == 0:
            return logits_in(precision, self.network, images)
        means, variances = self._target()

        def drifted(_module: nn.Module, _inputs: tuple[Tensor, ...], maps: Tensor) -> Tensor:
            return drift(maps, means[outputs], variances[outputs], self.gamma)

        handle = self.network.blocks[self.layer - 1].activation.register_forward_hook(drifted)
        try:
            return logits_in(precision, self.network, images)
        finally:
            handle.remove()

    @torch.no_grad()
    def _target(self) -> tuple[Tensor, Tensor]:
        """Mean style of every class, (classes, channels) each."""
        _, taps = self.network.features(self.images)
        flat = taps[self.layer - 1].flatten(2)
        means, variances = flat.mean(2), flat.var(2, correction=0)
        split = (values.split(self.counts) for values in (means, variances))
        means, variances = (torch.stack([part.mean(0) for part in parts]) for parts in split)
        return means, variances


def drift(maps: Tensor, means: Tensor, variances: Tensor, gamma: float) -> Tensor:
    """Equations 12 to 14.

    Args:
        maps: (n, channels, h, w).
        means, variances: of the target style, (n, channels).
        gamma: how far.
    """
    mean, variance = maps.mean((2, 3), keepdim=True), maps.var((2, 3), correction=0, keepdim=True)
    mean_d = (1 - gamma) * mean + gamma * means[..., None, None]
    variance_d = (1 - gamma) * variance + gamma * variances[..., None, None]
    # A channel that is flat stays flat, whatever the target's spread.
    return (variance_d + EPSILON).sqrt() * (maps - mean) / (variance + EPSILON).sqrt() + mean_d


def accuracy_under_drift(
    images: Mapping[int, Tensor],
    towards: Mapping[int, Tensor],
    test: ImageSet,
    normalization: Normalization,
    settings: TrainingSettings,
    gammas: Sequence[float] = GAMMAS,
    *,
    networks: int = 3,
    layer: int = 1,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Accuracy of networks that were trained on images of drifted style; test images are not drifted.

    Args:
        images: what is trained on, by class; real ones such as herding selects.
        towards: the set whose style is drifted to, of the same classes.
        test: test images and labels; those of other classes are left out.
        normalization: of the test images.
        settings: the learner's; its network must be a ConvNet.
        gammas: how far the style drifts.
        networks: trained for every gamma, on the same weights and batches.
        layer: see :class:`StyleDrift`.
        seed, device: as everywhere.
        progress: called with networks done and in all.

    Returns:
        a row a network: ``gamma``, ``network``, ``accuracy`` (percent, last epoch).

    Raises:
        ValueError: the classes differ, the network is none, or as :class:`StyleDrift`.
    """
    import pandas as pd

    classes = sorted(images)
    if sorted(towards) != classes:
        raise ValueError(f"towards must have the classes {classes}, got {sorted(towards)}")
    device = torch.device(device)
    stacked = torch.cat([images[label] for label in classes]).to(device)
    outputs = torch.cat([torch.full((len(images[label]),), i) for i, label in enumerate(classes)]).to(device)
    target = {i: towards[label].to(device) for i, label in enumerate(classes)}
    part = test.of_classes(classes)
    placed = ImageSet(part.images, torch.searchsorted(torch.tensor(classes), part.labels.cpu()))
    rows = []
    for gamma in gammas:
        for number in range(networks):
            network = settings.build_for(len(classes), stacked.shape[1:])
            if not isinstance(network, ConvNet):
                raise ValueError(f"network must be a ConvNet, whose blocks are known, got {settings.network}")
            reinitialize(network, key_seed(seed, "drift", "weights", number))
            network.to(device)
            _train(
                network, StyleDrift(network, target, gamma, layer), stacked, outputs, settings, (seed, "drift", number)
            )
            value = accuracy(network, placed, normalization, device)
            rows.append({"gamma": float(gamma), "network": number, "accuracy": value})
            if progress is not None:
                progress(len(rows), len(gammas) * networks)
    return pd.DataFrame(rows)


def _train(
    network: ConvNet,
    style: StyleDrift,
    images: Tensor,
    outputs: Tensor,
    settings: TrainingSettings,
    key: tuple[int | str, ...],
) -> None:
    """:func:`clreplay.training.loop.train`, the network's maps drifted."""
    source = BatchSource(images, outputs, settings.batch_size, settings.augment, key)

    def loss(drawn: tuple[Tensor, float, Tensor]) -> Tensor:
        batch, targets = source.batch(*drawn)
        return F.cross_entropy(style.logits(settings.precision, batch, targets), targets)

    last = fit_by_settings(network, changed_by_training(network), images, source.rows, loss, settings)
    check_finite(last, settings)
