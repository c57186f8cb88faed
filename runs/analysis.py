#!/usr/bin/env python
"""The paper's figures for any memories; see --help. The same as ``clreplay run analysis``."""

import sys

from clreplay.command.analysis import main

if __name__ == "__main__":
    sys.exit(main())
