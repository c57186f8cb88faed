#!/usr/bin/env python
"""How strongly each term of a loss pulls at the images; see --help. The same as ``clreplay run gradient-shares``."""

import sys

from clreplay.command.gradient_shares import main

if __name__ == "__main__":
    sys.exit(main())
