#!/usr/bin/env python
"""Which memory for so many bytes, and so many updates? See --help. The same as ``clreplay run rate-accuracy``."""

import sys

from clreplay.incremental.rate_accuracy_cli import main, parser

__all__ = ["main", "parser"]

if __name__ == "__main__":
    sys.exit(main())
