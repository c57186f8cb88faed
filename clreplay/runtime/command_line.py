"""What the command lines share: errors in one line, and exit codes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

STOPPED, WRONG = 130, 2
"""Exit codes: stopped by Ctrl-C (128 + SIGINT), and an error of the user or the machine."""


def exit_code(work: Callable[[], int]) -> int:
    """Do the work of a command line.

    Args:
        work: parsed already; what it returns is the exit code.

    Returns:
        its exit code; 130 after Ctrl-C, with a line that says how to continue; 2 after an error, printed in one line.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        return work()
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        return STOPPED
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG
