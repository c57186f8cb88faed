"""Accuracy of one network, of several at once, and of a network under way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

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
def accuracy(
    network: nn.Module, test: ImageSet, normalization: Normalization, device: torch.device, batch_size: int = 512
) -> float:
    """Percent of test images whose largest logit is their label's; unseen outputs are not masked.

    Args:
        network: on ``device``; the mode of every module is left as it was found.
        test: uint8 images (n, c, h, w) and their labels, on any device.
        normalization: of the images the network was trained on.
        device: where to compute.
        batch_size: images of a forward pass.
    """
    right = torch.zeros((), dtype=torch.int64, device=device)
    with _evaluating([network]):
        for images, labels in zip(test.images.split(batch_size), test.labels.split(batch_size)):
            logits = network(normalization.apply(images.to(device)))
            right += (logits.argmax(1) == labels.to(device)).sum()
    return 100.0 * int(right) / len(test)


@torch.no_grad()
def accuracies_together(
    networks: Sequence[nn.Module],
    test: ImageSet,
    normalization: Normalization,
    device: torch.device,
    batch_size: int = 2048,
    max_together: int = MAX_TOGETHER,
) -> list[float]:
    """The :func:`accuracy` of every network, in percent, from forward passes of whole stacks.

    Args:
        networks: of one architecture, on ``device``; the mode of every module is left as it was found.
        test, normalization, device: see :func:`accuracy`.
        batch_size: images of a forward pass times networks, so that memory does not grow with the networks.
        max_together: networks a stack at most.

    Raises:
        ValueError: a network comes twice, architectures differ, or ``max_together`` is less than 1.
    """
    check_stack(networks, max_together)
    accuracies: list[float] = []
    with _evaluating(networks):
        for start in range(0, len(networks), max_together):
            stack = NetworkStack(networks[start : start + max_together])
            size = max(1, batch_size // len(stack.networks))
            right = torch.zeros(len(stack.networks), dtype=torch.int64, device=device)
            for images, labels in zip(test.images.split(size), test.labels.split(size)):
                logits = stack.logits(normalization.apply(images.to(device)), shared=True)  # N, b, classes
                right += (logits.argmax(2) == labels.to(device)).sum(1)
            accuracies += [100.0 * count / len(test) for count in right.tolist()]
    return accuracies


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
