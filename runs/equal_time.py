#!/usr/bin/env python
"""Memories that were each given the same time to condense; see --help. The same as ``clreplay run equal-time``."""

import sys

from clreplay.incremental.equal_time import main

if __name__ == "__main__":
    sys.exit(main())
