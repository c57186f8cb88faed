"""How processes that run units end: with their parent, however that ends, and after what they condense was saved.

Without this a worker whose parent was killed computes on, for nobody, and holds the lock of its unit; and one whose
parent is asked to end is killed in the middle.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from clreplay.runtime.command_line import Terminated, handled

SECONDS_TO_SAVE = 30.0
"""For a worker to end what it is at; after that it is ended."""
SECONDS_BETWEEN_LOOKS = 0.5
"""A worker looks this often whether its parent lives."""

_state = {"parent": 0, "working": False}


# ---------------------------------------------------------------- in a worker


@contextmanager
def working_for(parent: int) -> Iterator[None]:
    """Within the block this process does a piece of work; from the first block on it ends with its parent.

    Args:
        parent: number of the process that takes the result.
    """
    if _state["parent"] != parent and os.getpid() != parent:
        _state["parent"] = parent
        _begin(parent)
    _state["working"] = True
    try:
        yield
    except Terminated as stopped:
        os._exit(128 + stopped.number)  # everything is saved, and nobody waits for more
    finally:
        _state["working"] = False


def _begin(parent: int) -> None:
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGHUP"):  # a terminal sends them to all processes; the parent says what they mean
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _stop(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one must not end the saving
    if not _state["working"]:
        os._exit(128 + number)
    raise Terminated(number)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SECONDS_TO_SAVE)
    os._exit(1)


# ---------------------------------------------------------------- in their parent


@contextmanager
def workers_save_first() -> Iterator[None]:
    """Within the block a signal that ends this process lets its workers save what they are at before it has effect.

    joblib would kill them at once.
    """
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}
    ours = [number for number, handler in before.items() if callable(handler)]

    def stop(number: int, frame: FrameType | None) -> None:
        for one in ours:
            signal.signal(one, signal.SIG_IGN)
        end_workers()
        for one in ours:
            signal.signal(one, before[one])
        before[number](number, frame)

    with handled(ours, stop):
        yield


def end_workers() -> None:
    """Ask all processes of the pool to save and end, and wait until they have, for a while."""
    workers = [one for one in multiprocessing.active_children() if _is_worker(one)]
    for one in workers:
        one.terminate()
    last = time.monotonic() + SECONDS_TO_SAVE
    while time.monotonic() < last and any(map(_lives, workers)):
        time.sleep(0.05)


def _is_worker(process: BaseProcess) -> bool:
    return type(process).__name__.startswith("Loky")


def _lives(process: BaseProcess) -> bool:
    try:
        return process.is_alive()
    except (AssertionError, ValueError):  # it is of another process, or closed
        return False
