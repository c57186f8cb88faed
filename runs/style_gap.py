#!/usr/bin/env python
"""How far the style of condensed sets is from real images; see --help. The same as ``clreplay run style-gap``."""

import sys

from clreplay.benchmark.style_gap import main

if __name__ == "__main__":
    sys.exit(main())
