"""Accuracy of one network, of several at once, and of a network under way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from clreplay.data import ImageSet, Normalization
from clreplay.training.network_stack import MAX_TOGETHER, NetworkStack, check_stack


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


@torch.no_grad()
def confusion(
    network: nn.Module, test: ImageSet, normalization: Normalization, device: torch.device, batch_size: int = 512
) -> Tensor:
    """How many test images of every class are taken for which: the largest logit; unseen outputs are not masked.

    Args:
        network: on ``device``; the mode of every module is left as it was found.
        test: uint8 images (n, c, h, w) and their labels, on any device.
        normalization: of the images the network was trained on.
        device: where to compute.
        batch_size: images of a forward pass.

    Returns:
        int64 (outputs, outputs) on the CPU, ``[label, taken for]``.
    """
    with _evaluating([network]):
        return _counted(lambda shown: network(shown)[None], test, normalization, device, batch_size)[0]


def accuracy(
    network: nn.Module, test: ImageSet, normalization: Normalization, device: torch.device, batch_size: int = 512
) -> float:
    """Percent of test images whose largest logit is their label's; arguments are those of :func:`confusion`."""
    return percent_right(confusion(network, test, normalization, device, batch_size))


@torch.no_grad()
def confusions_together(
    networks: Sequence[nn.Module],
    test: ImageSet,
    normalization: Normalization,
    device: torch.device,
    batch_size: int = 2048,
    max_together: int = MAX_TOGETHER,
) -> list[Tensor]:
    """The :func:`confusion` of every network, from forward passes of whole stacks.

    Args:
        networks: of one architecture, on ``device``; the mode of every module is left as it was found.
        test, normalization, device: see :func:`confusion`.
        batch_size: images of a forward pass times networks, so that memory does not grow with the networks.
        max_together: networks a stack at most.

    Raises:
        ValueError: a network comes twice, architectures differ, or ``max_together`` is less than 1.
    """
    check_stack(networks, max_together)
    confusions: list[Tensor] = []
    with _evaluating(networks):
        for start in range(0, len(networks), max_together):
            stack = NetworkStack(networks[start : start + max_together])
            size = max(1, batch_size // len(stack.networks))
            logits = partial(stack.logits, shared=True)
            confusions += _counted(logits, test, normalization, device, size)
    return confusions


def accuracies_together(
    networks: Sequence[nn.Module],
    test: ImageSet,
    normalization: Normalization,
    device: torch.device,
    batch_size: int = 2048,
    max_together: int = MAX_TOGETHER,
) -> list[float]:
    """The :func:`accuracy` of every network in percent; arguments and errors of :func:`confusions_together`."""
    return [
        percent_right(counts)
        for counts in confusions_together(networks, test, normalization, device, batch_size, max_together)
    ]


def percent_right(counts: Tensor) -> float:
    """Percent of the images in a :func:`confusion` that are taken for what they are."""
    return 100.0 * int(counts.diagonal().sum()) / int(counts.sum())


def pair_counts(labels: Tensor, taken_for: Tensor, outputs: int) -> Tensor:
    """How often every label is taken for every output: int64 (outputs, outputs), of two vectors on one device."""
    return torch.bincount(labels * outputs + taken_for, minlength=outputs * outputs).view(outputs, outputs)


def _counted(
    logits_of: Callable[[Tensor], Tensor],
    test: ImageSet,
    normalization: Normalization,
    device: torch.device,
    batch_size: int,
) -> Tensor:
    """The :func:`confusion` of some networks, whose logits (N, b, outputs) a function gives: (N, outputs, outputs)."""
    batches = []
    for images, labels in zip(test.images.split(batch_size), test.labels.split(batch_size)):
        logits, rows = logits_of(normalization.apply(images.to(device))), labels.to(device)
        batches.append(torch.stack([pair_counts(rows, found, logits.shape[2]) for found in logits.argmax(2)]))
    return torch.stack(batches).sum(0).cpu()


@contextlib.contextmanager
def _evaluating(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Networks in evaluation mode; afterwards every module is in its own mode again."""
    modes = [(module, module.training) for network in networks for module in network.modules()]
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training
