#!/usr/bin/env python
"""CIFAR-10 in five steps of two classes; see --help. The same as ``clreplay run cifar10-5step``."""

import sys

from clreplay.incremental.doors import door_main

if __name__ == "__main__":
    sys.exit(door_main("cifar10-5step"))
