"""The gradient that the images of a class give a network, for several classes, alone or together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap


def class_gradients(
    network: nn.Module,
    names: Sequence[str],
    images: Tensor,
    targets: Tensor,
    together: bool,
    differentiable: bool = False,
) -> list[Tensor]:
    """Gradients of the mean cross-entropy of every class's batch by the network's parameters.

    Args:
        network: in the mode it is to be used in; its parameters require gradients. Neither they nor their
            ``.grad`` are changed.
        names: of the parameters to differentiate by.
        images: (classes, n, c, h, w).
        targets: (classes,), the output that every class's images belong to.
        together: put all classes through the network in one batch (``torch.func``), which fills a GPU, instead
            of one after another, which stays in a CPU's cache. The outcome is the same to float rounding, but
            for layer norm: PyTorch's second derivative of it is off by tenths of a percent in a batch of classes.
        differentiable: keep the graph, so that the gradients can be differentiated by the images.

    Returns:
        one (classes, *parameter) tensor a name.
    """
    if together:
        return _together(network, names, images, targets, differentiable)
    parameters = dict(network.named_parameters())
    chosen = [parameters[name] for name in names]
    found = []
    for batch, target in zip(images, targets):
        loss = F.cross_entropy(network(batch), target.expand(len(batch)))
        found.append(torch.autograd.grad(loss, chosen, create_graph=differentiable))
    return [torch.stack(rows) for rows in zip(*found)]


def _together(
    network: nn.Module, names: Sequence[str], images: Tensor, targets: Tensor, differentiable: bool
) -> list[Tensor]:
    # Detached: the graph is to lead to the images only.
    everything = {name: parameter.detach() for name, parameter in network.named_parameters()}
    chosen = {name: everything[name] for name in names}

    def loss(parameters: dict[str, Tensor], batch: Tensor, target: Tensor) -> Tensor:
        logits = functional_call(network, {**everything, **parameters}, (batch,))
        return F.cross_entropy(logits, target.expand(len(batch)))

    with torch.set_grad_enabled(differentiable):  # ``grad`` itself works in either
        found = vmap(grad(loss), in_dims=(None, 0, 0))(chosen, images, targets)
    return [found[name] for name in names]
