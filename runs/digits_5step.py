#!/usr/bin/env python
"""The class-incremental run, offline: scikit-learn's handwritten digits, two classes a step.

    python runs/digits_5step.py --memory random ddm

The same flags and files as runs/cifar100_5step.py; nothing is downloaded. The digits are enlarged to
32 x 32 pixels; the memory keeps 5 images of every class unless --images-per-class says otherwise.
"""

import sys

from clreplay.incremental.cli import continual_main

if __name__ == "__main__":
    sys.exit(continual_main("digits", __doc__))
