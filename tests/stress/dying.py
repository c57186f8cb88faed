"""Scripts that are killed at a chosen moment: at their n-th change of files in a folder, or seconds after the first.

A script runs in a fork of this process, which has imported what takes long. SIGKILL is what it gets: nothing can be
cleaned up, as when the power fails or memory runs out.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

# A fork has no threads but its own: what waits for those of its parent's pool would wait for ever.
torch.set_num_threads(1)
CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "os.link")


@dataclass(frozen=True)
class Ending:
    """How a script came to its end.

    Attributes:
        code: exit code; -9 if it was killed.
        changes: of files in the folders.
        seconds: from the first of them to the end.
    """

    code: int
    changes: int
    seconds: float


def run(words: Sequence[str], folders: Sequence[Path], log: Path, at: int = 0, after: float = 0.0) -> Ending:
    """Run a script.

    Args:
        words: its file and its arguments.
        folders: where changes of files count.
        log: gets what it prints.
        at: number of the change just before which it is killed; 0 for none.
        after: seconds after the first change at which it is killed; 0 for never.
    """
    return begin(words, folders, log, at, after).wait()


@dataclass(frozen=True)
class Running:
    """A script that runs."""

    child: int
    pipe: int

    def wait(self) -> Ending:
        """Wait for its end."""
        with os.fdopen(self.pipe, "rb") as pipe:
            moments = pipe.read()
        _, status = os.waitpid(self.child, 0)
        ended = time.monotonic()
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        first = float(moments.split(b"\n", 1)[0]) if moments else ended
        return Ending(code, moments.count(b"\n"), ended - first)


def begin(words: Sequence[str], folders: Sequence[Path], log: Path, at: int = 0, after: float = 0.0) -> Running:
    """Start a script, see :func:`run`."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        os._exit(_child(words, [str(folder) for folder in folders], log, at, after, write))
    os.close(write)
    return Running(child, read)


def _child(words: Sequence[str], folders: list[str], log: Path, at: int, after: float, write: int) -> int:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    seen = 0

    def notice(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event not in CHANGES or not any(str(arguments[0]).startswith(folder) for folder in folders):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        seen += 1
        if seen == 1 and after:
            threading.Thread(target=_die, args=(after,), daemon=True).start()
        if seen == at:
            _die(0)
        os.write(write, f"{time.monotonic()}\n".encode())

    sys.addaudithook(notice)
    sys.argv = [str(word) for word in words]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else 0 if ending.code is None else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
    return 0


def _die(seconds: float) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)
