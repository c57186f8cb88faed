"""A run that dies at any moment ends like an unbroken one: images, record, and the seconds that were spent."""

from __future__ import annotations

import time

import pandas as pd
import pytest
import torch
from run_helpers import QUIET, TINY, memory_bytes_of, one, same, tiny_settings

from clreplay.condensation.engine.finished_file import Finished, forget_finished, load_finished, save_finished
from clreplay.condensation.matching.engine import MatchingEngine
from clreplay.condensation.registry import Condensed
from clreplay.incremental import run
from clreplay.incremental.run import run_experiment
from clreplay.incremental.run_folder import COLUMNS
from clreplay.memory.class_cache import ClassCache
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.runtime import progress_file


class Killed(BaseException):
    """Nobody catches it, as nobody catches SIGKILL."""


def dying(method, call):
    """The method, but for one call, which is the last thing that its process does."""
    calls = []

    def of_this_process(*arguments, **keywords):
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return method(*arguments, **keywords)

    return of_this_process


@pytest.mark.parametrize("host", ["none", "avalanche"])
@pytest.mark.parametrize(
    ("place", "name", "call"),
    [
        (ClassCache, "put", 1),
        (ClassCache, "put", 2),
        (ClassCache, "put", 4),
        (ReplayMemory, "add", 2),
        (ReplayMemory, "save", 2),
    ],
    ids="put-1 put-2 put-4 add save".split(),
)
def test_the_record_of_a_step_survives_a_kill_between_its_end_and_its_file(
    place, name, call, host, tmp_path, monkeypatch
):
    monkeypatch.setattr(run, "announce", lambda *_: None)
    wanted = one(tiny_settings(), host=host, steps=2)
    unbroken = run_experiment(one(wanted, cache=tmp_path / "cache-1"), tmp_path / "unbroken", QUIET)
    broken = one(wanted, cache=tmp_path / "cache-2")
    with monkeypatch.context() as patched:
        patched.setattr(place, name, dying(getattr(place, name), call))
        with pytest.raises(Killed):
            run_experiment(broken, tmp_path / "broken", QUIET)
    steps = []
    step = MatchingEngine.step
    monkeypatch.setattr(MatchingEngine, "step", lambda self: steps.append(1) or step(self))
    run_experiment(broken, tmp_path / "broken", QUIET)
    left, right = (ReplayMemory.load(folder / "memory.safetensors") for folder in (unbroken, tmp_path / "broken"))
    assert same(*(memory_bytes_of(folder / "memory.safetensors") for folder in (unbroken, tmp_path / "broken")))
    assert left.record == right.record and {row["experience"] for row in right.record} == {0, 1}
    assert left.info["chosen"] == right.info["chosen"] and right.info["chosen"]["classes_from_cache"] == 0
    assert len(steps) == (2 if name == "put" and call <= 5 else 0), "what was finished is not condensed again"
    assert not list((tmp_path / "broken").rglob("*.finished"))
    cached = sorted(path.name for path in (tmp_path / "cache-2").rglob("*.safetensors"))
    assert cached == sorted(path.name for path in (tmp_path / "cache-1").rglob("*.safetensors")) and len(cached) == 10


@pytest.mark.parametrize("host", ["none", "avalanche"])
def test_seconds_of_a_condensation_add_up_over_processes(host, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "announce", lambda *_: None)
    wanted = one(tiny_settings(), host=host, steps=1, overrides={**TINY, "ddm.iterations": 6})
    step, done = MatchingEngine.step, []

    def slow(self):
        time.sleep(0.3)
        done.append(1)
        if len(done) == 4:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(MatchingEngine, "step", slow)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(wanted, tmp_path / "run", QUIET)
    folder = run_experiment(wanted, tmp_path / "run", QUIET)
    assert len(done) == 4 + 3
    rows = run.RunFolder(folder).rows()
    assert rows.condense_seconds.min() > 7 * 0.3
    assert (rows.train_seconds > 0).all(), "seconds of condensing are not taken off those of training"


