"""Units of work and who runs them: pure, keyed, repeatable; what fails is an outcome."""

import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from acting_unit import Act
from own_helpers import own_recipe, tiled_recipe

from clreplay.benchmark import units
from clreplay.benchmark.datasets import load_cached
from clreplay.benchmark.executors import DEATH, JoblibExecutor, Outcome, Task, attempt, claimed
from clreplay.benchmark.plan import plan
from clreplay.benchmark.request import TableRequest
from clreplay.benchmark.rows import Contents
from clreplay.benchmark.sets import Place, from_bytes, to_bytes
from clreplay.benchmark.units import ChoiceUnit, NetworksUnit, SetUnit
from clreplay.data import load_dataset, pixel_codes
from clreplay.memory.kept import Kept
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.training.evaluate import accuracy
from clreplay.training.loop import train

HERE = Place("cpu", commit="abc")
QUICK = {"train.updates": 2, "train.width": 4, "train.batch_size": 16}


def planned(method="random", **grid):
    options = {"sets": 1, "networks": 2, "preset": "smoke", "overrides": QUICK, **grid}
    (one,) = plan(TableRequest("1", ("digits",), (2,), (method,), **options))
    return one


def made(one):
    """The finished set of a plan, and the unit of its networks."""
    contents = Contents()
    for unit in one.choice_units(contents, "cpu"):
        *open_execution, chosen = unit.run(HERE).choice
        contents.choices[tuple(open_execution)] = chosen
    (unit,) = one.set_units(contents, "cpu")
    return unit.run(HERE), one.trained[0].unit


def outcome(finished):
    """All but where and how long."""
    images = finished.images and replace(finished.images, origin=None)
    return [replace(row, origin=None) for row in finished.networks], images, finished.settings


# ---------------------------------------------------------------- sets


def test_a_set_comes_out_the_same_again_and_in_bytes(global_chance_untouched):
    one = planned("ddm", overrides={**QUICK, "iterations": 2, "width": 8})
    load_cached("digits", None)  # what the first import of scikit-learn does to Python's chance is not ours
    with global_chance_untouched():
        first, _ = made(one)
    again, _ = made(one)
    assert outcome(first) == outcome(again)
    part = first.images
    assert part.key == one.specs[0].key and set(part.data) == set(range(10))
    assert part.stored == part.decoded == dict.fromkeys(range(10), 2)
    assert part.origin.commit == "abc" and part.origin.seconds > 0 and "iteration" in part.last_record
    assert first.settings == {part.condensed: one.specs[0].condensed}
    assert first.fingerprint == load_cached("digits", None).fingerprint


def test_another_seed_is_another_set():
    one = planned(sets=2)
    (first, second) = (unit.run(HERE) for unit in one.set_units(Contents(), "cpu"))
    assert first.images.key != second.images.key and first.images.data != second.images.data
    assert first.images.condensed == second.images.condensed


def test_what_is_left_to_the_machine_is_chosen_once_for_each_kind_of_device():
    one = planned("dm", sets=2)
    contents = Contents()
    assert one.set_units(contents, "cpu") == [] and one.network_units(contents, "cpu") == []
    (unit,) = one.choice_units(contents, "cpu")
    assert isinstance(unit, ChoiceUnit)
    key, device, chosen = unit.run(HERE).choice
    assert device == "cpu" and chosen["kernels"] in ("eager", "native") and key == unit.keys[0]
    contents.choices[key, "cuda"] = {"kernels": "compiled"}
    assert len(one.choice_units(contents, "cpu")) == 1  # a GPU chose for itself
    contents.choices[key, device] = chosen
    assert one.choice_units(contents, "cpu") == []
    ours, theirs = (one.set_units(contents, kind) for kind in ("cpu", "cuda"))
    assert [unit.keys for unit in ours] == [unit.keys for unit in theirs]  # it is the same set
    assert (ours[0].chosen, theirs[0].chosen) == (chosen, {"kernels": "compiled"})


def test_how_a_set_is_computed_is_recorded_and_no_part_of_its_key():
    native, eager = ({"kernels": kernels, "layout": "contiguous", "parallel": "operators", "iterations": 1, "width": 4}
                     for kernels in ("native", "eager"))  # fmt: skip
    units = [planned("dm", overrides={**QUICK, **how}).set_units(Contents(), "cpu")[0] for how in (native, eager)]
    assert units[0].keys == units[1].keys and units[0].spec.execution_key != units[1].spec.execution_key
    assert units[1].run(HERE).images.execution["kernels"] == "eager"


def test_an_interrupted_set_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    one = planned("dm", overrides={**QUICK, "iterations": 4, "kernels": "eager", "layout": "contiguous", "parallel": "operators"})  # noqa: E501  # fmt: skip
    whole, _ = made(one)
    (unit,) = one.set_units(Contents(), "cpu")
    place = replace(HERE, work=str(tmp_path / "work"))

    def stop(done, total, unit):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unit.run(place, progress=stop)
    (left,) = (tmp_path / "work").iterdir()
    seen = []
    again = unit.run(place, progress=lambda done, total, unit: seen.append(done))
    assert seen == [4] and again.images.data == whole.images.data
    assert not left.exists()


