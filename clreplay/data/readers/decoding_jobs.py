"""Decoding many images at once, in as many processes as there are cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np

from clreplay.data.readers.image_files import Batch, Target, decode_batch

ALONE = 1000
"""Sets of fewer images are decoded without other processes: starting them would take longer."""


def decode_all(batches: Iterable[Batch], count: int, target: Target) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Rows and pixel codes of batch after batch.

    Args:
        batches: taken as they are needed, so that few encoded images are held at a time.
        count: images in all, which decides whether other processes are worth it.

    Raises:
        InvalidDataError: an image cannot be used.
        OSError: a decoding process died.
    """
    jobs = cores()
    if jobs == 1 or count < ALONE:
        for batch in batches:
            yield decode_batch(batch, target)
        return
    executor = _executor(jobs)
    waiting: deque = deque()
    try:
        for batch in batches:
            waiting.append(executor.submit(decode_batch, batch, target))
            if len(waiting) > 3 * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenExecutor as error:
        raise OSError(f"a process that decodes images died ({error}); is there enough memory for {jobs}?") from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux has it
        return os.cpu_count() or 1


def _executor(jobs: int) -> Executor:
    # Forked, as PyTorch's data loaders are: a started process would import the caller's script once more, and torch.
    # The children only read files and run Pillow. Where forking is not safe, threads: Pillow resizes without the lock.
    if not sys.platform.startswith("linux"):
        return ThreadPoolExecutor(jobs)
    context = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(os.getpid(),))


def _begin(parent: int) -> None:
    """In a decoding process: leave Ctrl-C to the parent, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)  # it was killed, and the file it was writing stays locked for as long as a child lives

    threading.Thread(target=watch, daemon=True).start()
