#!/usr/bin/env python
"""The class-incremental run on any data set; see --help. The same as ``clreplay run class-incremental``."""

import sys

from clreplay.incremental.doors import door_main

if __name__ == "__main__":
    sys.exit(door_main("class-incremental"))
