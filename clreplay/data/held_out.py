"""Training images held out, for choices that must not be made on test images."""

from __future__ import annotations

from dataclasses import replace

import torch

from clreplay.data.dataset import Dataset, ImageSet
from clreplay.runtime.seeding import generator

MARK = "#held-out="
"""Between the name of a data set and the share of its training images that is held out: ``cifar10#held-out=0.1``."""


def held_out_name(name: str, share: float) -> str:
    """What :func:`clreplay.data.load_dataset` calls a data set without a share of its training images.

    Args:
        name: of the whole data set.
        share: at least 0, where it is the name itself, and below 1.

    Raises:
        ValueError: it is not.
    """
    if not 0 <= share < 1:
        raise ValueError(f"the held-out share must be within [0, 1), got {share:g}")
    return f"{name}{MARK}{share:g}" if share else name


def split_name(name: str) -> tuple[str, float]:
    """The reverse of :func:`held_out_name`.

    Raises:
        ValueError: what follows the mark is no share.
    """
    whole, mark, share = name.rpartition(MARK)
    if not mark:
        return name, 0.0
    try:
        held_out_name(whole, value := float(share))
    except ValueError:
        raise ValueError(f"name must end in a share such as {MARK}0.1, got {name!r}") from None
    return whole, value


def hold_out(data: Dataset, share: float) -> Dataset:
    """The data set with a share of every class's training images moved to ``held_out``.

    Which images are moved depends on the data and the share only, so that all that is compared is told apart by the
    same images.

    Args:
        data: a data set of which nothing is held out yet.
        share: within (0, 1); at least one image of a class stays, and at least one is moved.

    Raises:
        ValueError: a class has a single image.
    """
    rows = []
    for label in data.train.labels.unique().tolist():
        mine = (data.train.labels == label).nonzero().squeeze(1)
        if len(mine) < 2:
            raise ValueError(f"class {label} of {data.name} has one image, of which none can be held out")
        count = min(max(1, round(share * len(mine))), len(mine) - 1)
        rows.append(mine[torch.randperm(len(mine), generator=generator("held out", label))[:count]])
    apart = torch.zeros(len(data.train), dtype=torch.bool)
    apart[torch.cat(rows)] = True
    return replace(
        data,
        name=held_out_name(data.name, share),
        train=ImageSet(data.train.images[~apart], data.train.labels[~apart]),
        held_out=ImageSet(data.train.images[apart], data.train.labels[apart]),
    )
