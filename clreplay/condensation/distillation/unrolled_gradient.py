"""Gradients through unrolled training, one step at a time.

Training ``w_{t+1} = w_t - eta_t * grad_w loss(w_t, batch_t)`` is walked forwards without a graph, keeping only
the weight vectors. Backwards, with ``a_t`` the gradient of the objective with respect to ``w_t`` and ``g_t`` the
recomputed gradient of step t::

    d objective / d eta_t    = -<a_{t+1}, g_t>
    d objective / d batch_t += grad_batch <-eta_t * a_{t+1}, g_t>
    a_t                      = a_{t+1} + grad_w <-eta_t * a_{t+1}, g_t>

The last two are one Hessian-vector product. So only the activations of a single step are in memory at a time, and what
grows with the number of steps is one weight vector a step; the outcome is that of the plain backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]
"""Images (b, c, h, w) and labels (b,)."""

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Weights (p,), images and labels to a scalar, twice differentiable in weights and images."""


def walk(loss: Loss, start: Tensor, batches: Sequence[Batch], step_sizes: Tensor) -> list[Tensor]:
    """Gradient descent from ``start``, one step a step size, cycling through the batches.

    Args:
        loss: of one step.
        start: (p,) weights.
        batches: step t takes batch ``t % len(batches)``.
        step_sizes: (T,).

    Returns:
        T + 1 weight vectors, ``start`` first; without a graph.
    """
    path = [start.detach()]
    for t, size in enumerate(step_sizes.detach()):
        images, labels = batches[t % len(batches)]
        weights = path[-1].requires_grad_()
        (gradient,) = torch.autograd.grad(loss(weights, images.detach(), labels), weights)
        path[-1] = weights.detach()
        path.append(path[-1] - size * gradient)
    return path


def walk_back(
    loss: Loss, path: Sequence[Tensor], batches: Sequence[Batch], step_sizes: Tensor, end: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Carry the gradient of an objective at the end of a walk back to its images and step sizes.

    Args:
        loss, batches, step_sizes: as of :func:`walk`.
        path: what :func:`walk` gave.
        end: (p,) gradient of the objective with respect to the last weights.

    Returns:
        the gradient of every batch's images, summed over the steps that took it, and of the step sizes (T,).
    """
    image_gradients: list[Tensor] = [torch.zeros_like(images) for images, _ in batches]
    size_gradients: list[Tensor] = []
    carried, sizes = end.detach(), step_sizes.detach()
    for t in reversed(range(len(sizes))):
        number = t % len(batches)
        images, labels = batches[number]
        weights, images = path[t].detach().requires_grad_(), images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(weights, images, labels), weights, create_graph=True)
        size_gradients.append(-(carried @ gradient.detach()))
        product = torch.autograd.grad(gradient, (weights, images), -sizes[t] * carried)
        carried = carried + product[0]
        image_gradients[number] += product[1]
    return image_gradients, torch.stack(size_gradients[::-1])
