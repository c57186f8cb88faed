"""Progress for people: what a task says, and that a new unit is timed anew."""

import logging

import pytest

from clreplay.runtime import progress
from clreplay.runtime.progress import Reporter, Watch, check_progress, shown, takes_text, tell_rows


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_new_unit_is_timed_anew(clock):
    lines, told = [], []
    task = Reporter(lines.append, terminal=False).task("memory", lambda *what: told.append(what))
    for done in (1, 2, 3):
        clock[0] += 30
        task(done, 3, "epochs")
    for done in (1, 2):
        clock[0] += 25
        task(done, 4, "iterations")
    assert told == [
        (1, 3, "epochs", 30.0), (2, 3, "epochs", 60.0), (3, 3, "epochs", 90.0),
        (1, 4, "iterations", 25.0), (2, 4, "iterations", 50.0),
    ]  # fmt: skip
    assert [line.strip() for line in lines] == [
        "memory: 1/3 epochs, 60 s left",
        "memory: 2/3 epochs, 30 s left",
        "memory: 1/4 iterations, 75 s left",
        "memory: 2/4 iterations, 50 s left",
    ]


def test_a_terminal_gets_a_bar_a_unit(monkeypatch):
    bars = []

    class Bar:
        def __init__(self, **what):
            self.what, self.n, self.closed = what, 0, False
            bars.append(self)

        def update(self, by):
            self.n += by

        def close(self):
            self.closed = True

    monkeypatch.setattr("tqdm.tqdm", Bar)
    with Reporter(terminal=True).task("memory") as task:
        task(1, 2, "epochs"), task(2, 2, "epochs"), task(3, 9, "iterations")
        assert [(bar.what["total"], bar.what["unit"], bar.n, bar.closed) for bar in bars] == [
            (2, " epochs", 2, True),
            (9, " iterations", 3, False),
        ]
    assert bars[1].closed


ROW = {"iteration": 3, "experience": 0, "mean_matching": 1.2345, "style": 0.01, "image_std": 1.0, "image_min": -2.0}


def test_lines_and_bars_show_the_loss_terms(clock, capsys):
    lines, rows = [], []
    task = Reporter(lines.append, terminal=False).task("memory", on_row=rows.append)
    clock[0] += 30
    task.resumed([{"iteration": 1, "mean_matching": 9.0}])
    task.row(ROW)
    task(1, 3, "iterations")
    assert lines == ["  memory: 1/3 iterations, 60 s left; mean 1.23, style 0.01"]
    assert [row["iteration"] for row in rows] == [1, 3]
    reporter = Reporter(lines.append, terminal=True)
    reporter.seconds_left = lambda: 600
    with reporter.task("memory") as task:
        task.row(ROW)
        task(1, 3, "iterations")
        task.bar.refresh()
        reporter.line("told above the bar")
    shown = capsys.readouterr().err
    assert "memory:  33%" in shown and "whole run 10 min left, mean 1.23, style 0.01" in shown
    assert lines[-1] == "told above the bar"


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (print, True),
        (logging.getLogger("mine").info, True),
        ([].append, True),
        (lambda line: None, True),
        (lambda line, end="": None, True),
        (lambda *what: None, False),
        (lambda done, total, unit: None, False),
        (lambda done, total=None, unit=None: None, False),
        (lambda a, b, c: None, False),
        (lambda a, b, *rest: None, False),
        (Reporter(None).task("memory"), False),
    ],
)
def test_what_takes_a_text_gets_lines(function, text):
    check_progress(function)
    assert takes_text(function) is text


@pytest.mark.parametrize("function", [lambda: None, lambda a, b: None, lambda a, b, c, d: None, "bar", 3])
def test_a_function_that_takes_neither_is_refused(function):
    with pytest.raises(ValueError, match="progress must be called with .* as print is"):
        check_progress(function)


def test_a_function_that_takes_a_text_gets_a_first_and_a_last_line_and_some_between(clock):
    lines = []
    with shown(lines.append, "memory", "says what") as progress:
        for done in range(1, 61):
            clock[0] += 1
            progress(done, 60, "iterations")
    assert [line.split(",")[0].strip() for line in lines] == [
        "says what", "memory: 1/60 iterations", "memory: 21/60 iterations", "memory: 41/60 iterations",
        "memory: 60/60 iterations",
    ]  # fmt: skip
    assert lines[-1].endswith("done in 60 s")


def test_true_says_and_false_says_nothing(clock, capsys):
    for wanted, expected in ((True, "says what\n"), (None, ""), (False, "")):
        with shown(wanted, "memory", "says what") as progress:
            assert (progress is not None) is bool(wanted)
        assert capsys.readouterr().err == expected


def test_a_watch_hands_new_rows_to_both_and_old_ones_to_the_progress():
    told, units = [], []
    task = Reporter(None).task("memory", lambda *what: units.append(what[:3]), told.append)
    new = []
    watch = Watch(task, new.append)
    tell_rows(watch, [{"iteration": 1}], resumed=True)
    tell_rows(watch, [ROW])
    watch(1, 2, "iterations")
    assert [row["iteration"] for row in told] == [1, 3] and new == [ROW] and units == [(1, 2, "iterations")]
    alone = Watch(None, new.append)
    tell_rows(alone, [ROW]), alone(1, 2, "iterations")
    assert new == [ROW, ROW]
    tell_rows(lambda *what: pytest.fail("rows are no units"), [ROW])
