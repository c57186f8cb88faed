"""Sets made in shards of their classes: the same set, whoever makes which part and however often it is stopped."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clreplay.benchmark.datasets import load_cached
from clreplay.benchmark.executors import JoblibExecutor
from clreplay.benchmark.plan import plan
from clreplay.benchmark.request import TableRequest
from clreplay.benchmark.results import FAILED, MEASURED, lines_of
from clreplay.benchmark.run import BenchmarkRun, _spread
from clreplay.benchmark.sets import Place
from clreplay.benchmark.shards import ShardUnit, even_parts, joined, shards_of
from clreplay.benchmark.store import Contents, Store
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
        asked, device, chosen = unit.run(HERE).choice
        contents.choices[asked] = [(device, chosen)]
    return one.set_units(contents, "cpu")


def contents_of(finished):
    return Contents(units={row.key: row for one in finished for row in one.rows})


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


@given(classes=st.integers(1, 12), of=st.integers(1, 15))
def test_every_class_stands_in_one_shard_and_shards_differ_by_one_class(classes, of):
    from clreplay.benchmark.datasets import Loaded

    data = load_cached("digits", None).set
    kept = data.train.labels < classes
    some = replace(data, train=type(data.train)(data.train.images[kept], data.train.labels[kept]))
    shards = [Loaded(some, "").shard(number, of) for number in range(of)]
    found = [shard.classes if shard else [] for shard in shards]
    assert sum(found, []) == sorted(set(data.train.labels[kept].tolist()))
    assert max(map(len, found)) - min(map(len, found)) <= 1


@pytest.mark.parametrize("of", [2, 3, 12])
def test_shards_make_the_bytes_of_the_whole_set(of):
    (unit,) = set_units()
    whole = unit.run(HERE)
    shards = [ShardUnit(unit.spec, number, of).run(HERE) for number in range(of)]
    images = [image for one in shards if one.images for image in one.images[1].items()]
    assert dict(images) == whole.images[1] and len(images) == 10
    assert {one.images[0] for one in shards if one.images} == {unit.spec.key}
    row = joined(unit.spec, contents_of(shards))
    assert (row.key, row.kind, row.settings) == (whole.rows[0].key, "set", whole.rows[0].settings)
    assert (row.result["images"], row.result["images_decoded"], row.result["shards"]) == (20, 20, of)
    assert row.seconds == pytest.approx(sum(one.rows[0].seconds for one in shards))
    assert row.result["chosen"] == whole.rows[0].result["chosen"]


def test_a_set_is_whole_when_its_last_shard_is_there_and_not_before():
    (unit,) = set_units("random")
    shards = [ShardUnit(unit.spec, number, 3).run(HERE) for number in range(3)]
    assert joined(unit.spec, contents_of(shards[:2])) is None
    row = joined(unit.spec, contents_of(shards))
    contents = contents_of(shards)
    contents.units[row.key] = row
    assert joined(unit.spec, contents) is None  # it is there already
    elsewhere = [replace(one, rows=(replace(one.rows[0], device="another machine"),)) for one in shards[:1]]
    both = joined(unit.spec, contents_of([*elsewhere, *shards[1:]])).device
    assert sorted(both.split(" + ")) == sorted([row.device, "another machine"])


@given(units=st.integers(1, 60), jobs=st.integers(1, 40))
def test_jobs_end_together_and_units_are_not_cut_finer_than_that_takes(units, jobs):
    parts = even_parts(units, jobs)
    rounds = [math.ceil(units * n / jobs) / n for n in range(1, parts + 1)]  # in units of one whole unit's time
    assert rounds[-1] <= 1.1 * units / jobs < min([*rounds[:-1], math.inf])
    assert parts <= jobs


def test_there_are_as_many_shards_as_keep_all_jobs_busy():
    units = set_units(sets=3)
    for jobs, of in ((1, 1), (2, 2), (3, 1), (4, 4), (6, 2), (8, 5)):
        found = shards_of(units, Contents(), jobs)
        assert len(found) == 3 * of and {type(unit) for unit in found} == ({SetUnit} if of == 1 else {ShardUnit})
    assert len(shards_of(units, Contents(), 1, asked=5)) == 15
    assert shards_of([], Contents(), 8) == []


def test_a_method_that_mixes_classes_is_never_cut():
    (unit,) = set_units("dsa")
    assert shards_of([unit], Contents(), 8) == [unit] and shards_of([unit], Contents(), 1, asked=4) == [unit]


def test_a_set_that_was_begun_keeps_its_shards():
    (unit,) = set_units("random")
    begun = contents_of([ShardUnit(unit.spec, 1, 4).run(HERE)])
    for jobs in (1, 2, 9):
        found = shards_of([unit], begun, jobs)
        assert [(one.number, one.of) for one in found] == [(0, 4), (2, 4), (3, 4)]


# ---------------------------------------------------------------- in a run


def test_a_run_of_several_jobs_measures_what_one_job_does(tmp_path):
    one = planned(sets=2)
    store, executor = measure(tmp_path / "1", one, JoblibExecutor(1)), Jobs(6)
    several = measure(tmp_path / "6", one, executor)
    assert sum(isinstance(unit, ShardUnit) for unit in executor.ran) == 6
    contents, theirs = store.read(), several.read()
    for spec in one[0].specs:
        assert bytes_of(store, spec) == bytes_of(several, spec)
    (line,), (other) = lines_of(one, contents, "cpu"), lines_of(one, theirs, "cpu")[0]
    assert line.state == other.state == MEASURED
    assert (line.ours, line.spread, line.settings) == (other.ours, other.spread, other.settings)
    assert {key for key, row in theirs.units.items() if row.kind != "shard"} == set(contents.units)


def test_a_run_stopped_after_every_shard_ends_with_the_same_set(tmp_path):
    one = planned()
    store = measure(tmp_path / "whole", one, JoblibExecutor(1))
    made = 0
    for _ in range(3):
        executor = Jobs(3, stop_after=1)
        with pytest.raises(KeyboardInterrupt):
            measure(tmp_path / "stopped", one, executor)
        made += sum(isinstance(unit, ShardUnit) for unit in executor.ran)
    executor = Jobs(3)
    stopped = measure(tmp_path / "stopped", one, executor)
    assert made == 3 and not any(isinstance(unit, ShardUnit) for unit in executor.ran)
    assert bytes_of(stopped, one[0].specs[0]) == bytes_of(store, one[0].specs[0])


def test_a_run_stopped_between_the_last_shard_and_the_set_makes_nothing_again(tmp_path):
    one = planned()
    (unit,) = set_units()
    store = Store(tmp_path / "store.sqlite")
    for number in range(2):
        store.add(ShardUnit(unit.spec, number, 2).run(HERE))
    executor = Jobs(2)
    measure(tmp_path, one, executor)
    assert not any(isinstance(ran, SetUnit) for ran in executor.ran)
    assert lines_of(one, store.read(), "cpu")[0].state == MEASURED


def test_a_shard_that_fails_is_a_set_that_fails(tmp_path):
    one = planned(iterations=3, lr_img=1e30)  # it diverges
    store = measure(tmp_path, one, Jobs(2))
    (line,) = lines_of(one, store.read(), "cpu")
    assert line.state == FAILED and "diverged" in line.reason


def test_networks_spread_over_jobs_that_would_be_idle():
    (one,) = planned("random")
    unit = replace(one.trained[0].unit(Contents(), "cpu"), draws=tuple((0, number) for number in range(20)))
    for jobs, sizes in ((1, [20]), (2, [10, 10]), (8, [3] * 6 + [2]), (40, [1] * 20)):
        parts = _spread([unit], jobs)
        assert [len(part.draws) for part in parts] == sizes
        assert [key for part in parts for key in part.keys] == list(unit.keys)
    assert _spread([], 4) == []


def test_the_number_of_shards_is_checked(tmp_path):
    with pytest.raises(ValueError, match="shards must be at least 1, got 0"):
        measure(tmp_path, planned(), Jobs(1), shards=0)
    assert not (tmp_path / "store.sqlite").exists()
