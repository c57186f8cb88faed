"""``python -m clreplay.benchmark``: the same as ``runs/static_tables.py``."""

import sys

from clreplay.benchmark.cli import main

if __name__ == "__main__":
    sys.exit(main(program="python -m clreplay.benchmark"))
