"""The folder of a run: one process at a time, damage that is told, steps that are repeated."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from run_helpers import QUIET, one, tiny_settings

from clreplay.incremental.cli import continual_main
from clreplay.incremental.folder_lock import FolderInUse, sole_worker
from clreplay.incremental.results_file import COLUMNS, append_rows, read_rows
from clreplay.incremental.run import run_experiment
from clreplay.incremental.run_folder import RunFolder, read_settings
from clreplay.memory.replay_memory import ReplayMemory

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def settings():
    """Two steps of images drawn at random: nothing to condense."""
    overrides = {"train.width": 4, "train.updates": 2}
    return one(tiny_settings(), memories=("random",), steps=2, networks=2, overrides=overrides)


def files_of(folder):
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---------------------------------------------------------------- one process at a time


HOLDER = """
import sys, time
from pathlib import Path
from clreplay.incremental.folder_lock import sole_worker
with sole_worker(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_in_a_folder_is_told_who_works_there_and_changes_nothing(settings, tmp_path, capsys):
    folder = run_experiment(settings, tmp_path / "run", QUIET)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert holder.stdout.readline() == "held\n"
        before = files_of(folder)
        with pytest.raises(FolderInUse, match=f"process {holder.pid} on .* works in .*run; wait until it ends"):
            run_experiment(settings, folder, QUIET)
        flags = ["--memory", "random", "--preset", "smoke", "--images-per-class", "3", "--out", str(folder)]
        assert continual_main("digits", "", flags) == 2
        assert f"error: process {holder.pid} on " in capsys.readouterr().err
        assert files_of(folder) == before
    finally:
        holder.kill()  # not a word more: the lock must end with its process
        holder.wait()
    assert (folder / ".owner.json").exists()
    run_experiment(settings, folder, QUIET)
    assert not (folder / ".owner.json").exists()


def test_a_lock_whose_owner_is_not_written_yet_is_still_a_lock(tmp_path):
    with sole_worker(tmp_path):
        (tmp_path / ".owner.json").write_text("{")
        with pytest.raises(FolderInUse, match="another process works in"):
            with sole_worker(tmp_path):
                pytest.fail("two at once")


def test_a_disk_without_locks_costs_a_warning(tmp_path, monkeypatch, caplog):
    def no_locks(*_, **__):
        raise NotImplementedError("no locks here")

    monkeypatch.setattr("clreplay.incremental.folder_lock.FileLock.acquire", no_locks)
    with sole_worker(tmp_path):
        assert "cannot be locked (no locks here); start no second run in it" in caplog.text


@pytest.mark.parametrize("left", [".lock", ".owner.json", "settings.yaml.0a1b2c3d4e5f.partial", ".DS_Store"])
def test_a_run_that_was_killed_before_it_wrote_its_settings_can_be_started_again(left, settings, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / left).write_text("experi")
    run_experiment(settings, tmp_path / "run", QUIET)
    assert len(pd.read_csv(tmp_path / "run" / "results.csv")) == 4


def test_a_folder_of_something_else_is_not_locked(settings, tmp_path):
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(FileExistsError, match="not a run's folder"):
        run_experiment(settings, tmp_path, QUIET)
    assert sorted(os.listdir(tmp_path)) == [".DS_Store", "thesis.tex"]


# ---------------------------------------------------------------- damage


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "settings.yaml is empty; restore it from a copy, or choose another --out"),
        (b"- 1\n", "settings.yaml does not hold the settings of a run"),
        (b"a: [1\n", "settings.yaml is damaged"),
        (b"a: \xff\xfe\n", "settings.yaml is damaged"),
        (b"a: !!python/object:os.system 1\n", "settings.yaml is damaged"),
        (BOMB.encode(), r"settings.yaml is damaged \(its aliases .* stand for"),
        (b"[" * 20000, "settings.yaml is damaged"),
    ],
    ids="empty list cut bytes object aliases brackets".split(),
)
def test_damaged_settings_are_told_and_nothing_is_changed(text, message, settings, tmp_path):
    folder = run_experiment(settings, tmp_path / "run", QUIET)
    (folder / "settings.yaml").write_bytes(text)
    before = files_of(folder)
    with pytest.raises(ValueError, match=message) as caught:
        run_experiment(settings, folder, QUIET)
    assert str(folder / "settings.yaml") in str(caught.value)
    assert files_of(folder) == before
    with pytest.raises(ValueError, match=message):
        read_settings(folder)


def test_a_difference_of_long_settings_is_cut(settings, tmp_path):
    folder = run_experiment(settings, tmp_path / "run", QUIET)
    said = yaml.safe_load((folder / "settings.yaml").read_text())
    said["training"] = ["x" * 1000] * 1000
    (folder / "settings.yaml").write_text(yaml.safe_dump(said))
    with pytest.raises(ValueError, match="training is .* there and .* here") as caught:
        run_experiment(settings, folder, QUIET)
    assert len(str(caught.value)) < 4000