# ---------------------------------------------------------------- networks


def test_interrupted_networks_go_on_and_finished_ones_are_not_trained_again(tmp_path, monkeypatch):
    finished, unit = made(planned(networks=3))
    images = finished.images.data
    whole = unit.run(HERE, images)
    place, calls, train = replace(HERE, work=str(tmp_path / "work")), [], units.train_learner

    def third_is_stopped(*given):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train(*given)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(units, "train_learner", third_is_stopped)
        unit.run(place, images)
    assert len(list((tmp_path / "work").iterdir())) == 2
    steps, step = [], torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self, *given: steps.append(1) or step(self, *given))
    again = unit.run(place, images)
    updates = len(steps)
    unit.run(HERE, images)
    assert len(steps) == updates + 3 * updates
    assert [row.accuracy for row in again.networks] == [row.accuracy for row in whole.networks]
    unit.forget(tmp_path / "work")
    assert not list((tmp_path / "work").iterdir())


def test_networks_do_not_hang_on_who_shares_their_unit():
    finished, unit = made(planned(networks=3))
    together = unit.run(HERE, finished.images.data)
    alone = [replace(unit, draws=(draw,)).run(HERE, finished.images.data) for draw in unit.draws]
    assert [row.key for row in together.networks] == list(unit.keys)
    rows = [replace(row, origin=None) for one in alone for row in one.networks]
    assert [replace(row, origin=None) for row in together.networks] == rows
    assert len({row.accuracy for row in rows}) > 1 and {row.images for row in rows} == {20}


def test_held_out_images_are_neither_condensed_nor_trained_on_and_tested_on_beside_the_test_images():
    plain, apart = made(planned(networks=2)), made(planned(networks=2, held_out=0.25))
    data = load_dataset("digits#held-out=0.25")
    (finished, unit), tested = apart, [data.test, data.held_out]
    assert finished.images.key != plain[0].images.key and unit.keys[0] != plain[1].keys[0]
    known = {bytes(image.numpy()) for image in data.held_out.images}
    memory = from_bytes(finished.images.data, data, "float32")
    chosen = [bytes(image.numpy()) for image in pixel_codes(memory.images, data.normalization)[0]]
    assert len(chosen) == 20 and not known & set(chosen)
    for row, draw in zip(unit.run(HERE, finished.images.data).networks, unit.draws):
        network = unit._drawn(data, draw, fused=True)
        settings, key = unit.training.settings, (unit.seed, "static", "train", *draw)
        train(network, memory.images, memory.labels, settings, key)
        found = [accuracy(network, part, data.normalization, torch.device("cpu")) for part in tested]
        assert [row.accuracy, row.held_out] == pytest.approx(found) and row.dataset == data.name
    assert [row.held_out for row in plain[1].run(HERE, plain[0].images.data).networks] == [None, None]


def test_on_a_gpu_networks_of_a_set_share_a_unit_and_on_a_cpu_they_do_not():
    one = planned(networks=45)
    finished, unit = made(one)
    contents = Contents(sets={finished.images.key: finished.images})
    assert [len(u.draws) for u in one.network_units(contents, "cuda")] == [20, 20, 5]
    assert [len(u.draws) for u in one.network_units(contents, "cpu")] == [1] * 45
    contents.networks.update(dict.fromkeys(unit.keys[3:44]))
    (left,) = one.network_units(contents, "cuda")
    assert left.draws == ((0, 0), (0, 1), (0, 2), (0, 44))


def test_images_held_in_uint8_are_other_networks_of_the_same_set(tmp_path):
    path = str(own_recipe(tmp_path))
    floats, bytes_ = (planned(path, store=store) for store in ("float32", "uint8"))
    finished, first = made(floats)
    second = bytes_.trained[0].unit
    assert first.needs == second.needs and not set(first.keys) & set(second.keys)
    data = load_cached("digits", None).set
    held = [from_bytes(finished.images.data, data, store).images for store in ("float32", "uint8")]
    step = (held[0].amax((2, 3)) - held[0].amin((2, 3))) / 255
    error = (held[0] - held[1]).abs().amax((2, 3))
    assert (error > 0).any() and (error <= step / 2 + 1e-6).all()


@pytest.mark.parametrize("store", ["2bit", "avif", "avif:20", "png:8px"])
def test_images_may_be_held_in_every_store_of_a_memory(tmp_path, store):
    path = str(own_recipe(tmp_path))
    finished, first = made(planned(path))
    unit = planned(path, store=store).trained[0].unit
    assert first.needs == unit.needs and not set(first.keys) & set(unit.keys)
    data, kept = load_cached("digits", None).set, Kept.parse(store)
    memory = from_bytes(finished.images.data, data, store)
    assert (memory.store, memory.quality, memory.stored_pixels) == (kept.store, kept.quality, kept.pixels)
    assert {row.store for row in unit.run(HERE, finished.images.data).networks} == {store}


