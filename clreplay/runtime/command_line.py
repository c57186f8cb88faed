"""What the command lines share: errors in one line, and exit codes."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STOPPED, WRONG, UNHEARD = 130, 2, 141
"""Exit codes: stopped by Ctrl-C (128 + SIGINT), an error of the user or the machine, and an output that nobody reads
any more (128 + SIGPIPE)."""


def started_as(program: str | None) -> str:
    """How a command line was started, for its usage line.

    Args:
        program: words of a sub-command such as ``clreplay run digits-5step``; None for a script of its own.
    """
    return f"python {sys.argv[0]}" if program is None else program


class Terminated(KeyboardInterrupt):
    """A signal that asks a process to end, where it is taken like Ctrl-C.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def signals_as_ctrl_c(over: bool = False) -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP save and stop the work as Ctrl-C does.

    Batch systems, containers and closed terminals send them. What is ignored stays ignored (``nohup``), and outside
    the main thread, where Python handles no signals, nothing changes.

    Args:
        over: take them from whoever else has them, too, such as a library that ends the process at once.
    """
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP
    numbers = [getattr(signal, name) for name in names] if threading.current_thread() is threading.main_thread() else []
    before = {number: signal.getsignal(number) for number in numbers}
    ours = [n for n, handler in before.items() if handler == signal.SIG_DFL or (over and handler != signal.SIG_IGN)]

    def stop(number: int, _: FrameType | None) -> None:
        for one in ours:
            signal.signal(one, signal.SIG_IGN)  # a second one must not end the saving
        raise Terminated(number)

    with handled(ours, stop):
        yield


@contextmanager
def handled(numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within the block some signals have this handler, and after it those that they had."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, other in before.items():
            signal.signal(number, other)


def exit_code(work: Callable[[], int], goes_on: bool = True) -> int:
    """Do the work of a command line; signals that ask it to end stop it as Ctrl-C does.

    Args:
        work: parsed already; what it returns is the exit code.
        goes_on: whether the same command, started again, goes on where it was stopped.

    Returns:
        its exit code; 130 after Ctrl-C, 128 + n after signal n (:func:`signals_as_ctrl_c`), with a line that says
        whether the same command goes on; 2 after an error, printed in one line.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        with signals_as_ctrl_c():
            return work()
    except KeyboardInterrupt as stopped:
        number = stopped.number if isinstance(stopped, Terminated) else None
        by = "" if number is None else f" by {stopped}"
        # A terminal that was closed takes no word more.
        with suppress(OSError):
            more = "goes on from here" if goes_on else "begins anew"
            print(f"\nStopped{by}. The same command {more}.", file=sys.stderr, flush=True)
        return STOPPED if number is None else 128 + number
    except BrokenPipeError:  # whoever read the output has gone, such as `head`; nor is it written to at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNHEARD
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return WRONG
    except MemoryError as error:
        print(f"error: there is too little memory ({str(error) or 'nothing more is known'})", file=sys.stderr)
        return WRONG
