"""The training loop, and the two ways to use it: from scratch to the end, or a little further.

A network that condensation goes along with trains a little further between two steps of the images: they change
between two calls and the network goes on, so its caller owns it and its optimiser.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clreplay.data import Normalization
from clreplay.runtime.allocator import keep_freed_memory
from clreplay.runtime.precision import convolutions_in, logits_in
from clreplay.training.batches import BatchSource
from clreplay.training.going_on import Training
from clreplay.training.settings import TrainingSettings


def fit(
    network: nn.Module,
    epochs: int,
    batches: Callable[[int], Iterable[Any]],
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Any], Tensor],
    before_epoch: Callable[[int, bool], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    training: Training | None = None,
) -> Tensor:
    """One optimiser step a batch, epoch by epoch; nothing waits for a GPU.

    Args:
        network: trained in place, in training mode, in which it is left.
        epochs: how many.
        batches: gives the batches of an epoch by its number, counted from 0.
        optimizer: of the network's parameters.
        loss: of a batch: a scalar, or a vector of losses whose sum is minimised.
        before_epoch: called with the number of an epoch, and whether it begins with its first batch, which is not so
            where a stopped training goes on.
        progress: called with epochs done and epochs in all.
        training: where it stands, if it was begun before.

    Returns:
        the last batch's loss, still on the device.
    """
    network.train()
    training = training or Training()
    for epoch in range(training.epoch, epochs):
        if before_epoch is not None:
            before_epoch(epoch, training.batch == 0)
        for batch in islice(batches(epoch), training.batch, None):
            training.update_begins()
            value = loss(batch)
            optimizer.zero_grad(set_to_none=True)
            value.backward(torch.ones_like(value))  # the gradient of the sum, without computing the sum
            training.weights_change()
            optimizer.step()
            training.update_ends(value.detach())
        training.next_epoch()
        if progress is not None:
            progress(epoch + 1, epochs)
    assert training.loss is not None, "there is at least one epoch of one batch"
    return training.loss


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
    tensors: Mapping[str, Tensor],
    images: Tensor,
    batches: Callable[[int], Iterable[Any]],
    loss: Callable[[Any], Tensor],
    settings: TrainingSettings,
    progress: Callable[[int, int], None] | None = None,
    training: Training | None = None,
) -> Tensor:
    """:func:`fit` with the length, the optimiser and the drops of the learning rate that the settings ask for.

    Args:
        network, batches, loss: see :func:`fit`.
        tensors: all that training changes, by name. SGD updates those that require gradients; it acts on every number
            by itself, so weights of several networks may be stacked in one tensor.
        images: (n, c, h, w); their number decides the length, their device the allocator.
        settings: of the training.
        progress: called with epochs done and epochs in all.
        training: the file that it is kept in.

    Returns:
        the last batch's loss, still on the device.
    """
    if images.device.type == "cpu":
        keep_freed_memory()
    epochs, drops = settings.epochs_for(len(images)), settings.drops_after(len(images))
    momentum: dict[str, Any] = {"momentum": settings.momentum, "nesterov": settings.nesterov}
    parameters = [tensor for tensor in tensors.values() if tensor.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=settings.lr, weight_decay=settings.weight_decay, **momentum)
    training = training or Training()
    training.begin(tensors, optimizer)

    def before_epoch(epoch: int, first_batch: bool) -> None:
        set_for_epoch(optimizer, settings, drops, epoch, first_batch)

    with convolutions_in(settings.precision, images.device), training.saved():
        return fit(network, epochs, batches, optimizer, loss, before_epoch, progress, training)


def set_for_epoch(
    optimizer: torch.optim.Optimizer, settings: TrainingSettings, drops: set[int], epoch: int, first_batch: bool = True
) -> None:
    """Give the optimiser the learning rate of an epoch, and new momentum where a drop asks for it.

    Args:
        optimizer: of the training.
        settings: its rate, and what a drop does.
        drops: epochs after which the rate drops.
        epoch: which begins.
        first_batch: whether it does so with its first batch; False where a stopped training goes on.
    """
    lr = settings.lr
    for _ in range(sum(0 <= drop < epoch for drop in drops)):
        lr *= settings.lr_drop
    for group in optimizer.param_groups:
        group["lr"] = lr
    if first_batch and epoch - 1 in drops and settings.drop_resets_momentum:
        optimizer.state.clear()


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
    keep: Path | None = None,
    watched: Mapping[str, Tensor] | None = None,
) -> float:
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
        keep: file of a training that can be stopped, see :class:`.going_on.Training`; the caller removes it.
        watched: what ``watch`` changes in place, by name, on the network's device; it is kept as well.

    Returns:
        seconds that processes before this one spent on it.

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

    training = Training(keep, whose(settings, key), (images, labels))
    tensors = {**changed_by_training(network), **(watched or {})}
    last = fit_by_settings(network, tensors, images, source.rows, loss, settings, progress, training)
    check_finite(last, settings)
    return training.seconds


def changed_by_training(network: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers of a network by name."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def whose(settings: TrainingSettings, *keys: tuple[int | str, ...]) -> list[Any]:
    """What makes a training this very one, beside its images; JSON values."""
    return [type(settings).__name__, asdict(settings), keys]
