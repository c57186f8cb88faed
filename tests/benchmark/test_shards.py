"""Sets made in shards of their classes: the same set, whoever makes which part and however often it is stopped."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clreplay.benchmark.executors import JoblibExecutor
from clreplay.benchmark.plan import plan
from clreplay.benchmark.request import TableRequest
from clreplay.benchmark.results import FAILED, MEASURED, lines_of
from clreplay.benchmark.rows import Contents
from clreplay.benchmark.run import BenchmarkRun, _spread
from clreplay.benchmark.sets import Place
from clreplay.benchmark.shards import even_parts, shards_of
from clreplay.benchmark.store import Store
from clreplay.benchmark.units import SetUnit
from clreplay.runtime.progress import Reporter

HERE = Place("cpu", commit="abc")
QUICK = {"train.updates": 2, "train.width": 4, "train.batch_size": 16}
DDM = {
    "iterations": 2,
    "width": 8,
    "kernels": "eager",
    "layout": "contiguous",
    "parallel": "operators",
    "classes_at_once": 1,
}


def planned(method="ddm", sets=1, **overrides):
    overrides = {**QUICK, **(DDM if method == "ddm" else {}), **overrides}
    return plan(
        TableRequest("1", ("digits",), (2,), (method,), sets=sets, networks=2, preset="smoke", overrides=overrides)
    )


def set_units(method="ddm", sets=1):
    (one,) = planned(method, sets)
    contents = Contents()
    for unit in one.choice_units(contents, "cpu"):
        *open_execution, chosen = unit.run(HERE).choice
        contents.choices[tuple(open_execution)] = chosen
    return one.set_units(contents, "cpu")


class Jobs(JoblibExecutor):
    """Says that it has several jobs, and does them here one after another; may fail or stop on the way."""

    def __init__(self, jobs, stop_after=None):
        super().__init__(1)
        self.jobs, self.left, self.ran = jobs, stop_after, []

    def run(self, tasks):
        for task in tasks:
            self.ran.append(task.unit)
            yield self._here(task)
            if self.left is not None:
                self.left -= 1
                if self.left == 0:
                    raise KeyboardInterrupt


def measure(tmp_path, one, executor, **options):
    store = Store(tmp_path / "store.sqlite")
    place = replace(HERE, work=str(tmp_path / "work"))
    for _ in BenchmarkRun(one, store, executor, place, Reporter(None), **options).run():
        pass
    return store


def bytes_of(store, spec):
    return store.images(spec.key)


# ---------------------------------------------------------------- shards of a set


@pytest.mark.parametrize("of", [2, 3, 12])
def test_shards_make_the_bytes_of_the_whole_set(of, tmp_path):
    (unit,) = set_units()
    whole, parts = Store(tmp_path / "whole"), Store(tmp_path / "parts")
    whole.add(unit.run(HERE))
    sizes = []
    for shard in shards_of([unit], jobs=1, shards=of):
        assert (parts.read().sets == {}) == (sum(sizes) < 10)
        finished = shard.run(HERE)
        sizes.append(len(finished.images.data) if finished.images else 0)
        parts.add(finished)
    assert sum(sizes) == 10 and max(sizes) - min(sizes) <= 1
    key = unit.spec.key
    assert parts.images(key) == whole.images(key)
    ours, theirs = parts.read().sets[key], whole.read().sets[key]
    assert replace(ours, seconds=0.0) == replace(theirs, seconds=0.0)
    assert (ours.images, ours.images_decoded) == (20, 20) and ours.seconds > 0


def test_what_is_finished_of_a_shard_is_not_made_again(tmp_path):
    (unit,) = set_units("random")
    store = Store(tmp_path / "store.sqlite")
    assert unit.left(store).finished == frozenset()
    store.add(replace(unit, number=0, of=4).run(HERE))  # 0, 1, 2
    begun = replace(unit, number=0, of=2).left(store)
    finished = begun.run(HERE)
    assert set(finished.images.data) == {3, 4}
    store.add(finished)
    assert replace(unit, number=0, of=2).left(store).run(HERE).images is None
    store.add(unit.left(store).run(HERE))
    assert unit.left(store) is None and set(store.images(unit.spec.key)) == set(range(10))


@given(units=st.integers(1, 60), jobs=st.integers(1, 40))
def test_jobs_end_together_and_units_are_not_cut_finer_than_that_takes(units, jobs):
    parts = even_parts(units, jobs)
    rounds = [math.ceil(units * n / jobs) / n for n in range(1, parts + 1)]  # in units of one whole unit's time
    assert rounds[-1] <= 1.1 * units / jobs < min([*rounds[:-1], math.inf])
    assert parts <= jobs


def test_there_are_as_many_shards_as_keep_all_jobs_busy():
    units = set_units(sets=3)
    for jobs, of in ((1, 1), (2, 2), (3, 1), (4, 4), (6, 2), (8, 5)):
        found = shards_of(units, jobs)
        assert [(unit.number, unit.of) for unit in found] == [(number, of) for number in range(of)] * 3
        assert len({unit.name for unit in found}) == len(found) and len({unit.keys for unit in found}) == 3
    assert len(shards_of(units, 1, shards=5)) == 15
    assert shards_of([], 8) == []


def test_a_method_that_mixes_classes_is_never_cut():
    (unit,) = set_units("dsa")
    for options in ({"jobs": 8}, {"jobs": 1, "shards": 4}):
        assert [one.of for one in shards_of([unit], **options)] == [1]


# ---------------------------------------------------------------- in a run


def test_a_run_of_several_jobs_measures_what_one_job_does(tmp_path):
    one = planned(sets=2)
    store, executor = measure(tmp_path / "1", one, JoblibExecutor(1)), Jobs(6)
    several = measure(tmp_path / "6", one, executor)
    assert sum(isinstance(unit, SetUnit) for unit in executor.ran) == 6
    contents, theirs = store.read(), several.read()
    for spec in one[0].specs:
        assert bytes_of(store, spec) == bytes_of(several, spec)
    (line,), (other) = lines_of(one, contents), lines_of(one, theirs)[0]
    assert line.state == other.state == MEASURED
    assert (line.ours, line.spread, line.settings) == (other.ours, other.spread, other.settings)
    assert (set(theirs.sets), set(theirs.networks)) == (set(contents.sets), set(contents.networks))


def test_a_run_stopped_after_every_shard_ends_with_the_same_set(tmp_path):
    one = planned()
    store = measure(tmp_path / "whole", one, JoblibExecutor(1))
    shards, labels = Jobs(3), []
    for units in (1, 2, 3):  # those before the last have nothing left to do
        executor = Jobs(3, stop_after=units)
        with pytest.raises(KeyboardInterrupt):
            measure(tmp_path / "stopped", one, executor)
        labels.append(Store(tmp_path / "stopped" / "store.sqlite").labels(one[0].specs[0].key))
    assert [len(some) for some in labels] == [4, 7, 10]
    stopped = measure(tmp_path / "stopped", one, shards)
    assert not any(isinstance(unit, SetUnit) for unit in shards.ran)
    assert bytes_of(stopped, one[0].specs[0]) == bytes_of(store, one[0].specs[0])
    assert lines_of(one, stopped.read())[0].state == MEASURED


def test_a_shard_that_fails_is_a_set_that_fails(tmp_path):
    one = planned(iterations=3, lr_img=1e30)  # it diverges
    store = measure(tmp_path, one, Jobs(2))
    (line,) = lines_of(one, store.read())
    assert line.state == FAILED and "diverged" in line.reason


def test_networks_spread_over_jobs_that_would_be_idle():
    (one,) = planned("random")
    unit = replace(one.trained[0].unit, draws=tuple((0, number) for number in range(20)))
    for jobs, sizes in ((1, [20]), (2, [10, 10]), (8, [3] * 6 + [2]), (40, [1] * 20)):
        parts = _spread([unit], jobs)
        assert [len(part.draws) for part in parts] == sizes
        assert [key for part in parts for key in part.keys] == list(unit.keys)
    assert _spread([], 4) == []


def test_the_number_of_shards_is_checked(tmp_path):
    with pytest.raises(ValueError, match="shards must be at least 1, got 0"):
        measure(tmp_path, planned(), Jobs(1), shards=0)
    assert not (tmp_path / "store.sqlite").exists()
