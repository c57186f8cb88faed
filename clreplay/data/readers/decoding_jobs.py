"""Decoding many images, in as many processes as there are cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np

from clreplay.data.readers.image_files import Batch, Target, decode_batch

PARALLEL_FROM = 1000
"""Fewer images are decoded in this process alone: starting others would take longer."""


def decode_all(
    batches: Iterable[Batch], count: int, target: Target
) -> Generator[tuple[tuple[int, ...], np.ndarray], None, None]:
    """Decode batch after batch and yield the rows and pixel codes of each.

    Args:
        batches: read as they are needed, so that few encoded images are in memory at a time.
        count: number of images in all, which decides whether other processes are started.

    Raises:
        InvalidDataError: an image cannot be used.
        OSError: a decoding process died.
    """
    jobs = cores()
    if jobs == 1 or count < PARALLEL_FROM:
        for batch in batches:
            yield decode_batch(batch, target)
        return
    executor = _executor(jobs)
    waiting: deque[Future[tuple[tuple[int, ...], np.ndarray]]] = deque()
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
    """Number of cores that this process may use."""
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
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker, initargs=(os.getpid(),))


def _start_worker(parent: int) -> None:
    """In a decoding process: ignore Ctrl-C, which the parent handles, and exit when the parent has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)  # the parent was killed, and its lock on the cache may last as long as a child lives

    threading.Thread(target=watch, daemon=True).start()
