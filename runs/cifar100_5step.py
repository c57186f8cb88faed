#!/usr/bin/env python
"""CIFAR-100 in five steps of twenty classes, with a small memory of every class seen.

    python runs/cifar100_5step.py --memory ddm
    python runs/cifar100_5step.py --memory random herding dm ddm --preset cpu

Presets: paper (20,000 iterations, width 128, 5 class orders x 3 networks x 1,001 epochs: a GPU),
cpu (width 32, short: under 15 minutes a memory on two cores, not the paper's accuracy),
smoke (under a minute for two memories; accuracies mean nothing). auto takes paper on a GPU, cpu otherwise.
"""

import sys

from clreplay.incremental.cli import continual_main

if __name__ == "__main__":
    sys.exit(continual_main("cifar100", __doc__))
