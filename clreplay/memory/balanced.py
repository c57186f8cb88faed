"""Rows of labelled images that are drawn class by class, so that no class is met more often than another."""

from __future__ import annotations

import torch
from torch import Tensor


def balanced_rows(labels: Tensor, count: int, chance: torch.Generator) -> Tensor:
    """Draw rows so that all classes come in turn, and all images of a class before one of them comes again.

    Args:
        labels: (n,) integers, whatever they are and however many images a class has.
        count: rows to draw; it may exceed n.
        chance: generator on the CPU.

    Returns:
        (count,) int64 rows on the CPU: of the rows ``[i * c, (i + 1) * c)`` each has another of the c classes, in an
        order that is drawn anew each time.

    Raises:
        ValueError: there are no labels.
    """
    if not len(labels):
        raise ValueError("labels must not be empty, got none; nothing can be drawn of no class")
    found, places = torch.unique(labels.cpu(), return_inverse=True)
    turns = torch.rand(-(-count // len(found)), len(found), generator=chance).argsort(1).flatten()[:count]
    rows = torch.empty(count, dtype=torch.int64)
    for place in turns.unique().tolist():
        mine = (turns == place).nonzero().squeeze(1)
        own = (places == place).nonzero().squeeze(1)
        rounds = [own[torch.randperm(len(own), generator=chance)] for _ in range(-(-len(mine) // len(own)))]
        rows[mine] = torch.cat(rounds)[: len(mine)]
    return rows


def distinct_rows(labels: Tensor, count: int, chance: torch.Generator) -> Tensor:
    """Draw rows so that all classes come in turn and none twice: a class that is used up leaves its turns to others.

    Args:
        labels, chance: as for :func:`balanced_rows`.
        count: rows to draw; fewer come where there are not so many.

    Returns:
        (min(count, n),) int64 rows on the CPU.
    """
    order = torch.randperm(len(labels), generator=chance)
    order = order[labels.cpu()[order].argsort(stable=True)]  # by class, shuffled inside
    sizes = torch.unique(labels.cpu(), return_counts=True)[1]
    turn = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return order[(turn + torch.rand(len(labels), generator=chance, dtype=torch.float64)).argsort()[:count]]
