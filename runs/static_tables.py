#!/usr/bin/env python
"""The DDM paper's static tables, cell by cell: ours beside the published numbers; see --help.

python runs/static_tables.py --table 1 --dataset cifar10 --ipc 10 --method dm ddm
"""

import sys

from clreplay.benchmark.cli import main

if __name__ == "__main__":
    sys.exit(main())
