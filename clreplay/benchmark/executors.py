"""Who runs the units: processes of this machine through joblib; a cluster, through Ray, in :mod:`.cluster`.

An executor gets tasks and gives outcomes, in any order. It writes nothing: results go into the store in one place,
by whoever reads the outcomes.
"""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from clreplay.benchmark.rows import Finished
from clreplay.benchmark.sets import Place
from clreplay.benchmark.units import Unit
from clreplay.benchmark.worker import workers_save_first, working_for
from clreplay.data import data_root
from clreplay.runtime.progress import Progress

ATTEMPTS = 2
"""Of units that fail for a reason that may pass, such as memory that others hold."""
DEATH = "the process that ran it died (out of memory, or killed)"


@dataclass(frozen=True)
class Task:
    """A unit with all it needs: picklable, and the same wherever it runs.

    Attributes:
        unit: what to do.
        place: where.
        images: of the condensed set that it trains on, safetensors bytes by class.
    """

    unit: Unit
    place: Place
    images: Mapping[int, bytes] | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a task: something finished, or the reason why not.

    Attributes:
        unit: what was to be done.
        finished: what came out; None if nothing did.
        reason: why nothing did, in one line.
        attempts: how often it was tried.
        elsewhere: another process of the machine is at it.
    """

    unit: Unit
    finished: Finished | None = None
    reason: str = ""
    attempts: int = 1
    elsewhere: bool = False


class Executor(Protocol):
    """Runs tasks, several at a time; takes them one by one, when there is room for another."""

    jobs: int

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """The outcome of every task, in any order. A task that fails is an outcome, not an exception."""
        ...


def attempt(task: Task, progress: Progress | None = None) -> Outcome:
    """Run one task here; what may pass is tried again, what is wrong with the task is not.

    KeyboardInterrupt and its like go through.
    """
    with claimed(task.place.work, task.unit.name) as mine:
        return _attempt(task, progress) if mine else Outcome(task.unit, elsewhere=True)


def _attempt(task: Task, progress: Progress | None) -> Outcome:
    for number in range(1, ATTEMPTS + 1):
        try:
            return Outcome(task.unit, task.unit.run(task.place, task.images, progress), attempts=number)
        except (ValueError, FileNotFoundError, ArithmeticError, ImportError, TypeError, KeyError) as error:
            return Outcome(task.unit, None, _reason(error, task.place), number)  # the same would happen again
        except Exception as error:
            reason = _reason(error, task.place)
        gc.collect()  # out of the handler, whose traceback would keep the tensors alive
        _free_gpu()
    return Outcome(task.unit, None, reason, ATTEMPTS)


class JoblibExecutor:
    """Processes of this machine; with one job this very process. Several jobs take its GPUs in turn.

    Args:
        jobs: how many at a time.
        watch: gives the progress callback of a unit, in a context; only where units run in this process.

    Raises:
        ValueError: less than one job.
    """

    def __init__(self, jobs: int = 1, watch: Callable[[Unit], AbstractContextManager[Progress]] | None = None) -> None:
        if jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {jobs}")
        self.jobs, self.watch = jobs, watch

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """The outcome of every task; if a process dies, what it may have been running is tried again by itself."""
        if self.jobs == 1:
            yield from map(self._here, tasks)
            return
        tasks = _in_turn(tasks)
        while True:
            running: dict[int, Task] = {}
            try:
                for number, outcome in self._parallel(_noted(tasks, running)):
                    del running[number]
                    yield outcome
                return
            except _process_deaths():
                suspects = list(running.values())
            for task in suspects:
                yield self._alone(task)

    def _here(self, task: Task) -> Outcome:
        with nullcontext() if self.watch is None else self.watch(task.unit) as progress:
            return attempt(task, progress)

    def _alone(self, task: Task) -> Outcome:
        """In a process of its own, so that what kills it takes nothing else along."""
        try:
            for _, outcome in self._parallel([(0, task)]):
                return outcome
        except _process_deaths():
            pass
        return Outcome(task.unit, None, DEATH, 2)

    def _parallel(self, numbered: Iterable[tuple[int, Task]]) -> Iterator[tuple[int, Outcome]]:
        from joblib import Parallel, delayed, parallel_config

        threads = max(1, (os.cpu_count() or 1) // self.jobs)
        # A process whose memory has grown, as by a data set, is replaced between two tasks: nothing is lost by it.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
        with parallel_config("loky", n_jobs=self.jobs, inner_max_num_threads=threads):
            # No task ahead of time: another process may have finished it when its turn comes.
            pool = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch=self.jobs)
            parent = os.getpid()
            with workers_save_first():
                yield from pool(delayed(_numbered)(number, task, parent) for number, task in numbered)


def _numbered(number: int, task: Task, parent: int) -> tuple[int, Outcome]:
    with working_for(parent):
        return number, attempt(task)


def _in_turn(tasks: Iterable[Task]) -> Iterator[Task]:
    """Tasks for any GPU, each with one of this machine's."""
    import torch

    for number, task in enumerate(tasks):
        if task.place.device == "cuda" and torch.cuda.device_count() > 1:
            device = f"cuda:{number % torch.cuda.device_count()}"
            task = replace(task, place=replace(task.place, device=device))
        yield task


def _noted(tasks: Iterator[Task], running: dict[int, Task]) -> Iterator[tuple[int, Task]]:
    """Tasks as they are handed out, noted until their outcome is there."""
    for number, task in enumerate(tasks):
        running[number] = task
        yield number, task


def _process_deaths() -> type[BaseException]:
    from joblib.externals.loky.process_executor import BrokenProcessPool

    found: type[BaseException] = BrokenProcessPool
    return found


def _free_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _reason(error: BaseException, place: Place) -> str:
    """One line that says what went wrong, without a path that says something on this machine only."""
    lines = str(error).strip().splitlines() or ["no message"]
    root = data_root(place.data_root)
    text = lines[0].replace(str(root), "the data root") if root.is_absolute() else lines[0]
    if len(lines) > 1 and text.endswith(":"):  # what it announces is on the lines that are left out
        text = text[: text.rfind(". ") + 1] or text
    return f"{type(error).__name__}: {text}"[:500]


@contextmanager
def claimed(folder: str | None, name: str) -> Iterator[bool]:
    """Whether this process may do a piece of work; within the block no other one of the machine may.

    The lock is the operating system's, so it ends with the process, however that ends.
    """
    if folder is None:
        yield True
        return
    Path(folder).mkdir(parents=True, exist_ok=True)  # interrupted condensations are saved there, too
    path = Path(folder) / f"{name}.lock"
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        # Whoever opened the file just now may get a lock on nothing: then work is done twice, with the same outcome.
        with suppress(PermissionError):  # Windows does not remove an open file
            path.unlink(missing_ok=True)
        lock.release()
