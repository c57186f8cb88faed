"""Distances between two gradients of one network: what gradient matching makes small (DC, Zhao et al. 2021).

A gradient is a sequence of tensors, one a parameter, each with a leading class axis: (classes, *parameter).
All classes are compared at once and none with another. PyTorch's layouts count: rows are output units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from clreplay.runtime.checks import check_choice

EPSILON = 1e-6
"""Added to the product of the norms (the authors' code); rows that are all zero are at distance one."""


def row_cosine(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Tensor:
    """One minus the cosine of every row, summed over rows and parameters (DC, section "gradient matching loss").

    A row holds the weights of one output unit. One-dimensional parameters (biases, scales and shifts of most
    norms) are passed by; those of a layer norm, (c, h, w), have c rows.

    Args:
        real, synthetic: as the module says.

    Returns:
        (classes,), between zero and twice the number of rows.
    """
    total = _zeros(real)
    for a, b in _pairs(real, synthetic):
        if a.ndim > 2:  # the class axis and a matrix
            total = total + (1 - _cosine(a.flatten(2), b.flatten(2))).sum(1)
    return total


def whole_cosine(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Tensor:
    """One minus the cosine of the whole gradients, all parameters in one vector (an option of the authors' code).

    Returns:
        (classes,), between zero and two.
    """
    a, b = (torch.cat([tensor.flatten(1) for tensor in side], 1) for side in zip(*_pairs(real, synthetic)))
    return 1 - _cosine(a, b)


def squared_difference(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Tensor:
    """The squared difference, summed over all entries of all parameters (an option of the authors' code).

    Returns:
        (classes,).
    """
    total = _zeros(real)
    for a, b in _pairs(real, synthetic):
        total = total + (a - b).square().flatten(1).sum(1)
    return total


DISTANCES: dict[str, Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]] = {
    "row_cosine": row_cosine,
    "whole_cosine": whole_cosine,
    "squared": squared_difference,
}


def gradient_distance(real: Sequence[Tensor], synthetic: Sequence[Tensor], distance: str = "row_cosine") -> Tensor:
    """The distance of that name, (classes,).

    Raises:
        ValueError: there is no such distance, or the gradients differ in their shapes.
    """
    check_choice("distance", distance, tuple(DISTANCES))
    return DISTANCES[distance](real, synthetic)


def is_compared(parameter: Tensor, distance: str = "row_cosine") -> bool:
    """Whether a distance reads the gradient of such a parameter; others need not be computed."""
    return distance != "row_cosine" or parameter.ndim > 1


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Of vectors along the last axis."""
    norms = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    cosine: Tensor = (a * b).sum(-1) / (norms + EPSILON)
    return cosine


def _zeros(gradient: Sequence[Tensor]) -> Tensor:
    return gradient[0].new_zeros(len(gradient[0]))


def _pairs(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    shapes = [[tuple(tensor.shape) for tensor in side] for side in (real, synthetic)]
    if shapes[0] != shapes[1]:  # broadcasting would give a number all the same
        raise ValueError(f"real and synthetic gradients must have the same shapes, got {shapes[0]} and {shapes[1]}")
    return list(zip(real, synthetic))
