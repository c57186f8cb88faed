"""Progress of a run for people: bars on a terminal, plain lines elsewhere, estimates."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

Row = Mapping[str, Any]
"""A row of a memory's record: ``iteration``, the loss terms, and statistics of the images (``image_std``, ...)."""

SECONDS_BETWEEN_LINES = 20.0
"""Plain output, such as a log file, gets a line no more often than this."""

BAR = "{desc}: {percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt}{unit} [{elapsed}<{remaining}{postfix}]"
"""Of a bar: where a terminal is narrow, the end of the loss terms is cut, not the bar and the time that is left."""


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


NO_TERMS = ("experience", "iteration", "step_size")
"""Columns of the record that are no losses, beside the statistics of the images."""


def loss_terms(row: Row) -> dict[str, float]:
    """The loss terms of a row of the record, as recorded: without the weights that the loss gives them."""
    return {name: value for name, value in row.items() if name not in NO_TERMS and not name.startswith("image_")}


class Reporter:
    """Progress of a run; quiet when ``out`` is None.

    Args:
        out: writes one line; ``print`` by default.
        terminal: draw bars; None asks whether standard error is a terminal.

    Attributes:
        seconds_left: estimate for the whole run, which bars show beside that of their own work; None says nothing.
    """

    seconds_left: Callable[[], float | None] | None = None

    def __init__(self, out: Callable[[str], Any] | None = print, terminal: bool | None = None) -> None:
        self.out = out
        self.terminal = (sys.stderr.isatty() if terminal is None else terminal) and out is not None

    def line(self, text: str = "") -> None:
        """One line of text."""
        if self.out is None:
            return
        if self.terminal:
            from tqdm import tqdm

            with tqdm.external_write_mode():  # above the bar that may be showing
                self.out(text)
        else:
            self.out(text)

    def task(
        self,
        title: str,
        after: Callable[[int, int, str, float], None] | None = None,
        on_row: Callable[[Row], None] | None = None,
        ends: bool = False,
    ) -> Task:
        """Progress of one piece of work.

        Args:
            title: what it is.
            after: called with units done, units in all, what a unit is, and seconds since the first of them began,
                for estimates.
            on_row: called with every row of the record, also those of work that goes on, once it does.
            ends: lines come after the first unit and after the last one, too, and not only now and then.
        """
        return Task(self, title, after, on_row, ends)


class Task:
    """One piece of work; call it with (done, total, unit), close it at the end. A new unit is timed anew.

    What condenses also gives it the rows of its record as they come (:meth:`row`), which the bar or the next line
    shows. They are numbers already: showing them costs no wait for the device.
    """

    def __init__(
        self,
        reporter: Reporter,
        title: str,
        after: Callable[[int, int, str, float], None] | None,
        on_row: Callable[[Row], None] | None = None,
        ends: bool = False,
    ) -> None:
        self.reporter, self.title, self.after, self.on_row, self.ends = reporter, title, after, on_row, ends
        self.losses = ""
        self.unit: str | None = None
        self.start = self.last = time.monotonic()
        self.spoken: float | None = None
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
        elif self._is_due(done, total, now):
            left = (now - self.start) / done * (total - done)
            when = f"{duration(left)} left" if done < total else f"done in {duration(now - self.start)}"
            losses = f"; {self.losses}" if self.losses else ""
            self.reporter.line(f"  {self.title}: {done}/{total} {unit}, {when}{losses}")
            self.spoken = now
        if self.after is not None:
            self.after(done, total, unit, now - self.start)

    def row(self, row: Row) -> None:
        """Note a new row of the record."""
        terms = loss_terms(row).items()
        self.losses = ", ".join(f"{name.removesuffix('_matching')} {value:.3g}" for name, value in terms)
        if self.on_row is not None:
            self.on_row(row)

    def resumed(self, rows: Sequence[Row]) -> None:
        """Note the rows that work which goes on has brought along."""
        for row in rows:
            self.row(row)

    def _is_due(self, done: int, total: int, now: float) -> bool:
        if self.ends and (done >= total or self.spoken is None):
            return True
        since = self.start if self.spoken is None else self.spoken
        return now - since >= SECONDS_BETWEEN_LINES and done < total

    def __enter__(self) -> Task:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _draw(self, done: int, total: int, unit: str) -> None:
        if self.bar is None:
            from tqdm import tqdm

            self.bar = tqdm(
                total=total, desc=f"  {self.title}", unit=f" {unit}", leave=False, dynamic_ncols=True, bar_format=BAR
            )
        left = None if self.reporter.seconds_left is None else self.reporter.seconds_left()
        whole = "" if left is None else f"whole run {duration(left)} left"
        if text := ", ".join(filter(None, (whole, self.losses))):
            self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(done - self.bar.n)


