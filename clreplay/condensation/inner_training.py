"""Train a network a little further on a few images: the inner loop of methods that condense along a training.

The images change between two calls and the network goes on, so nothing here starts anew: the caller owns the
network and its optimiser, and names what the chance of a call is keyed by.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clreplay.data import Normalization
from clreplay.training import BatchSource


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
        augment: see :func:`clreplay.augment.parse_strategy`; one operator a mini-batch, parameters per image.
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


@torch.no_grad()
def share_right(network: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 512) -> Tensor:
    """Share of normalised images whose largest logit is their label's, in the mode the network is in.

    Returns:
        a scalar tensor on the images' device: nothing waits for it.
    """
    right = torch.zeros((), device=images.device)
    for batch, targets in zip(images.split(batch_size), labels.split(batch_size)):
        right += (network(batch).argmax(1) == targets).sum()
    return right / len(images)
