#!/usr/bin/env python
"""Handwritten digits in five steps, offline; see --help. The same as ``clreplay run digits-5step``."""

import sys

from clreplay.incremental.doors import door_main

if __name__ == "__main__":
    sys.exit(door_main("digits-5step"))
