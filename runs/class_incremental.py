#!/usr/bin/env python
"""The class-incremental run on any data set; the same flags and files as runs/cifar100_5step.py.

    python runs/class_incremental.py --dataset tinyimagenet --steps 10 --memory random ddm
    python runs/class_incremental.py --dataset folder:flowers@64 --steps 3 --memory ddm

A folder has train/ and test/ (or val/), each with a folder a class; @64 resizes its images to 64 x 64.
"""

import sys

from clreplay.incremental.cli import continual_main

if __name__ == "__main__":
    sys.exit(continual_main(None, __doc__))
