"""Train a network a little further on a few images: the inner loop of methods that condense along a training.

The images change between two calls and the network goes on, so nothing here starts anew: the caller owns the
network and its optimiser, and names what the chance of a call is keyed by.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clreplay.data import Normalization
from clreplay.runtime.allocator import keep_freed_memory
from clreplay.training.batches import BatchSource
from clreplay.training.settings import TrainingSettings


def train_further(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
    key: tuple[int | str, ...],
    *,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 256,
    augment: str | None = None,
    normalization: Normalization | None = None,
) -> Tensor:
    """Some epochs or steps of cross-entropy on a fixed set, in shuffled mini-batches; nothing waits for a GPU.

    Args:
        network: its parameters requiring gradients; trained in place, in training mode, in which it is left.
        images: (n, c, h, w), normalised, or uint8 with ``normalization``; no gradient reaches them. Where they are
            not on the network's device, every batch is brought there.
        labels: (n,) integers, on the images' device.
        optimizer: of the network's parameters, e.g. ``torch.optim.SGD(network.parameters(), lr=0.01)``. Its
            momentum goes on from call to call.
        key: what shuffling and augmentation of this call are keyed by, e.g. ``(seed, "inner", iteration)``.
        epochs, steps: how long; one of them. Steps may end within an epoch.
        batch_size: images a step; the last batch of an epoch may be smaller.
        augment: see :func:`.augmentation.parse_strategy`; one operator a mini-batch, parameters per image.
        normalization: of uint8 images.

    Returns:
        share of the images that were classified right as they went by, each before its step: a scalar tensor.

    Raises:
        ValueError: not exactly one of ``epochs`` and ``steps`` is given, or it is below 1.
    """
    if (epochs is None) == (steps is None):
        raise ValueError(f"give either epochs or steps, got epochs={epochs} and steps={steps}")
    if (epochs or steps or 0) < 1:
        raise ValueError(f"{'steps' if epochs is None else 'epochs'} must be at least 1, got {epochs or steps or 0}")
    source = BatchSource(images.detach(), labels, batch_size, augment, key, normalization)
    device = next(network.parameters()).device
    left = len(source) * epochs if steps is None else steps
    right, seen, epoch = torch.zeros((), device=device), 0, 0
    network.train()
    while left > 0:
        for rows, choice, parameters in source.rows(epoch)[:left]:
            batch, targets = (part.to(device) for part in source.batch(rows, choice, parameters))
            logits = network(batch)
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(logits, targets).backward()
            optimizer.step()
            right += (logits.detach().argmax(1) == targets).sum()
            seen += len(targets)
            left -= 1
        epoch += 1
    optimizer.zero_grad(set_to_none=True)
    return right / seen


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