def test_experiences_from_the_cache_are_counted_in_the_record(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "announce", lambda *_: None)
    wanted = one(tiny_settings(), steps=2, cache=tmp_path / "cache")
    with monkeypatch.context() as patched:
        patched.setattr(MatchingEngine, "step", dying(MatchingEngine.step, 3))
        with pytest.raises(Killed):
            run_experiment(wanted, tmp_path / "killed in its second step", QUIET)
    folder = run_experiment(wanted, tmp_path / "run", QUIET)
    memory = ReplayMemory.load(folder / "memory.safetensors")
    assert [(row["experience"], row["iteration"]) for row in memory.record] == [(1, 1), (1, 2)]


# ---------------------------------------------------------------- the file


def test_a_finished_condensation_comes_back_whole(tmp_path):
    keep = tmp_path / "new" / "ddm.progress"
    made = Condensed(
        {3: torch.randn(2, 1, 4, 4), 1: torch.randn(2, 1, 4, 4)}, [{"iteration": 1, "loss": 0.5}], {"a": 1}
    )
    save_finished(keep, "this", Finished(made, 12.5))
    found = load_finished(keep, "this")
    assert found.seconds == 12.5 and list(found.condensed.images) == [3, 1]
    assert all(torch.equal(found.condensed.images[label], made.images[label]) for label in made.images)
    assert (found.condensed.record, found.condensed.chosen) == (made.record, made.chosen)
    assert load_finished(keep, "another") is None
    forget_finished(keep)
    assert load_finished(keep, "this") is None and not list(keep.parent.iterdir())


@pytest.mark.parametrize("left", [0, 1, 100, -1, -200])
def test_a_damaged_file_of_a_finished_condensation_is_ignored(left, tmp_path, caplog):
    keep = tmp_path / "ddm.progress"
    save_finished(keep, "this", Finished(Condensed({0: torch.zeros(2, 1, 4, 4)}), 1.0))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:left])
    assert load_finished(keep, "this") is None
    assert "ignoring the damaged file of a finished condensation" in caplog.text


# ---------------------------------------------------------------- in training


@pytest.mark.parametrize("host", ["none", "avalanche"])
def test_a_run_killed_in_training_goes_on_where_its_networks_were(host, tmp_path, monkeypatch):
    """Finished networks of a step are tested again and not trained again; the one under way goes on from its epoch."""
    monkeypatch.setattr(progress_file, "SECONDS_BETWEEN_SAVES", -1.0)
    overrides = {"train.width": 4, "train.lr": 0.05, "train.updates": 8, "train.batch_size": 4}
    wanted = one(tiny_settings(), host=host, steps=2, networks=2, memories=("random",), overrides=overrides)
    folders = [run_experiment(wanted, tmp_path / "unbroken", QUIET)]
    step, made = torch.optim.SGD.step, []
    for call in (3, 10, 6, 2, None):  # in the first network, in the second, at its end, in the next step's first
        calls = []

        def counted(optimizer, *given, call=call, calls=calls):
            calls.append(1)
            if len(calls) == call:
                raise Killed
            made.append(1)
            return step(optimizer, *given)

        with monkeypatch.context() as patched:
            patched.setattr(torch.optim.SGD, "step", counted)
            if call is None:
                folders.append(run_experiment(wanted, tmp_path / "broken", QUIET))
            else:
                with pytest.raises(Killed):
                    run_experiment(wanted, tmp_path / "broken", QUIET)
    columns = [column for column in COLUMNS if not column.endswith("seconds")]
    unbroken, broken = (pd.read_csv(folder / "results.csv")[columns] for folder in folders)
    pd.testing.assert_frame_equal(unbroken, broken)
    # Two steps of two networks of eight updates; through Avalanche a network is kept at the ends of its epochs.
    assert len(made) == 32 if host == "none" else 32 < len(made) <= 32 + 4 * 7
    assert not list(folders[1].rglob("*.training*"))
