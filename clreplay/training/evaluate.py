"""Accuracy of one network, of several at once, and of a network under way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import stack_module_state, vmap

from clreplay.data import ImageSet, Normalization
from clreplay.training.stacked import MAX_TOGETHER, _check_alike, _forward


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
        test: uint8 images and their labels.
        normalization: of the images the networks were trained on.
        device: where to compute.
        batch_size: images of a forward pass times networks, so that memory does not grow with the networks.
        max_together: networks a stack at most.

    Raises:
        ValueError: a network comes twice, architectures differ, or ``max_together`` is less than 1.
    """
    _check_alike(networks, max_together)
    modes = [(module, module.training) for network in networks for module in network.modules()]
    found: list[float] = []
    try:
        for network in networks:
            network.eval()
        for start in range(0, len(networks), max_together):
            stack = networks[start : start + max_together]
            found += _accuracies(stack, test, normalization, device, max(1, batch_size // len(stack)))
    finally:
        for module, training in modes:
            module.training = training
    return found


def _accuracies(
    networks: Sequence[nn.Module], test: ImageSet, normalization: Normalization, device: torch.device, batch_size: int
) -> list[float]:
    parameters, buffers = stack_module_state(list(networks))
    forward = vmap(_forward(networks[0]), in_dims=(0, 0, None))
    right = torch.zeros(len(networks), dtype=torch.int64, device=device)
    for images, labels in zip(test.images.split(batch_size), test.labels.split(batch_size)):
        logits = forward(parameters, buffers, normalization.apply(images.to(device)))  # N, b, classes
        right += (logits.argmax(2) == labels.to(device)).sum(1)
    return [100.0 * count / len(test) for count in right.tolist()]