def test_stored_images_that_decode_to_more_are_decoded_for_training(tmp_path):
    finished, unit = made(planned(str(tiled_recipe(tmp_path))))
    assert (finished.images.stored[0], finished.images.decoded[0]) == (2, 8)
    assert {row.images for row in unit.run(HERE, finished.images.data).networks} == {80}


def test_all_real_images_need_no_set():
    (unit,) = planned("whole", networks=1).network_units(Contents(), "cpu")
    assert unit.needs is None
    (row,) = unit.run(HERE).networks
    assert (row.images, row.condensed_set, row.store) == (1198, None, None)


def test_packing_keeps_every_bit():
    data = load_cached("digits", None).set
    memory = ReplayMemory(3, normalization=data.normalization, store="float32")
    chance = torch.Generator().manual_seed(0)
    memory.add({label: 10 * torch.randn(3, 1, 32, 32, generator=chance) for label in (4, 1)})
    again = from_bytes(to_bytes(memory), data, "float32")
    assert torch.equal(again.images, memory.images) and torch.equal(again.labels, memory.labels)


# ---------------------------------------------------------------- who runs them


def tried(act):
    return len(open(act.counter, encoding="utf-8").read())


def test_what_is_wrong_is_tried_once_and_what_may_pass_twice(tmp_path):
    for what, times, reason in (
        ("bad", 1, "ValueError: this is wrong"),
        ("full", 2, "RuntimeError: out of memory"),
        ("passing", 2, ""),
        ("good", 1, ""),
    ):
        act = Act(what, counter=str(tmp_path / what))
        found = attempt(Task(act, HERE))
        assert tried(act) == found.attempts == times
        assert found.reason == reason and (found.finished is None) == bool(reason)


def test_tasks_are_taken_one_by_one_where_one_runs_at_a_time():
    log = []

    def tasks():
        for number in range(3):
            log.append(f"given {number}")
            yield Task(Act("good", number), HERE)

    for found in JoblibExecutor(1).run(tasks()):
        log.append(f"done {found.unit.number}")
    assert log == ["given 0", "done 0", "given 1", "done 1", "given 2", "done 2"]
    with pytest.raises(ValueError, match="jobs must be at least 1"):
        JoblibExecutor(0)


def outcomes(jobs, acts):
    return {o.unit.keys[0]: o for o in JoblibExecutor(jobs).run(Task(act, HERE) for act in acts)}


def test_several_processes_give_the_outcomes_of_one():
    acts = [Act("bad"), *(Act("good", number) for number in range(4))]
    one, two = (outcomes(jobs, acts) for jobs in (1, 2))
    assert set(one) == set(two) == {act.keys[0] for act in acts}
    for key, found in one.items():
        assert (found.finished, found.reason) == (two[key].finished, two[key].reason)


@pytest.mark.slow
def test_a_process_that_dies_takes_nothing_else_along():
    acts = [Act("good", 0), Act("die"), *(Act("good", number) for number in range(1, 6))]
    found = outcomes(2, acts)
    assert {key: o.finished and o.finished.fingerprint for key, o in found.items()} == {
        **{f"good{number}": f"good{number}" for number in range(6)},
        "die0": None,
    }
    assert found["die0"].reason == DEATH


def test_units_and_outcomes_can_be_sent_elsewhere():
    finished, unit = made(planned(networks=1))
    again = pickle.loads(pickle.dumps(Task(unit, HERE, finished.images.data)))
    assert isinstance(again.unit, NetworksUnit) and again.unit.keys == unit.keys
    assert outcome(again.unit.run(again.place, again.images)) == outcome(unit.run(HERE, finished.images.data))
    (set_unit,) = planned().set_units(Contents(), "cpu")
    assert isinstance(pickle.loads(pickle.dumps(set_unit)), SetUnit)


# ---------------------------------------------------------------- locks


def test_one_process_at_a_time_does_a_piece_of_work(tmp_path):
    with claimed(str(tmp_path), "piece") as mine:
        assert mine
        with claimed(str(tmp_path), "piece") as second, claimed(str(tmp_path), "other") as other:
            assert not second and other
    assert list(tmp_path.iterdir()) == []
    with claimed(str(tmp_path), "piece") as mine, claimed(None, "piece") as unlocked:
        assert mine and unlocked


def test_a_lock_ends_with_its_process(tmp_path):
    code = (
        "import os, sys\nfrom clreplay.benchmark.executors import claimed\n"
        "with claimed(sys.argv[1], 'piece') as mine:\n    print(mine, flush=True)\n    os.kill(os.getpid(), 9)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "True" and ran.returncode == -9
    assert (tmp_path / "piece.lock").exists()
    with claimed(str(tmp_path), "piece") as mine:
        assert mine


def test_what_another_process_is_at_is_left_to_it(tmp_path):
    place = replace(HERE, work=str(tmp_path))
    with claimed(place.work, "good0"):
        found = attempt(Task(Act("good"), place))
    assert found == Outcome(found.unit, elsewhere=True)
