"""Classes side by side on the cores of a CPU: one class a thread, every operator of it single-threaded.

Losses separate over classes, so this needs no communication; and the many small operators of an iteration
leave less of the machine idle than splitting each of them over the cores. As no operator is split, how many
threads there are cannot change a single bit of what comes out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class ClassThreads:
    """A pool of threads in which PyTorch's operators run on one core each.

    Args:
        count: threads; PyTorch's own number by default.
    """

    def __init__(self, count: int | None = None) -> None:
        self.count = torch.get_num_threads() if count is None else count
        everyone = threading.Barrier(self.count + 1)

        def begin() -> None:
            torch.set_num_threads(1)
            torch.get_num_threads()  # PyTorch reads its global number in a new thread's first operator: now
            everyone.wait()

        self._pool = ThreadPoolExecutor(self.count, "clreplay-class", begin)
        outside = torch.get_num_threads()
        for _ in range(self.count):  # the pool starts a thread a task while none is idle
            self._pool.submit(int)
        everyone.wait()
        torch.set_num_threads(outside)  # of this thread and of all to come

    def map(self, work: Callable[[Item], Outcome], items: Iterable[Item]) -> list[Outcome]:
        """``work`` of every item, in their order; when it raises (Ctrl-C too), no item is left half-done."""
        futures = [self._pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            wait(futures)
            raise

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown()
