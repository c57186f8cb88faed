"""Progress of a run for people: bars on a terminal, plain lines elsewhere, estimates."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

SECONDS_BETWEEN_LINES = 20.0
"""Plain output, such as a log file, gets a line no more often than this."""


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``8 s``, ``3 min``, ``2.5 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{round(seconds)} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def roughly(seconds: float) -> str:
    """Seconds that were estimated from a trial, which knows nothing of starting up, drawing and saving."""
    return "less than half a minute" if seconds < 20 else f"about {duration(seconds)}"


def counted(number: int, noun: str) -> str:
    """A number with its noun: ``1 step``, ``1,200 steps``, ``2 classes``."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def size(count: int) -> str:
    """Bytes in the unit that suits."""
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


class Reporter:
    """Progress of a run; quiet when ``out`` is None.

    Args:
        out: writes one line; ``print`` by default.
        terminal: draw bars; None asks whether standard error is a terminal.
    """

    def __init__(self, out: Callable[[str], None] | None = print, terminal: bool | None = None) -> None:
        self.out = out
        self.terminal = (sys.stderr.isatty() if terminal is None else terminal) and out is not None

    def line(self, text: str = "") -> None:
        """One line of text."""
        if self.out is None:
            return
        if self.terminal:
            from tqdm import tqdm

            tqdm.write(text)  # above the bar that may be showing
        else:
            self.out(text)

    def task(self, title: str, after: Callable[[int, int, str, float], None] | None = None) -> Task:
        """Progress of one piece of work.

        Args:
            title: what it is.
            after: called with units done, units in all, what a unit is, and seconds since the first of them began,
                for estimates.
        """
        return Task(self, title, after)


class Task:
    """One piece of work; call it with (done, total, unit), close it at the end. A new unit is timed anew."""

    def __init__(self, reporter: Reporter, title: str, after: Callable[[int, int, str, float], None] | None) -> None:
        self.reporter, self.title, self.after = reporter, title, after
        self.unit: str | None = None
        self.start = self.spoken = self.last = time.monotonic()
        self.bar: Any = None

    def __call__(self, done: int, total: int, unit: str) -> None:
        """Note that ``done`` of ``total`` units are finished."""
        now = time.monotonic()
        if self.unit not in (None, unit):
            self.start = self.last
            self.__exit__()
        self.unit, self.last = unit, now
        if self.reporter.terminal:
            self._draw(done, total, unit)
        elif now - self.spoken >= SECONDS_BETWEEN_LINES and done < total:
            left = (now - self.start) / done * (total - done)
            self.reporter.line(f"  {self.title}: {done}/{total} {unit}, {duration(left)} left")
            self.spoken = now
        if self.after is not None:
            self.after(done, total, unit, now - self.start)

    def __enter__(self) -> Task:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _draw(self, done: int, total: int, unit: str) -> None:
        if self.bar is None:
            from tqdm import tqdm

            self.bar = tqdm(total=total, desc=f"  {self.title}", unit=f" {unit}", leave=False, dynamic_ncols=True)
        self.bar.update(done - self.bar.n)


def check_progress(progress: object) -> None:
    """Whether :func:`shown` takes it.

    Raises:
        ValueError: it does not.
    """
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise ValueError(
            f"progress must be called with (done, total, unit), got {progress!r}; pass a function, None, True or False"
        )


@contextmanager
def shown(progress: Progress | bool | None, title: str) -> Iterator[Progress | None]:
    """Progress as a function asks its caller about it.

    Args:
        progress: called with (done, total, unit); None draws a bar if standard error is a terminal, True draws one
            there and prints lines elsewhere, False shows nothing.
        title: of the bar.
    """
    wanted = sys.stderr is not None and sys.stderr.isatty() if progress is None else progress
    if not isinstance(wanted, bool):
        yield wanted
    elif wanted:
        with Reporter(lambda text: print(text, file=sys.stderr)).task(title) as task:
            yield task
    else:
        yield None


class Progress(Protocol):
    """Called by a condenser as it goes: units done, units in all, what a unit is."""

    def __call__(self, done: int, total: int, unit: str) -> None: ...
