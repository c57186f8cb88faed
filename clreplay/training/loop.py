"""The training loop, and the two ways to use it: from scratch to the end, or a little further.

A network that condensation goes along with trains a little further between two steps of the images: they change
between two calls and the network goes on, so its caller owns it and its optimiser.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clreplay.data import Normalization
from clreplay.runtime.allocator import keep_freed_memory
from clreplay.runtime.precision import convolutions_in, logits_in
from clreplay.training.batches import BatchSource
from clreplay.training.settings import TrainingSettings


def fit(
    network: nn.Module,
    epochs: int,
    batches: Callable[[int], Iterable[Any]],
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Any], Tensor],
    after_epoch: Callable[[int], None] | None = None,
) -> Tensor:
    """One optimiser step a batch, epoch by epoch; nothing waits for a GPU.

    Args:
        network: trained in place, in training mode, in which it is left.
        epochs: how many.
        batches: gives the batches of an epoch by its number, counted from 0.
        optimizer: of the network's parameters.
        loss: of a batch: a scalar, or a vector of losses whose sum is minimised.
        after_epoch: called with the number of an epoch at its end.

    Returns:
        the last batch's loss, still on the device.
    """
    network.train()
    for epoch in range(epochs):
        for batch in batches(epoch):
            value = loss(batch)
            optimizer.zero_grad(set_to_none=True)
            value.backward(torch.ones_like(value))  # the gradient of the sum, without computing the sum
            optimizer.step()
        if after_epoch is not None:
            after_epoch(epoch)
    return value.detach()


def sgd_with(parameters: Iterable[Tensor], velocity: Tensor, **settings: Any) -> torch.optim.SGD:
    """SGD whose momentum is a flat vector, moved in place: it can be saved, and waits from one training to the next.

    Args:
        parameters: what it updates.
        velocity: one number a number of theirs, in their order; zeros to begin with.
        **settings: of ``torch.optim.SGD``.
    """
    parameters = list(parameters)
    optimizer = torch.optim.SGD(parameters, **settings)
    for parameter, part in zip(parameters, velocity.split([p.numel() for p in parameters])):
        optimizer.state[parameter]["momentum_buffer"] = part.view_as(parameter)
    return optimizer


def fit_by_settings(
    network: nn.Module,
    parameters: Iterable[Tensor],
    images: Tensor,
    batches: Callable[[int], Iterable[Any]],
    loss: Callable[[Any], Tensor],
    settings: TrainingSettings,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """:func:`fit` with the length, the optimiser and the drops of the learning rate that the settings ask for.

    Args:
        network, batches, loss: see :func:`fit`.
        parameters: what SGD updates. It acts on every number by itself, so weights of several networks may be
            stacked in one tensor.
        images: (n, c, h, w); their number decides the length, their device the allocator.
        settings: of the training.
        progress: called with epochs done and epochs in all.

    Returns:
        the last batch's loss, still on the device.
    """
    if images.device.type == "cpu":
        keep_freed_memory()
    epochs, drops = settings.epochs_for(len(images)), settings.drops_after(len(images))
    momentum: dict[str, Any] = {"momentum": settings.momentum, "nesterov": settings.nesterov}
    optimizer = torch.optim.SGD(parameters, lr=settings.lr, weight_decay=settings.weight_decay, **momentum)

    def after_epoch(epoch: int) -> None:
        if epoch in drops:
            for group in optimizer.param_groups:
                group["lr"] *= settings.lr_drop
            if settings.drop_resets_momentum:
                optimizer.state.clear()
        if progress is not None:
            progress(epoch + 1, epochs)

    with convolutions_in(settings.precision, images.device):
        return fit(network, epochs, batches, optimizer, loss, after_epoch)


def check_finite(loss: Tensor, settings: TrainingSettings, training: str = "training") -> None:
    """The last loss says whether training went well.

    Args:
        loss: a scalar.
        settings: of the training.
        training: what the message calls it.

    Raises:
        FloatingPointError: the loss is not finite; the message names the cure.
    """
    if not torch.isfinite(loss):
        raise FloatingPointError(f"{training} diverged (loss {loss.item()}); lower lr (now {settings.lr})")


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
        share of the images that were classified right, each just before its step: a scalar tensor.

    Raises:
        ValueError: not exactly one of ``epochs`` and ``steps`` is given, or it is below 1.
    """
    if (epochs is None) == (steps is None):
        raise ValueError(f"give either epochs or steps, got epochs={epochs} and steps={steps}")
    if (epochs or steps or 0) < 1:
        raise ValueError(f"{'steps' if epochs is None else 'epochs'} must be at least 1, got {epochs or steps or 0}")
    source = BatchSource(images.detach(), labels, batch_size, augment, key, normalization)
    device = next(network.parameters()).device
    total = len(source) * (epochs or 0) if steps is None else steps
    right, seen = torch.zeros((), device=device), 0

    def loss(drawn: tuple[Tensor, float, Tensor]) -> Tensor:
        nonlocal right, seen
        batch, targets = (part.to(device) for part in source.batch(*drawn))
        logits = network(batch)
        right = right + (logits.detach().argmax(1) == targets).sum()
        seen += len(targets)
        return F.cross_entropy(logits, targets)

    def batches(epoch: int) -> list[tuple[Tensor, float, Tensor]]:
        return source.rows(epoch)[: total - epoch * len(source)]

    fit(network, math.ceil(total / len(source)), batches, optimizer, loss)
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
    """Train ``network`` in place by cross-entropy from start to end; no test data, no early stopping.

    Args:
        network: on the images' device.
        images: (n, c, h, w) normalised floats, or uint8 with ``normalization``.
        labels: (n,) integers.
        settings: length, optimiser, augmentation.
        key: what shuffling and augmentation are keyed by, e.g. ``(seed, "train", order, step, network)``.
        normalization: for uint8 images.
        progress: called with epochs done and epochs in all.
        watch: called with every batch: rows (b,), labels (b,) and the logits (b, classes) before its update.

    Raises:
        FloatingPointError: the loss is no longer finite at the end.
    """
    source = BatchSource(images, labels, settings.batch_size, settings.augment, key, normalization)

    def loss(drawn: tuple[Tensor, float, Tensor]) -> Tensor:
        batch, targets = source.batch(*drawn)
        logits = logits_in(settings.precision, network, batch)
        if watch is not None:
            watch(drawn[0], targets, logits.detach())
        return F.cross_entropy(logits, targets)

    last = fit_by_settings(network, network.parameters(), images, source.rows, loss, settings, progress)
    check_finite(last, settings)
