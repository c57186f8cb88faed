"""A whole run, as a person starts it: it goes on where it was stopped, names what fails, and shows what it measured."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from clreplay.benchmark import run as measure
from clreplay.benchmark import store_file as connections
from clreplay.benchmark.cli import main
from clreplay.benchmark.executors import JoblibExecutor
from clreplay.benchmark.plan import plan
from clreplay.benchmark.published import TITLES
from clreplay.benchmark.request import TableRequest
from clreplay.benchmark.results import FAILED, MEASURED, MISSING, PARTLY, lines_of
from clreplay.benchmark.run import BenchmarkRun
from clreplay.benchmark.sets import Place
from clreplay.benchmark.store import Store
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.runtime.progress import Reporter

ROOT = Path(__file__).resolve().parents[2]
QUICK = {"train.updates": 2, "train.width": 4, "train.batch_size": 16}
SET_QUICK = ["--set", "train.updates=2", "train.width=4", "train.batch_size=16"]
TIMES = ("condense_seconds", "train_seconds")


def measured(tmp_path, planned, executor=None, **place):
    """Lines after a run, and the run."""
    store = Store(tmp_path / "store.sqlite")
    place = Place(**{"device": "cpu", "work": str(tmp_path / "work"), "commit": "abc", **place})
    run = BenchmarkRun(planned, store, executor or JoblibExecutor(1), place, Reporter(None))
    for _ in run.run():
        pass
    return lines_of(planned, store.read()), run


def quick(methods=("random", "whole"), table="1", ipc=(2,), **options):
    options = {"sets": 2, "networks": 2, "preset": "smoke", "overrides": QUICK, **options}
    return plan(TableRequest(table, ("digits",), ipc, methods, **options))


def rows(path, without=TIMES):
    """A rendered CSV without what differs between two runs: how long they took."""
    with open(path, encoding="utf-8") as file:
        return [{name: value for name, value in row.items() if name not in without} for row in csv.DictReader(file)]


# ---------------------------------------------------------------- measuring


def test_a_run_measures_every_cell_and_a_second_one_finds_nothing_to_do(tmp_path):
    lines, run = measured(tmp_path, quick())
    assert [line.state for line in lines] == [MEASURED] * 2
    assert [(line.done, line.wanted) for line in lines] == [(4, 4), (2, 2)]
    assert all(0 < line.ours < 100 and line.train_seconds > 0 and line.commits == ("abc",) for line in lines)
    assert run.tally.finished == 2 + 4 + 2  # sets, networks on them, networks on all real images
    again, run = measured(tmp_path, quick())
    assert again == lines and run.tally.finished == 0


def test_a_finished_condensation_is_not_kept_twice(tmp_path):
    lines, _ = measured(tmp_path, quick(("ddm",), sets=1, networks=1))
    assert lines[0].state == MEASURED
    (key,) = Store(tmp_path / "store.sqlite").read().sets
    (tmp_path / "work" / f"{key}.progress.finished").touch()  # as a process leaves it that is killed just then
    (tmp_path / "work" / "another.progress.finished").touch()
    measured(tmp_path, quick(("ddm",), sets=1, networks=1))
    (tmp_path / "work" / "another.progress.finished").unlink()
    assert not list(tmp_path.rglob("*.finished")) and not list(tmp_path.rglob("*.progress"))


def test_more_sets_and_networks_go_on_from_fewer(tmp_path):
    few, _ = measured(tmp_path, quick(("random",), sets=1, networks=1))
    more, run = measured(tmp_path, quick(("random",), sets=2, networks=2))
    assert run.tally.finished == 1 + 3 and more[0].done == 4
    fresh, _ = measured(tmp_path / "fresh", quick(("random",), sets=2, networks=2))
    assert (more[0].ours, more[0].spread) == (fresh[0].ours, fresh[0].spread)
    assert few[0].settings == more[0].settings


class Stopping(JoblibExecutor):
    """Ctrl-C after some units."""

    def __init__(self, after):
        super().__init__(1)
        self.left = after

    def run(self, tasks):
        for outcome in super().run(tasks):
            yield outcome
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


def test_a_run_that_is_stopped_after_every_unit_ends_with_the_same_table(tmp_path):
    planned = quick()
    whole, _ = measured(tmp_path / "whole", planned)
    states = set()
    for _ in range(7):
        with pytest.raises(KeyboardInterrupt):
            measured(tmp_path / "stopped", planned, Stopping(1))
        lines = lines_of(planned, Store(tmp_path / "stopped" / "store.sqlite").read())
        states.update(line.state for line in lines)
    assert states == {MISSING, PARTLY, MEASURED}
    lines, run = measured(tmp_path / "stopped", planned)
    assert run.tally.finished == 1
    for ours, theirs in zip(lines, whole):
        assert (ours.ours, ours.spread, ours.done, ours.state) == (
            theirs.ours,
            theirs.spread,
            theirs.done,
            theirs.state,
        )


def test_what_fails_is_noted_with_its_reason_and_tried_again_next_time(tmp_path, monkeypatch):
    planned = quick(("random", "whole"), ipc=(200,))  # more than digits has of some class
    lines, run = measured(tmp_path, planned)
    assert [line.state for line in lines] == [FAILED, MEASURED] and run.tally.failed == 2
    assert "fewer than the 200 asked" in lines[0].reason and "(attempts: 1)" in lines[0].reason
    lines, _ = measured(tmp_path, planned)
    assert "(attempts: 2)" in lines[0].reason


def test_data_that_is_not_there_is_a_reason_too(tmp_path, monkeypatch):
    from clreplay.benchmark import datasets as holding
    from clreplay.data import DataNotFoundError

    def gone(name, root):
        raise DataNotFoundError(f"No {name} in {root}. Tried:\n- this\n- that")

    monkeypatch.setattr(holding, "load_dataset", gone)
    holding.load_cached.cache_clear()
    lines, _ = measured(tmp_path, quick(), data_root="/nowhere")
    assert [line.state for line in lines] == [FAILED] * 2
    assert {line.reason for line in lines} == {"DataNotFoundError: No digits in the data root. (attempts: 1)"}
    assert lines[0].ours is None


def test_results_of_other_data_never_meet(tmp_path, monkeypatch):
    from clreplay.benchmark import datasets as holding

    measured(tmp_path, quick(("random",), sets=1, networks=1))
    load = holding.load_dataset

    def other(name, root):
        data = load(name, root)
        data.train.images[0, 0, 0, 0] ^= 1  # one pixel
        return data

    monkeypatch.setattr(holding, "load_dataset", other)
    holding.load_cached.cache_clear()
    lines, run = measured(tmp_path, quick(("random",), sets=1, networks=2))
    holding.load_cached.cache_clear()
    assert lines[0].state == PARTLY and lines[0].done == 1
    assert "give the same data, or another --out" in lines[0].reason and run.tally.failed == 1


def test_a_run_ends_where_its_results_cannot_be_kept(tmp_path, monkeypatch, capsys):
    """It would go on for hours, and lose all that it does."""
    flags = ["--method", "random", "--preset", "smoke", "--sets", "3", "--networks", "1", *SET_QUICK]
    assert run_main(tmp_path, "--ipc", "1", *flags) == 0
    store = Store(tmp_path / "out" / "store.sqlite")
    before, connect = store.read(), connections._connect

    def limited(path):
        connection = connect(path)
        connection.execute("PRAGMA max_page_count = 1")  # at least what there is
        return connection

    monkeypatch.setattr(connections, "_connect", limited)
    capsys.readouterr()
    assert run_main(tmp_path, "--ipc", "90", *flags) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and "disk is full); make room there" in said.err
    assert said.err.count("\n") == 1 and "failed" not in said.out
    monkeypatch.undo()
    assert store.read() == before
    assert run_main(tmp_path, "--ipc", "90", *flags) == 0  # with room the same command goes on


def test_two_runs_share_the_work(tmp_path):
    """Side by side on one store: each does what the other one is not at."""
    herding = {"herding.updates": 1, "herding.width": 4}
    planned = quick(("random", "herding", "whole"), overrides={**QUICK, **herding})
    flags = ["--table", "1", "--dataset", "digits", "--ipc", "2", "--method", "random", "herding", "whole"]
    flags += ["--preset", "smoke", "--sets", "2", "--networks", "2", "--device", "cpu", "--out", str(tmp_path)]
    flags += SET_QUICK
    command = [sys.executable, "runs/static_tables.py", *flags, *(f"{name}={value}" for name, value in herding.items())]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # as here: rounding can decide about an image
    runs = [subprocess.Popen(command, cwd=ROOT, env=one_thread, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [run.wait(timeout=500) for run in runs] == [0, 0]
    measured(tmp_path, planned)  # what one left to the other
    lines, run = measured(tmp_path, planned)
    assert [line.state for line in lines] == [MEASURED] * 3 and run.tally.finished == 0
    alone, _ = measured(tmp_path / "alone", planned)
    assert [(line.ours, line.spread) for line in lines] == [(line.ours, line.spread) for line in alone]


def test_the_executor_gets_blocks_of_cells_that_keep_every_job_busy(tmp_path):
    class Counting(JoblibExecutor):
        seen: list[int] = []

        def run(self, tasks):
            tasks = list(tasks)
            self.seen.append(len(tasks))
            yield from JoblibExecutor(1).run(tasks)

    executor = Counting(1)
    executor.jobs = 2
    measured(tmp_path, quick(("random",), ipc=(1, 2, 3, 4), sets=2, networks=1), executor)
    assert executor.seen == [0, 8, 8]  # four cells of two sets: one block for two jobs
    assert tuple(measure.STAGES) == ("choice_units", "set_units", "network_units")


# ---------------------------------------------------------------- the command


def run_main(tmp_path, *flags, table="1", dataset="digits"):
    return main(["--table", table, "--dataset", dataset, "--device", "cpu", "--out", str(tmp_path / "out"), *flags])


def rendered(tmp_path, name="*.csv"):
    """The one such file."""
    (path,) = (tmp_path / "out").glob(name)
    return path


def test_the_command_measures_and_renders(tmp_path, capsys):
    flags = ["--ipc", "2", "--method", "random", "whole", "--preset", "smoke", "--networks", "2", *SET_QUICK]
    assert run_main(tmp_path, *flags) == 0
    said = capsys.readouterr().out
    page = rendered(tmp_path)
    assert "Random on digits, IPC 2, ConvNet: " in said and str(page) in said
    found = rows(page)
    assert [row["state"] for row in found] == [MEASURED] * 2
    assert "Reduced settings" in page.with_suffix(".md").read_text()
    assert run_main(tmp_path, *flags, "--protocol", "authors") == 0  # a table, and a file, of its own
    assert run_main(tmp_path, *flags, "--store", "uint8", "--method", "random") == 0
    assert len(list((tmp_path / "out").glob("*.csv"))) == 3 and rendered(tmp_path, "table1-smoke-uint8-*.csv")
    other = rows(rendered(tmp_path, "table1-smoke-authors-*.csv"))
    assert {row["protocol"] for row in other} == {"authors"} and other[0]["settings"] != found[0]["settings"]
    assert other[1]["settings"] == found[1]["settings"]  # all real images are trained on alike


def test_a_printed_hash_shows_the_settings_behind_it(tmp_path, capsys):
    assert (
        run_main(tmp_path, "--ipc", "2", "--method", "random", "--preset", "smoke", "--networks", "1", *SET_QUICK) == 0
    )
    (page,) = (tmp_path / "out").glob("table1-smoke*.csv")
    (row,) = rows(page)
    assert row["settings"] in page.with_suffix(".md").read_text()
    capsys.readouterr()
    assert main(["--show", row["settings"], "--out", str(tmp_path / "out")]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["dataset"], shown["seed"], shown["store"]) == ("digits", 0, "float32")
    assert (shown["condensed"]["method"], shown["condensed"]["images_per_class"]) == ("random", 2)
    assert [one["width"] for one in shown["trained"]] == [4] and shown["trained_on_all_real_images"] == []
    assert main(["--show", "nothing", "--out", str(tmp_path / "out")]) == 2
    assert "--show must be a hash that a table prints, got 'nothing'" in capsys.readouterr().err


def test_status_and_rendering_need_no_data(tmp_path, capsys, monkeypatch):
    from clreplay.benchmark import datasets as holding

    def never(*_):
        raise AssertionError("data was asked for")

    monkeypatch.setattr(holding, "load_dataset", never)
    holding.load_cached.cache_clear()
    out = str(tmp_path / "out")
    for table in TITLES:
        flags = [] if table != "7" else ["--architectures", "4"]
        assert main(["--table", table, "--out", out, "--preset", "paper", "--device", "cuda", "--status", *flags]) == 0
    assert not Path(out).exists()
    said = capsys.readouterr().out
    assert "124 not measured of 124 cells" in said and "left: 11,360 units" in said
    assert main(["--table", "8", "--out", out, "--preset", "paper", "--render"]) == 0
    found = rows(Path(out) / "table8-paper.csv")
    assert {row["state"] for row in found} == {MISSING} and {row["ours"] for row in found} == {""}
    assert [row["published"] for row in found] == ["48.9", "50.93", "51.60", "51.91", "52.29"]


def test_of_all_tables_those_are_shown_that_have_something(tmp_path, capsys):
    flags = ["--dataset", "cifar10", "--method", "whole", "--preset", "paper", "--device", "cpu", "--status"]
    assert main(["--table", "all", *flags, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "table 3 has no cifar10: skipped" in said and "table 4 has no whole: skipped" in said
    titles = [line.partition(";")[0] for line in said.splitlines() if "; preset" in line]
    assert titles == [TITLES[table] for table in ("1", "2", "5", "7")]


def test_finished_sets_are_given_out_as_memories(tmp_path, capsys):
    flags = ["--table", "1", "--dataset", "digits", "--ipc", "2", "--method", "random", "dm", "whole", "--sets", "2"]
    flags += ["--preset", "smoke", "--networks", "1", "--device", "cpu", "--out", str(tmp_path), *SET_QUICK]
    assert main([*flags, "--set", "iterations=1", "--sets-to", str(tmp_path / "given")]) == 0
    names = [f"digits-ipc2-{name}-set{number}.safetensors" for name in ("dm", "random") for number in (1, 2)]
    assert sorted(path.name for path in (tmp_path / "given").iterdir()) == names
    out = capsys.readouterr().out
    assert all(out.count(f"wrote {tmp_path / 'given' / name}") == 1 for name in names)
    for name in names:
        memory = ReplayMemory.load(tmp_path / "given" / name, dataset="digits")
        assert len(memory) == 20 and name.split("-")[2] == memory.info["method"]
    one, other = (ReplayMemory.load(tmp_path / "given" / name).images for name in names[:2])
    assert one.shape == other.shape == (20, 1, 32, 32) and not torch.equal(one, other)


def test_stores_are_merged_and_shown(tmp_path, capsys):
    flags = ["--method", "random", "--preset", "smoke", "--networks", "2", *SET_QUICK]
    for folder, count in (("one", "1"), ("two", "2")):
        assert main(["--table", "1", "--dataset", "digits", "--ipc", count, "--device", "cpu",
                     "--out", str(tmp_path / folder), *flags]) == 0  # fmt: skip
    two = str(tmp_path / "two" / "store.sqlite")
    assert main(["--out", str(tmp_path / "one"), "--merge", two]) == 0
    assert "3 new units" in capsys.readouterr().out
    assert main(["--table", "1", "--dataset", "digits", "--ipc", "1", "2", "--device", "cpu", "--status",
                 "--out", str(tmp_path / "one"), *flags]) == 0  # fmt: skip
    assert "2 measured of 2 cells" in capsys.readouterr().out


def test_cells_that_fail_are_listed_and_the_others_are_measured(tmp_path, capsys):
    flags = ["--ipc", "200", "--method", "random", "whole", "--preset", "smoke", *SET_QUICK]
    assert run_main(tmp_path, *flags) == 1
    said = capsys.readouterr().out
    assert "failed: Random on digits, IPC 200" in said.replace("random", "Random") and "1 cell failed" in said
    assert "fewer than the 200 asked" in rendered(tmp_path).with_suffix(".md").read_text()
    assert run_main(tmp_path, *flags, "--render") == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--table must name one of 1, 2"),
        (["--table", "12"], "--table must be among 1, 2"),
        (["--table", "1", "--dataset", "cifar"], "--dataset must be among cifar10"),
        (["--table", "1", "--method", "ddmm"], "unknown memory 'ddmm'"),
        (["--table", "1", "--set", "lr"], "--set takes key=value"),
        (["--table", "1", "8", "--architectures", "3"], "--architectures belongs to table 7"),
        (["--table", "1", "--jobs", "0"], "jobs must be at least 1"),
        (["--table", "7", "--architectures", "800"], "architectures must be at most 720, got 800"),
        (["--table", "4", "--method", "whole"], "--method whole: table 4 prints no whole row"),
        (["--table", "4", "6", "--dataset", "cifar100"], "none of the tables 4, 6 has any of what is requested"),
        (["--merge", "nowhere.sqlite"], "no store at nowhere.sqlite"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(tmp_path, capsys, flags, message):
    assert main([*flags, "--device", "cpu", "--preset", "smoke", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def start(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=600, check=False
    )


def test_help_needs_no_torch():
    blocker = (
        "import runpy, sys\nsys.modules['torch'] = None\nsys.argv = [sys.argv[1], '--help']\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    ran = start("-c", blocker, "runs/static_tables.py")
    assert ran.returncode == 0, ran.stderr
    assert "--architectures" in ran.stdout and "Table 8" in ran.stdout
    assert "--architectures" in start("-m", "clreplay.benchmark", "--help").stdout


# ---------------------------------------------------------------- small real cells of every table

SMOKE = {
    "8": ["--ipc", "1"],
    "1": ["--ipc", "1"],
    "2": ["--ipc", "1", "--method", "random", "dm", "--set", "iterations=1"],
    "3": ["--ipc", "1", "--method", "random", "dm", "--networks", "2"],
    "4": ["--ipc", "1", "--method", "dsa", "ddm", "--train-network", "ConvNet", "AlexNet", "--set", "iterations=1"],
    "5": ["--ipc", "1"],
    "6": ["--ipc", "10"],
    "7": ["--ipc", "2", "--method", "random", "dm", "whole", "--architectures", "3"],
    "fig3a": ["--ipc", "2"],
    "fig5": ["--ipc", "2"],
    "fig6": ["--ipc", "2"],
}
QUICK_ENOUGH = ("8",)


@pytest.mark.parametrize("table", [pytest.param(t, marks=[] if t in QUICK_ENOUGH else pytest.mark.slow) for t in SMOKE])
def test_the_smoke_preset_measures_cells_of_every_table_on_digits(table, tmp_path):
    assert run_main(tmp_path, "--preset", "smoke", *SMOKE[table], table=table) == 0
    found = rows(rendered(tmp_path, f"{'table' if table.isdigit() else ''}{table}-smoke*.csv"))
    assert found and {row["state"] for row in found} == {MEASURED}
    for row in found:
        if row["metric"] == "accuracy":
            assert 0 < float(row["ours"]) < 100
        assert row["ours"] or row["reason"].startswith("no correlation over")
        assert row["published"] == "" and row["reduced"]


def test_every_table_has_a_smoke_run():
    assert set(SMOKE) == set(TITLES)


# ---------------------------------------------------------------- sudden death


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_at_ten_random_moments_a_run_ends_with_the_table_of_an_unbroken_one(tmp_path):
    cells = ["--dataset", "digits", "--ipc", "1", "3", "--method", "random", "ddm", "dsa", "whole"]
    repeats = ["--preset", "smoke", "--sets", "2", "--networks", "3", "--device", "cpu"]
    flags = ["runs/static_tables.py", "--table", "1", *cells, *repeats]
    begun = time.monotonic()
    assert start(*flags, "--out", str(tmp_path / "whole")).returncode == 0
    longest = time.monotonic() - begun
    whole = rows(tmp_path / "whole" / "table1-smoke.csv")
    assert {row["state"] for row in whole} == {MEASURED}
    chance, kills, folders = random.Random(1), 0, 1
    while kills < 10 or folders < 2:
        out = tmp_path / f"killed {folders}"
        # Half of the whole at most: a run that goes on has less and less to do.
        if was_killed([*flags, "--out", str(out)], after=longest / 2 * chance.random()):
            kills += 1
        else:  # it came to its end, so the next one begins anew
            assert rows(out / "table1-smoke.csv") == whole
            folders += 1
    if (last := tmp_path / f"killed {folders}").exists():
        assert start(*flags, "--out", str(last)).returncode == 0
        assert rows(last / "table1-smoke.csv") == whole


def was_killed(command, after):
    """Whether a process was killed after some seconds; it may have ended before."""
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        assert process.wait(timeout=after) == 0
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        return process.wait() == -signal.SIGKILL
    return False


@pytest.mark.slow
def test_processes_of_a_machine_measure_what_one_does(tmp_path):
    flags = ["--ipc", "1", "--method", "random", "ddm", "whole", "--preset", "smoke", "--sets", "2", "--networks", "2"]
    assert run_main(tmp_path / "1", *flags) == 0
    assert run_main(tmp_path / "2", *flags, "--jobs", "2") == 0
    one, two = (rows(tmp_path / jobs / "out" / "table1-smoke.csv") for jobs in "12")
    assert one == two
