"""Progress for people: what a task says, and that a new unit is timed anew."""

import pytest

from clreplay.runtime import progress
from clreplay.runtime.progress import Reporter


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
