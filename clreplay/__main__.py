"""``python -m clreplay``: the same as the command ``clreplay``."""

import sys

from clreplay.command.main import main

if __name__ == "__main__":
    sys.exit(main())
