"""The class-incremental experiment: protocol, hosts, files, going on, and what bad input gets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from data_helpers import write_classes
from run_helpers import QUIET, TINY, memory_bytes_of, one, same, tiny_settings

from clreplay.condensation import RealImages
from clreplay.condensation.matching import engine as matching
from clreplay.incremental import core_host, plan, run, run_folder
from clreplay.incremental.forecast import forecast
from clreplay.incremental.plan import plan_experiment
from clreplay.incremental.run import run_experiment
from clreplay.incremental.run_folder import SettingsMismatch
from clreplay.incremental.settings import ContinualSettings
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.networks import reinitialize
from clreplay.recipes.recipe import RecipeError
from clreplay.runtime import files
from clreplay.runtime.progress import Reporter
from clreplay.runtime.seeding import key_seed
from clreplay.training.cutmix import CutMixSettings, train_with_cutmix
from clreplay.training.evaluate import accuracy


@pytest.fixture
def settings() -> ContinualSettings:
    return tiny_settings()


def test_a_run_leaves_every_promised_file_and_a_row_a_network(settings, tmp_path):
    folder = run_experiment(settings, tmp_path / "run", QUIET)
    rows = pd.read_csv(folder / "results.csv")
    assert list(rows.columns) == list(run_folder.COLUMNS)
    assert len(rows) == 2 * 2 * 5 * 2  # memories, orders, steps, networks
    for name in ("settings.yaml", "accuracy.png", "memory.png", "memory-random.safetensors", "memory-ddm.safetensors"):
        assert (folder / name).stat().st_size > 0
    assert rows.accuracy.between(0, 100).all()
    assert rows.classes_seen.tolist() == [2 * (step + 1) for step in rows.step]
    assert rows.memory_images.tolist() == [6 * (step + 1) for step in rows.step]
    assert not list(folder.rglob("*.partial"))


def test_the_memory_of_a_run_says_what_it_is_and_can_be_read_by_whoever_reads_the_results(settings, tmp_path):
    folder = run_experiment(one(settings), tmp_path / "run", QUIET)
    memory = ReplayMemory.load(folder, dataset="digits")
    assert memory.dataset().classes == [str(digit) for digit in range(10)]
    assert memory.info["method"] == "ddm" and memory.info["settings"]["iterations"] == 2
    assert memory.info["made_with"][0]["commit"]
    files = [folder / "results.csv", *folder.rglob("*.safetensors")]
    assert len(files) == 4 and len({path.stat().st_mode for path in files}) == 1


def test_settings_file_says_everything_needed_to_repeat_the_run(settings, tmp_path):
    folder = run_experiment(one(settings), tmp_path / "run", QUIET, command="runs/x.py --memory ddm")
    written = yaml.safe_load((folder / "settings.yaml").read_text())
    assert written["memories"]["ddm"]["settings"]["iterations"] == 2
    assert written["training"]["updates"] == 3
    assert torch.__version__.startswith(written["versions"]["torch"].split("+")[0])
    assert {"commit", "device_name", "created", "command", "seed", "host", "preset"} <= written.keys()


def test_one_memory_alone_is_called_memory_safetensors(settings, tmp_path):
    folder = run_experiment(one(settings), tmp_path / "run", QUIET)
    memory = ReplayMemory.load(folder / "memory.safetensors", dataset="digits")
    assert sorted(memory.classes) == list(range(10)) and len(memory) == 30


def test_memory_bytes_are_those_of_the_stored_codes(settings, tmp_path):
    rows = pd.read_csv(run_experiment(settings, tmp_path / "run", QUIET) / "results.csv")
    images = rows.memory_images
    expected = np.where(rows.memory == "random", images * 1024, images * (1024 + 8))
    assert rows.memory_bytes.tolist() == expected.tolist()


def test_class_orders_are_legacy_numpy_permutations(settings):
    made = plan_experiment(replace(settings, dataset="digits"))
    for order in (0, 1, 4):
        flat = [label for part in made.classes(order) for label in part]
        assert flat == np.random.RandomState(order).permutation(10).tolist()
        assert [len(part) for part in made.classes(order)] == [2] * 5


def test_two_runs_with_one_seed_are_byte_identical_and_another_seed_is_not(settings, tmp_path):
    first, again = (run_experiment(one(settings), tmp_path / name, QUIET) for name in ("a", "b"))
    other = run_experiment(one(settings, seed=1), tmp_path / "c", QUIET)
    left, right, different = (memory_bytes_of(f / "memory.safetensors") for f in (first, again, other))
    assert same(left, right) and not same(left, different)
    accuracies = [pd.read_csv(f / "results.csv").accuracy.tolist() for f in (first, again)]
    assert accuracies[0] == accuracies[1]


def test_a_condensed_class_is_the_same_in_every_class_order(settings, tmp_path):
    folder = run_experiment(one(settings, class_orders=2), tmp_path / "run", QUIET)
    left, right = (memory_bytes_of(folder / "checkpoint" / f"ddm-order{i}.safetensors") for i in (0, 1))
    assert same(left, right)


def test_a_second_class_order_takes_its_classes_from_the_cache(settings, tmp_path, monkeypatch):
    steps = []
    step = matching.MatchingEngine.step
    monkeypatch.setattr(matching.MatchingEngine, "step", lambda self: steps.append(1) or step(self))
    folder = run_experiment(one(settings, class_orders=2, cache=tmp_path / "cache"), tmp_path / "run", QUIET)
    plain = run_experiment(one(settings, class_orders=2), tmp_path / "plain", QUIET)
    left, right = (memory_bytes_of(f / "checkpoint" / "ddm-order1.safetensors") for f in (folder, plain))
    assert same(left, right)
    forecasts = 4 * 2  # each run tries its condenser on a few iterations before it starts
    assert len(steps) == forecasts + 5 * 2 + 2 * 5 * 2  # 2 iterations x 5 steps: once cached, twice not


def test_random_draws_anew_for_every_class_order(settings, tmp_path):
    tiny = {"train.width": 4, "train.updates": 3}
    folder = run_experiment(replace(settings, memories=("random",), overrides=tiny), tmp_path / "run", QUIET)
    left, right = (memory_bytes_of(folder / "checkpoint" / f"random-order{i}.safetensors") for i in (0, 1))
    assert not same(left, right)


def test_both_hosts_fill_identical_memories_and_reach_the_same_accuracies(settings, tmp_path):
    shared = replace(settings, class_orders=1)
    folders = {
        host: run_experiment(replace(shared, host=host), tmp_path / host, QUIET) for host in ("none", "avalanche")
    }
    for name in ("random", "ddm"):
        left, right = (memory_bytes_of(folder / f"memory-{name}.safetensors") for folder in folders.values())
        assert same(left, right)
    none, avalanche = (pd.read_csv(folder / "results.csv") for folder in folders.values())
    key = ["memory", "class_order", "step", "network", "classes_seen", "memory_images", "memory_bytes"]
    assert none[key].equals(avalanche[key])
    # Training is keyed alike in both, so on a CPU even the accuracies agree; anything that differs by more
    # than a few test images would be a protocol that differs.
    assert (none.accuracy - avalanche.accuracy).abs().max() < 1.0


def test_networks_trained_together_reach_the_accuracies_of_one_after_another(settings, tmp_path, monkeypatch):
    wanted = replace(settings, class_orders=1, networks=3)
    apart = pd.read_csv(run_experiment(wanted, tmp_path / "apart", QUIET) / "results.csv")
    monkeypatch.setattr(core_host, "should_stack", lambda device, networks: True)  # as on a GPU
    monkeypatch.setattr(core_host, "_train_one", lambda *_: pytest.fail("trained alone"))
    together = pd.read_csv(run_experiment(wanted, tmp_path / "together", QUIET) / "results.csv")
    assert len(apart) == len(together)
    assert (apart.accuracy - together.accuracy).abs().max() < 1.0
    assert same(*(memory_bytes_of(tmp_path / name / "memory-ddm.safetensors") for name in ("apart", "together")))


@pytest.mark.parametrize("host", ["none", "avalanche"])
def test_a_stopped_run_goes_on_and_ends_like_an_unbroken_one(settings, tmp_path, monkeypatch, host):
    wanted = one(settings, host=host)
    unbroken = run_experiment(wanted, tmp_path / "unbroken", QUIET)

    append = run_folder.RunFolder.append
    written = []

    def stop_after_two_steps(self, rows):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(rows)
        append(self, rows)

    monkeypatch.setattr(run_folder.RunFolder, "append", stop_after_two_steps)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(wanted, tmp_path / "broken", QUIET)
    monkeypatch.setattr(run_folder.RunFolder, "append", append)
    broken = run_experiment(wanted, tmp_path / "broken", QUIET)

    assert same(*(memory_bytes_of(folder / "memory.safetensors") for folder in (unbroken, broken)))
    left, right = (pd.read_csv(folder / "results.csv") for folder in (unbroken, broken))
    measured = [c for c in left.columns if not c.endswith("_seconds")]
    assert left[measured].equals(right[measured])


def test_going_on_does_not_condense_a_finished_step_again(settings, tmp_path, monkeypatch):
    wanted = one(settings)
    run_experiment(wanted, tmp_path / "run", QUIET)
    monkeypatch.setattr(RealImages, "__init__", lambda *_: pytest.fail("a finished run must not touch the data again"))
    run_experiment(wanted, tmp_path / "run", QUIET)


def test_a_memory_condensed_before_the_stop_is_not_condensed_again(settings, tmp_path, monkeypatch):
    wanted = one(settings)

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(core_host, "_train_one", stop)
        with pytest.raises(KeyboardInterrupt):
            run_experiment(wanted, tmp_path / "run", QUIET)
    assert ReplayMemory.load(tmp_path / "run" / "checkpoint" / "ddm-order0.safetensors").classes

    calls = []
    condense = core_host.condense_experience
    monkeypatch.setattr(core_host, "condense_experience", lambda *a, **k: calls.append(1) or condense(*a, **k))
    run_experiment(wanted, tmp_path / "run", QUIET)
    assert len(calls) == 4


@pytest.mark.parametrize("host", ["none", "avalanche"])
def test_ctrl_c_in_the_middle_of_condensing_loses_no_iteration(settings, tmp_path, monkeypatch, host):
    wanted = one(settings, host=host, overrides={**TINY, "ddm.iterations": 4})
    unbroken = run_experiment(wanted, tmp_path / "unbroken", QUIET)
    monkeypatch.setattr(run, "announce", lambda *_: None)  # its forecast would count as iterations
    step, done = matching.MatchingEngine.step, []

    def counted(self):
        if len(done) == 7 and not (tmp_path / "stopped").exists():  # the fourth iteration of the second step
            (tmp_path / "stopped").touch()
            raise KeyboardInterrupt
        done.append(1)
        return step(self)

    monkeypatch.setattr(matching.MatchingEngine, "step", counted)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(wanted, tmp_path / "broken", QUIET)
    assert (tmp_path / "broken" / "checkpoint" / "ddm-order0-step1.progress").is_file()
    broken = run_experiment(wanted, tmp_path / "broken", QUIET)
    assert len(done) == 4 * 5
    assert same(*(memory_bytes_of(folder / "memory.safetensors") for folder in (unbroken, broken)))
    assert not list(broken.rglob("*.progress"))


def test_other_settings_are_refused_and_the_difference_is_named(settings, tmp_path):
    run_experiment(one(settings), tmp_path / "run", QUIET)
    before = (tmp_path / "run" / "results.csv").read_bytes()
    with pytest.raises(SettingsMismatch, match=r"images_per_class is 3 there and 4 here"):
        run_experiment(one(settings, images_per_class=4), tmp_path / "run", QUIET)
    with pytest.raises(SettingsMismatch, match=r"memories.ddm.settings.lr_img"):
        run_experiment(one(settings, overrides={**TINY, "lr_img": 0.25}), tmp_path / "run", QUIET)
    assert (tmp_path / "run" / "results.csv").read_bytes() == before


def test_a_folder_with_something_else_in_it_is_left_alone(settings, tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(FileExistsError, match="not a run's folder"):
        run_experiment(one(settings), tmp_path, QUIET)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_truncated_checkpoint_is_told_and_nothing_is_lost(settings, tmp_path, monkeypatch):
    run_experiment(one(settings), tmp_path / "run", QUIET)
    checkpoint = tmp_path / "run" / "checkpoint" / "ddm-order0.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    rows = tmp_path / "run" / "results.csv"
    rows.write_text("\n".join(rows.read_text().splitlines()[:3]) + "\n")
    before = rows.read_bytes()
    with pytest.raises(ValueError, match="truncated"):
        run_experiment(one(settings), tmp_path / "run", QUIET)
    assert rows.read_bytes() == before


def test_a_full_disk_leaves_the_results_as_they_were(settings, tmp_path, monkeypatch):
    folder = run_folder.RunFolder(tmp_path)
    folder.settings_file.touch()
    row = dict.fromkeys(run_folder.COLUMNS, 1)
    folder.append([row])
    before = folder.results_file.read_bytes()

    def full(_):
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        folder.append([row, row])
    assert folder.results_file.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results.csv", "settings.yaml"]


def test_total_budget_is_shared_and_never_exceeded(settings, tmp_path):
    folder = run_experiment(one(settings, images_per_class=None, mem_size=25), tmp_path / "run", QUIET)
    rows = pd.read_csv(folder / "results.csv")
    assert rows.memory_images.tolist() == [25] * 5
    counts = torch.bincount(ReplayMemory.load(folder / "memory.safetensors").labels)
    assert counts.max() - counts.min() <= 1 and counts.sum() == 25


def test_a_small_class_is_kept_whole_by_both_hosts_and_a_run_of_many_goes_on(settings, tmp_path, caplog):
    for split, counts in (("train", {"a": 9, "b": 2, "c": 9, "d": 9}), ("test", dict.fromkeys("abcd", 2))):
        write_classes(tmp_path / "pets" / split, counts)
    uneven = replace(settings, dataset=f"folder:{tmp_path / 'pets'}@8", images_per_class=5, steps=2, class_orders=1)
    memories = []
    for host in ("none", "avalanche"):
        folder = run_experiment(replace(uneven, host=host, channels=3), tmp_path / host, QUIET)
        rows = pd.read_csv(folder / "results.csv").drop_duplicates(["memory", "step"], keep="last")
        assert sorted(rows.memory_images[rows.step == 1]) == [17] * len(settings.memories)
        memories.append(torch.bincount(ReplayMemory.load(next(folder.glob("memory*.safetensors"))).labels).tolist())
    assert memories == [[5, 2, 5, 5]] * 2
    assert "class 1: fewer images than the share: kept whole" in caplog.text
    with pytest.raises(ValueError, match="no class of folder-pets-8 has more than 9; take at most 9"):
        plan_experiment(replace(uneven, images_per_class=10))


def test_ten_steps_and_three_channels_work(settings, tmp_path):
    folder = run_experiment(one(settings, steps=10, channels=3), tmp_path / "run", QUIET)
    rows = pd.read_csv(folder / "results.csv")
    assert rows.classes_seen.tolist() == list(range(1, 11))
    assert ReplayMemory.load(folder / "memory.safetensors").images.shape == (30, 3, 32, 32)


@pytest.mark.parametrize("home", ["gone", "read-only", "writable", "used before"])
def test_avalanche_is_left_out_where_it_could_not_keep_its_settings(settings, tmp_path, monkeypatch, home):
    monkeypatch.setenv("HOME", str(tmp_path))
    if home == "gone":
        monkeypatch.setattr("os.path.expanduser", lambda path: path)
    if home == "used before":
        (tmp_path / ".avalanche").mkdir()
        (tmp_path / ".avalanche" / "config.json").write_text("{}")
    if home in ("read-only", "used before"):
        monkeypatch.setattr("os.access", lambda path, mode: False)  # to an administrator all can be written
    fits = home in ("writable", "used before")
    assert plan_experiment(replace(settings, host=None)).settings.host == ("avalanche" if fits else "none")
    if not fits:
        with pytest.raises(ValueError, match="host 'avalanche': Avalanche keeps its settings in .*set HOME to"):
            plan_experiment(replace(settings, host="avalanche"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memories": ("dmm",)}, "unknown memory 'dmm'; did you mean"),
        ({"memories": ("ddm", "ddm")}, "different names"),
        ({"steps": 3}, "steps must divide the 10 classes of digits, got 3; take 1, 2, 5 or 10, or let first_step"),
        ({"networks": 0}, "networks must be at least 1"),
        ({"mem_size": 5, "images_per_class": 3}, "either images_per_class or mem_size"),
        ({"images_per_class": None, "mem_size": 7}, "mem_size must be at least the number of classes"),
        ({"images_per_class": 500}, "needs 500 images, but no class of digits has more.*take at most"),
        ({"images_per_class": 0}, "images_per_class must be an integer of at least 1"),
        ({"dataset": "cifar1000"}, "cifar100"),
        ({"preset": "gpu"}, "preset must be"),
        ({"host": "mammoth"}, "host must be one of"),
        ({"protocol": "dance"}, "protocol must be one of common, idc, got 'dance'"),
        ({"protocol": "idc", "host": "avalanche"}, "mixes the labels of two images.* use --host none"),
        ({"overrides": {"train.mix": 0.5}}, "mix"),
        ({"device": "cuda"}, "sees no GPU"),
        ({"device": "gpu"}, "device must be like"),
        ({"overrides": {"iteration": 3}}, "no chosen memory has a setting 'iteration', did you mean 'iterations'"),
        ({"overrides": {"train.lr": "fast"}}, "lr must be float"),
        ({"overrides": {"icarl.lr": 1}}, "neither 'train' nor a chosen memory"),
    ],
)
def test_bad_input_is_told_before_anything_is_written(settings, tmp_path, changes, message):
    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises((ValueError, RecipeError), match=message):
        run_experiment(replace(settings, **changes), tmp_path / "run", QUIET)
    assert not (tmp_path / "run").exists()


def test_auto_preset_and_host_are_chosen_and_recorded(settings, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    made = plan_experiment(
        replace(settings, preset=None, host=None, device=None, overrides={}, class_orders=None, networks=None)
    )
    assert made.settings.preset == "cpu" and made.settings.host == "avalanche"
    assert (made.settings.class_orders, made.settings.networks) == (1, 3)
    monkeypatch.setattr(plan.importlib.util, "find_spec", lambda name: None)
    assert plan_experiment(replace(settings, host=None)).settings.host == "none"
    with pytest.raises(ValueError, match="needs Avalanche"):
        plan_experiment(replace(settings, host="avalanche"))


def test_the_plan_is_told_with_device_preset_data_and_time(settings, tmp_path):
    lines: list[str] = []
    run_experiment(one(settings), tmp_path / "run", Reporter(lines.append, terminal=False))
    text = "\n".join(lines)
    for word in (
        "digits",
        "DDM",
        "cpu",
        "smoke",
        "offline" if "offline" in text else "scikit-learn",
        "time      less than half a minute",
        "accuracy.png",
    ):
        assert word in text


def test_learners_in_idc_s_way_mix_images_and_are_recorded(settings, tmp_path, monkeypatch):
    overrides = {**TINY, "train.mix": 1.0, "train.batch_size": 8}
    asked = one(settings, protocol="idc", host=None, overrides=overrides, steps=2)
    made = plan_experiment(asked)
    assert isinstance(made.learner, CutMixSettings) and made.settings.host == "none"
    assert (made.learner.mix, made.learner.batch_size, made.learner.lr_drop, made.learner.updates) == (1.0, 8, 0.2, 3)
    assert "flip" not in made.learner.augment, "digits are not mirrored"
    assert plan.default_folder(made).name.endswith("-idc-smoke")
    run_experiment(asked, tmp_path / "idc", QUIET)
    said = yaml.safe_load((tmp_path / "idc" / "settings.yaml").read_text())
    assert said["protocol"] == "idc" and said["training"]["mix"] == 1.0
    # The last network of the run, made again by hand from the memory that it left.
    found = pd.read_csv(tmp_path / "idc" / "results.csv").accuracy.iloc[-1]
    memory, seed = ReplayMemory.load(tmp_path / "idc" / "memory.safetensors"), made.training_seed(0, 0)
    network = made.network()
    reinitialize(network, key_seed(seed, "weights", 1))
    train_with_cutmix(network, *memory.of_classes(sum(made.classes(0), []))[:2], made.learner, (seed, "train", 1))
    value = accuracy(network, made.data.test, made.data.normalization, torch.device("cpu"))
    assert found == pytest.approx(value, abs=1e-4)


def test_networks_that_condensing_needs_are_in_the_estimate_and_correct_nothing(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("CLREPLAY_CACHE", str(tmp_path / "cache"))
    tiny = {"tgdd.width": 4, "tgdd.encoder_epochs": 4, "tgdd.iterations": 60, "train.width": 4, "train.updates": 3}
    asked = one(settings, memories=("tgdd",), overrides=tiny, images_per_class=1, steps=2)
    made = plan_experiment(asked)
    expected = forecast(made)
    assert 0 < expected.encoders["tgdd"] < expected.condensing["tgdd"]
    assert not (tmp_path / "cache" / "weights").exists(), "an estimate trains nothing"
    lines: list[str] = []
    run_experiment(asked, tmp_path / "run", Reporter(lines.append, terminal=False))
    assert [line for line in lines if "corrected after" in line and "of 60 iterations" in line]
    memory = ReplayMemory.load(tmp_path / "run" / "memory.safetensors")
    assert len(memory) == 10 and len(memory.labels) == 40 and memory.info["chosen"]["encoders_found"] == 0
