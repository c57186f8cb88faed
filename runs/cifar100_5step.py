#!/usr/bin/env python
"""CIFAR-100 in five steps of twenty classes; see --help. The same as ``clreplay run cifar100-5step``."""

import sys

from clreplay.incremental.doors import door_main

if __name__ == "__main__":
    sys.exit(door_main("cifar100-5step"))
