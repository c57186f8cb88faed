#!/usr/bin/env python
"""The same classes in one domain after another; see --help. The same as ``clreplay run domain-incremental``."""

import sys

from clreplay.incremental.doors import door_main

if __name__ == "__main__":
    sys.exit(door_main("domain-incremental"))
