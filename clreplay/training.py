"""Train a network from scratch on a set of images and measure its accuracy (the DM evaluation protocol)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clreplay.allocator import keep_freed_memory
from clreplay.augment import DSA_STRATEGY, augment_images, draw, parse_strategy
from clreplay.chance import generator
from clreplay.data import ImageSet, Normalization
from clreplay.networks import Network
from clreplay.networks.table import build_network, find_network, network_options

_OPTIONS = ("width", "depth", "norm", "activation", "pooling")


@dataclass(frozen=True)
class NetworkSettings:
    """A network: its name and its options.

    Attributes:
        network: any name of :func:`clreplay.networks.network_names`, in any case. What the name stands for
            (``convnetbn``: ``norm`` batch) is written into the option's field.
        width, depth, norm, activation, pooling: see :class:`clreplay.networks.ConvNet`; ``depth`` None follows
            the resolution. At its default, an option is left to the network, so those that it does not have
            must stay there.

    Raises:
        ValueError: a name or an option is unknown or wrong, or the network has no such option.
    """

    network: str = "convnet"
    width: int = 128
    depth: int | None = None
    norm: str = "instance"
    activation: str = "relu"
    pooling: str = "avg"

    def __post_init__(self) -> None:
        entry, given = find_network(self.network), self._given()
        for option, value in given.items():
            if option not in entry.options():
                default = NetworkSettings.__dataclass_fields__[option].default
                raise ValueError(
                    f"{option} must stay at {default!r} with network {entry.name}, which has no {option}; got {value!r}"
                )
        chosen = network_options(entry.name, given)
        # One spelling; and where the name stands for batch norm, whoever asks ``norm`` must be told so.
        object.__setattr__(self, "network", entry.name.lower())
        for option in _OPTIONS:
            object.__setattr__(self, option, chosen.get(option, getattr(self, option)))

    def _given(self) -> dict[str, Any]:
        """The options that are not at their default."""
        defaults = {option: NetworkSettings.__dataclass_fields__[option].default for option in _OPTIONS}
        return {option: getattr(self, option) for option in _OPTIONS if getattr(self, option) != defaults[option]}

    def described(self) -> str:
        """The network in words: its name, and its width where that is an option."""
        entry = find_network(self.network)
        return f"{entry.name} of width {self.width}" if "width" in entry.options() else entry.name

    def build(self, num_classes: int, channels: int, image_size: int) -> Network:
        """A network for images of this shape, whose weights are still to be drawn from a keyed chance.

        The global generator is left as it was, so weights that are not redrawn are the same in every network.
        """
        with torch.random.fork_rng(devices=[]):
            return build_network(self.network, num_classes, channels, image_size, **self._given())


@dataclass(frozen=True)
class TrainingSettings(NetworkSettings):
    """How a network is trained on a memory; the defaults are DM's evaluation protocol.

    Attributes:
        epochs: epochs asked for; as in the authors' script one more runs. Ignored when ``updates`` is set.
        updates: length in optimiser steps instead of epochs, the same whatever the memory's size
            (scaled presets); rounded up to whole epochs.
        lr, momentum, weight_decay: of SGD.
        lr_drop: factor on the learning rate after half of the epochs; momentum starts anew there, because
            the authors' script builds a new optimiser. 1 leaves both alone.
        batch_size: images a step; the last batch of an epoch may be smaller.
        augment: see :func:`clreplay.augment.parse_strategy`; parameters are drawn per image.
    """

    epochs: int = 1000
    updates: int | None = None
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    lr_drop: float = 0.1
    batch_size: int = 256
    augment: str | None = DSA_STRATEGY

    nesterov: ClassVar[bool] = False  # no setting of a memory's learner; training on real data can make it one

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_strategy(self.augment)
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.updates is not None and self.updates < 1:
            raise ValueError(f"updates must be at least 1 (or null for epochs), got {self.updates}")
        if self.lr <= 0:
            raise ValueError(f"lr must be positive, got {self.lr}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be within [0, 1), got {self.momentum}")
        for name in ("weight_decay", "lr_drop"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def epochs_for(self, images: int) -> int:
        """Epochs that really run on a memory of ``images`` images."""
        if self.updates is None:
            return self.epochs + 1
        return math.ceil(self.updates / math.ceil(images / self.batch_size))

    def drop_after(self, images: int) -> int | None:
        """Index of the epoch after which the learning rate drops (501 of 0..1000 in the paper's protocol)."""
        if self.lr_drop == 1.0:
            return None  # nothing drops, so momentum goes on too
        epochs = self.epochs_for(images)
        return self.epochs // 2 + 1 if self.updates is None else epochs // 2 - 1


class BatchSource:
    """Shuffled, augmented mini-batches of a fixed set, on its device; an epoch's chance is keyed by its number.

    Iterating never touches the global generator, so whatever else a program draws cannot change training.

    Args:
        images: (n, c, h, w), normalised floats, or uint8 with ``normalization``.
        labels: (n,) on the same device.
        batch_size: images a batch; the last may be smaller.
        augment: strategy string or None.
        key: what the chance of this training is keyed by.
        normalization: for uint8 images.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        augment: str | None,
        key: tuple[int | str, ...],
        normalization: Normalization | None = None,
    ) -> None:
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.strategy, self.key, self.normalization = parse_strategy(augment), key, normalization

    def __len__(self) -> int:
        return math.ceil(len(self.images) / self.batch_size)

    def rows(self, epoch: int) -> list[tuple[Tensor, float, Tensor]]:
        """Of every batch of an epoch: rows, the operator's choice, and parameters an image."""
        chance = generator(*self.key, "epoch", epoch)
        n, device = len(self.images), self.images.device
        order = torch.randperm(n, generator=chance)
        choices = torch.rand(len(self), generator=chance).tolist()
        parameters = draw(n, self.strategy, chance)[:, 1:].to(device)
        batches = zip(order.to(device).split(self.batch_size), choices, parameters.split(self.batch_size))
        return list(batches)

    def batch(self, rows: Tensor, choice: float, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """One mini-batch: augmented images and labels."""
        images = self.images[rows]
        if self.normalization is not None:
            images = self.normalization.apply(images)
        return augment_images(images, choice, parameters, self.strategy), self.labels[rows]

    def epoch(self, epoch: int):
        """The mini-batches of one epoch."""
        for rows, choice, parameters in self.rows(epoch):
            yield self.batch(rows, choice, parameters)


def train(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    settings: TrainingSettings,
    key: tuple[int | str, ...],
    normalization: Normalization | None = None,
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[Tensor, Tensor, Tensor], None] | None = None,
) -> None:
    """Train ``network`` in place by cross-entropy, all the way; no test data, no early stopping.

    Args:
        network: on the images' device.
        images: (n, c, h, w) normalised floats, or uint8 with ``normalization``.
        labels: (n,) integers.
        settings: length, optimiser, augmentation.
        key: what shuffling and augmentation are keyed by, e.g. ``(seed, "train", order, step, network)``.
        normalization: for uint8 images.
        progress: called with epochs done and epochs in all.
        watch: called with every batch as it is presented: rows, labels and the logits before its update.

    Raises:
        FloatingPointError: the loss is no longer finite at the end.
    """
    source = BatchSource(images, labels, settings.batch_size, settings.augment, key, normalization)
    epochs, drop_after = settings.epochs_for(len(images)), settings.drop_after(len(images))
    lr = settings.lr
    optimizer = _optimizer(network, settings, lr)
    if images.device.type == "cpu":
        keep_freed_memory()
    network.train()
    for epoch in range(epochs):
        for rows, choice, parameters in source.rows(epoch):
            batch, targets = source.batch(rows, choice, parameters)
            logits = network(batch)
            loss = F.cross_entropy(logits, targets)
            if watch is not None:
                watch(rows, targets, logits.detach())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if epoch == drop_after:
            lr *= settings.lr_drop
            optimizer = _optimizer(network, settings, lr)
        if progress is not None:
            progress(epoch + 1, epochs)
    if not torch.isfinite(loss):
        raise FloatingPointError(f"training diverged (loss {loss.item()}); lower lr (now {settings.lr})")


def _optimizer(network: nn.Module, settings: TrainingSettings, lr: float) -> torch.optim.SGD:
    options = {"momentum": settings.momentum, "weight_decay": settings.weight_decay, "nesterov": settings.nesterov}
    return torch.optim.SGD(network.parameters(), lr=lr, **options)


@torch.no_grad()
def accuracy(
    network: nn.Module, test: ImageSet, normalization: Normalization, device: torch.device, batch_size: int = 512
) -> float:
    """Percent of test images whose largest logit is their label's; unseen outputs are not masked.

    The mode of the network and of every module in it is left as it was found.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    right = torch.zeros((), dtype=torch.int64, device=device)
    for images, labels in zip(test.images.split(batch_size), test.labels.split(batch_size)):
        logits = network(normalization.apply(images.to(device)))
        right += (logits.argmax(1) == labels.to(device)).sum()
    for module, training in modes:
        module.training = training
    return 100.0 * int(right) / len(test)
