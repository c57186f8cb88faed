"""The class-incremental scripts by name: their data set, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Door(NamedTuple):
    """One script.

    Attributes:
        dataset: the one it is for; None for any, by a flag.
        description: for ``--help``, with ``%(prog)s`` for how it was started.
    """

    dataset: str | None
    description: str


DOORS = {
    "cifar100-5step": Door(
        "cifar100",
        """CIFAR-100 in five steps of twenty classes, with a small memory of every class seen.

    %(prog)s --memory ddm
    %(prog)s --memory random herding dm ddm --preset cpu

Presets: paper (20,000 iterations, width 128, 5 class orders x 3 networks x 1,001 epochs: a GPU),
cpu (width 32, short: under 15 minutes a memory on two cores, not the paper's accuracy),
smoke (under a minute for two memories; accuracies mean nothing). auto takes paper on a GPU, cpu otherwise.
""",
    ),
    "cifar10-5step": Door(
        "cifar10",
        """CIFAR-10 in five steps of two classes; the same flags and files as CIFAR-100 in five steps.

    %(prog)s --memory random ddm --images-per-class 10
""",
    ),
    "digits-5step": Door(
        "digits",
        """The class-incremental run, offline: scikit-learn's handwritten digits, two classes a step.

    %(prog)s --memory random ddm

The same flags and files as CIFAR-100 in five steps; nothing is downloaded. The digits are enlarged to
32 x 32 pixels; the memory keeps 5 images of every class unless --images-per-class says otherwise.
""",
    ),
    "class-incremental": Door(
        None,
        """The class-incremental run on any data set; the same flags and files as CIFAR-100 in five steps.

    %(prog)s --dataset tinyimagenet --steps 10 --memory random ddm
    %(prog)s --dataset folder:flowers@64 --steps 3 --memory ddm

A folder has train/ and test/ (or val/), each with a folder a class; @64 resizes its images to 64 x 64.
""",
    ),
}


def door_main(name: str, argv: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run a script by its name; arguments are those of :func:`clreplay.incremental.cli.continual_main`."""
    from clreplay.incremental.cli import continual_main

    dataset, description = DOORS[name]
    return continual_main(dataset, description, argv, program)
