"""The class-incremental scripts by name: their data set, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Door(NamedTuple):
    """One script.

    Attributes:
        dataset: the one it is for; None for any, by a flag.
        description: for ``--help``, with ``%(prog)s`` for how it was started.
        domains: whether domains come in steps, not classes.
    """

    dataset: str | None
    description: str
    domains: bool = False


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

A folder has train/ and test/ (or val/), each with a folder a class; @64 resizes its images to 64 x 64, @48x64 to
a height of 48 and a width of 64.
""",
    ),
    "domain-incremental": Door(
        None,
        """The same classes at every step, each time in another domain; a memory that all domains share.

    %(prog)s --dataset digits --domains rotate:0,30,60 --memory random ddm
    %(prog)s --dataset digits --domains none background invert --memory ddm
    %(prog)s --domains folder:photos@32 folder:sketches@32 --memory random ddm

The images a class may have are shared equally by the domains seen: older ones are dropped as domains come, never made
again. domains.csv has the accuracy on every domain, and the end says what was forgotten of each.
""",
        domains=True,
    ),
}


def door_main(name: str, argv: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run a script by its name; arguments are those of :func:`clreplay.incremental.cli.continual_main`."""
    from clreplay.incremental.cli import continual_main

    door = DOORS[name]
    return continual_main(door.dataset, door.description, argv, program, door.domains)
