"""Decoding many images, in as many processes as there are cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from clreplay.data.errors import BadImages
from clreplay.data.readers.image_files import Batch, Target, decode_batch

MOST_BAD = 20
"""So many bad images end the search for more: then it is not a file or two."""

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
        BadImages: some cannot be used; the rest is read on, up to MOST_BAD of them, so that one message names all.
        InvalidDataError: a file cannot be read.
        OSError: a decoding process died.
    """
    jobs = cores()
    bad = _Bad()
    if jobs == 1 or count < PARALLEL_FROM:
        for batch in batches:
            with bad.collected():
                yield decode_batch(batch, target)
        bad.tell()
        return
    executor = _executor(jobs)
    waiting: deque[Future[tuple[tuple[int, ...], np.ndarray]]] = deque()
    try:
        for batch in batches:
            waiting.append(executor.submit(decode_batch, batch, target))
            if len(waiting) > 3 * jobs:
                with bad.collected():
                    yield waiting.popleft().result()
        while waiting:
            with bad.collected():
                yield waiting.popleft().result()
        bad.tell()
    except BrokenExecutor as error:
        raise OSError(f"a process that decodes images died ({error}); is there enough memory for {jobs}?") from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


class _Bad:
    """Images that could not be used, batch after batch."""

    def __init__(self) -> None:
        self.reason = ""
        self.names: tuple[str, ...] = ()

    @contextmanager
    def collected(self) -> Iterator[None]:
        try:
            yield
        except BadImages as error:
            self.reason = self.reason or error.reason
            self.names += error.names
            if len(self.names) >= MOST_BAD:
                self.tell()

    def tell(self) -> None:
        if self.names:
            raise BadImages(self.reason, self.names)


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
