#!/usr/bin/env python
"""CIFAR-10 in five steps of two classes; the same flags and files as runs/cifar100_5step.py.

python runs/cifar10_5step.py --memory random ddm --images-per-class 10
"""

import sys

from clreplay.incremental.cli import continual_main

if __name__ == "__main__":
    sys.exit(continual_main("cifar10", __doc__))