def check_progress(progress: object) -> None:
    """Whether :func:`shown` takes it.

    Raises:
        ValueError: it does not.
    """
    if progress is None or isinstance(progress, bool):
        return
    if not callable(progress) or not (takes_text(progress) or _takes_units(progress)):
        raise ValueError(
            "progress must be called with (done, total, unit), or with a line of text as print is, got "
            f"{progress!r}; pass such a function, None, True or False"
        )


def takes_text(function: Callable[..., Any]) -> bool:
    """Whether a function is one that writes lines, such as ``print``, ``logger.info`` or a list's ``append``.

    One of ``(done, total, unit)`` asks for three arguments, or takes any number of them (``lambda *what: ...``).
    """
    if function is print:
        return True
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False  # of some built-in functions nothing is known
    given = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    asked = [one for one in given if one.default is one.empty]
    return 0 < len(given) and len(asked) < 2 and not {"done", "total", "unit"} & {one.name for one in given}


def _takes_units(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(1, 2, "iterations")
    except TypeError:
        return False
    except ValueError:
        pass  # see takes_text
    return True


@contextmanager
def shown(progress: Callable[..., Any] | bool | None, title: str, says: str = "") -> Iterator[Progress | None]:
    """Progress as a function asks its caller about it.

    Args:
        progress: called with (done, total, unit), or, where it takes one text as ``print`` and ``logger.info`` do, with
            a line at the first unit, now and then, and at the end; None draws a bar if standard error is a terminal,
            True draws one there and prints lines elsewhere, False shows nothing. If it has a method ``row``, that is
            called with every row of the record.
        title: of the bar and of lines.
        says: a line before the work, where bars or lines are shown at all.
    """
    wanted = sys.stderr is not None and sys.stderr.isatty() if progress is None else progress
    if wanted is False:
        yield None
        return
    if wanted is True:
        reporter, ends = Reporter(lambda text: print(text, file=sys.stderr)), False
    elif takes_text(wanted):
        reporter, ends = Reporter(wanted, terminal=False), True
    else:
        yield wanted
        return
    if says:
        reporter.line(says)
    with reporter.task(title, ends=ends) as task:
        yield task


class Progress(Protocol):
    """Called by a condenser as it goes: units done, units in all, what a unit is.

    It may have a method ``row``, called with every new row of the record, and ``resumed``, called once with the rows
    that a condensation which goes on has brought along.
    """

    def __call__(self, done: int, total: int, unit: str) -> None: ...


class Watch:
    """Progress that also hands the new rows of the record to somebody else.

    Args:
        progress: what is called as the work goes on; None nothing.
        on_row: called with every new row, not with those that work which goes on has brought along.
    """

    def __init__(self, progress: Progress | None, on_row: Callable[[Row], None]) -> None:
        self.progress, self.on_row = progress, on_row

    def __call__(self, done: int, total: int, unit: str) -> None:
        """See :class:`Progress`."""
        if self.progress is not None:
            self.progress(done, total, unit)

    def row(self, row: Row) -> None:
        """Hand on a new row."""
        tell_rows(self.progress, [row])
        self.on_row(row)

    def resumed(self, rows: Sequence[Row]) -> None:
        """Hand on the rows of before to the progress alone."""
        tell_rows(self.progress, rows, resumed=True)


def tell_rows(progress: Progress | None, rows: Sequence[Row], resumed: bool = False) -> None:
    """Give rows of the record to a progress that takes them."""
    if resumed and (take := getattr(progress, "resumed", None)) is not None:
        take(rows)
    elif not resumed and (take := getattr(progress, "row", None)) is not None:
        for row in rows:
            take(row)