def changed(line, column, value):
    cells = line.split(",")
    cells[COLUMNS.index(column)] = value
    return ",".join(cells)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: [], "is damaged"),
        (lambda lines: [lines[0].replace("accuracy", "acc"), *lines[1:]], "has no column accuracy"),
        (lambda lines: [*lines[:2], changed(lines[2], "accuracy", "high"), *lines[3:]], "accuracy in line 3 .*'high'"),
        (lambda lines: [*lines[:2], changed(lines[2], "accuracy", "inf"), *lines[3:]], "accuracy in line 3 .*inf"),
        (lambda lines: [*lines[:2], changed(lines[2], "accuracy", ""), *lines[3:]], "accuracy in line 3 must be"),
        (lambda lines: [*lines[:2], changed(lines[2], "step", "0.5"), *lines[3:]], "step in line 3 .*whole number"),
        (lambda lines: [*lines[:3], lines[3] + ",1,2", *lines[4:]], "is damaged"),
        (lambda lines: [*lines, lines[2]], "step 0, network 1 twice; delete one of them .the second is line 6"),
    ],
    ids="empty column text infinity blank half long twice".split(),
)
def test_damaged_results_are_told_before_any_work(damage, message, settings, tmp_path):
    folder = run_experiment(settings, tmp_path / "run", QUIET)
    rows = folder / "results.csv"
    lines = rows.read_text().splitlines()
    rows.write_text("".join(line + "\n" for line in damage(lines)))
    before = files_of(folder)
    with pytest.raises(ValueError, match=message) as caught:
        run_experiment(settings, folder, QUIET)
    assert str(rows) in str(caught.value)
    assert files_of(folder) == before


def test_names_with_commas_and_names_like_nothing_come_back(tmp_path):
    row = dict.fromkeys(COLUMNS, 1)
    for memory in ("my,own", "NA", "null"):
        append_rows(tmp_path / "results.csv", [{**row, "memory": memory, "dataset": "nan"}])
    found = read_rows(tmp_path / "results.csv")
    assert found.memory.tolist() == ["my,own", "NA", "null"] and found.dataset.tolist() == ["nan"] * 3


# ---------------------------------------------------------------- steps that are repeated


@pytest.mark.parametrize("host", ["none", "avalanche"])
def test_a_row_that_is_deleted_is_measured_again_as_it_was(host, settings, tmp_path):
    wanted = one(settings, memories=("random",), networks=2, host=host, steps=5)
    folder = run_experiment(wanted, tmp_path / "run", QUIET)
    rows = folder / "results.csv"
    whole = pd.read_csv(rows)
    lines = rows.read_text().splitlines()
    gone = whole.index[(whole.step == 1) & (whole.network == 1)][0] + 1
    rows.write_text("\n".join(lines[:gone] + lines[gone + 1 :]) + "\n")
    run_experiment(wanted, folder, QUIET)
    again = pd.read_csv(rows).sort_values(["step", "network"], ignore_index=True)
    measured = [name for name in COLUMNS if name != "train_seconds"]
    assert again[measured].equals(whole[measured])

    def others(lines):
        return [line for line in lines if line.split(",")[COLUMNS.index("step")] != "1"]

    assert others(rows.read_text().splitlines()) == others(lines)


def test_a_step_of_a_memory_that_has_shrunk_is_not_repeated(settings, tmp_path):
    wanted = one(settings, memories=("random",), networks=1, images_per_class=None, mem_size=20)
    folder = run_experiment(wanted, tmp_path / "run", QUIET)
    rows = folder / "results.csv"
    lines = rows.read_text().splitlines()
    rows.write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    before = rows.read_bytes()
    with pytest.raises(ValueError, match="lacks rows of step 0 of memory random, which cannot be repeated"):
        run_experiment(wanted, folder, QUIET)
    assert rows.read_bytes() == before
    rows.write_text("\n".join(lines[:2]) + "\n")  # the last step can
    run_experiment(wanted, folder, QUIET)
    assert len(pd.read_csv(rows)) == 2


def test_a_checkpoint_of_before_the_results_is_refused(settings, tmp_path):
    folder = run_experiment(settings, tmp_path / "run", QUIET)
    rows = folder / "results.csv"
    lines = rows.read_text().splitlines()
    checkpoint = RunFolder(folder).checkpoint("random", 0)
    rows.write_text("\n".join(lines[:3]) + "\n")
    memory = ReplayMemory.load(checkpoint)
    memory.slots = {}
    memory.save(checkpoint)
    with pytest.raises(ValueError, match="has step 0 but .*random-order0.safetensors lacks its classes"):
        run_experiment(settings, folder, QUIET)
