"""The static tables on a Ray cluster: machines share the work, one that is lost costs nothing but time."""

import csv
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from acting_unit import Odd

from clreplay.benchmark import cluster
from clreplay.benchmark.cli import main
from clreplay.benchmark.cluster import LOST, ClusterError, RayExecutor, Share, connected, share_of
from clreplay.benchmark.executors import Task, _in_turn
from clreplay.benchmark.sets import Place

ROOT = Path(__file__).resolve().parents[2]
HERE = Place("cpu")

# ---------------------------------------------------------------- what a unit gets


@pytest.mark.parametrize(
    ("machines", "device", "jobs", "share"),
    [
        ([(2, 0)], "cpu", None, Share(2, 1, 0)),
        ([(16, 0), (16, 0)], "cpu", 4, Share(4, 8, 0)),
        ([(16, 0), (4, 0)], "cpu", 4, Share(4, 4, 0)),  # of five cores each, only three fit side by side
        ([(4, 0)], "cpu", 9, Share(4, 1, 0)),
        ([(32, 8), (8, 8)], "cuda", None, Share(16, 1, 1.0)),
        ([(64, 8)], "cuda", None, Share(8, 8, 1.0)),
        ([(64, 8)], "cuda", 3, Share(3, 8, 1.0)),
        ([(64, 8)], "cuda", 16, Share(16, 4, 0.5)),
        ([(16, 1), (64, 0)], "cuda", None, Share(1, 16, 1.0)),  # a machine without a GPU does not count
        ([(4, 8)], "cuda", None, Share(8, 1, 1.0)),
    ],
)
def test_a_unit_gets_its_share_of_the_machines(machines, device, jobs, share):
    found = share_of([{"CPU": float(cpus), "GPU": float(gpus)} for cpus, gpus in machines], device, jobs)
    assert found == share


def test_machines_without_what_is_asked_for_are_an_error():
    with pytest.raises(ClusterError, match="has a GPU to work with; give --device cpu"):
        share_of([{"CPU": 8.0}], "cuda", None)
    with pytest.raises(ClusterError, match="has a CPU"):
        share_of([{}], "cpu", None)
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        share_of([{"CPU": 8.0}], "cpu", 0)


def test_the_share_is_told_in_words():
    assert Share(8, 6, 0.5).summary() == "8 units at a time, 6 cores and 0.5 GPU each"
    assert Share(2, 1, 0).summary() == "2 units at a time, 1 core each"


def test_processes_of_one_machine_take_its_gpus_in_turn(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    devices = [task.place.device for task in _in_turn([Task(None, Place("cuda"))] * 3)]
    assert devices == ["cuda:0", "cuda:1", "cuda:0"]
    assert [task.place.device for task in _in_turn([Task(None, Place("cuda:1")), Task(None, HERE)])] == [
        "cuda:1",
        "cpu",
    ]


def test_a_machine_keeps_work_under_way_on_its_own_disk_where_the_run_s_is_not_shared(tmp_path):
    shared = Place("cpu", work=str(tmp_path))
    assert cluster._here(shared) == shared and cluster._here(HERE) == HERE
    own = cluster._here(Place("cpu", work=str(tmp_path / "elsewhere" / "work"))).work
    assert own.startswith(os.environ["XDG_CACHE_HOME"]) and not Path(own).exists()


def test_paths_are_sent_as_every_machine_understands_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLREPLAY_DATA", raising=False)
    sent = cluster._anywhere(Task(None, Place("cpu", data_root="data", work="out/work"), {0: b"image"}))
    assert sent.place == Place("cpu", str(tmp_path / "data"), str(tmp_path / "out" / "work"))
    assert sent.images is None and (tmp_path / "out" / "work").is_dir()
    assert cluster._anywhere(Task(None, HERE)).place == HERE
    monkeypatch.setenv("CLREPLAY_DATA", "from the environment")
    assert cluster._anywhere(Task(None, HERE)).place.data_root == str(tmp_path / "from the environment")


# ---------------------------------------------------------------- mistakes


def flags(tmp_path, *more):
    return [
        "--table",
        "8",
        "--dataset",
        "digits",
        "--ipc",
        "1",
        "--preset",
        "smoke",
        "--out",
        str(tmp_path / "out"),
        *more,
    ]


def test_without_ray_the_error_says_how_to_get_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(flags(tmp_path, "--cluster", "auto")) == 2
    said = capsys.readouterr().err
    assert "pip install 'clreplay[cluster]'" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_cluster_chooses_its_gpus_itself(tmp_path, capsys):
    assert main(flags(tmp_path, "--cluster", "auto", "--device", "cuda:1")) == 2
    assert "--device must be auto, cpu or cuda on a cluster" in capsys.readouterr().err


needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'clreplay[cluster]'")


@needs_ray
def test_where_no_cluster_runs_the_error_says_how_to_start_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert main(flags(tmp_path, "--cluster", "auto")) == 2
    said = capsys.readouterr().err
    assert "no Ray cluster" in said and "ray start --head" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- a real cluster


@contextmanager
def two_machines(**resources):
    """A head that does no work, and two workers."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_worker_niceness"] = "0"  # Ray's workers give way to everything else, other tests too
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        workers = [made.add_node(num_cpus=1, **resources) for _ in range(2)]
        yield made, workers
    finally:
        made.shutdown()
        del os.environ["RAY_worker_niceness"]


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_units_get_gpus_of_their_own_and_what_kills_its_process_is_an_outcome(monkeypatch):
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(ROOT / "tests" / "benchmark"), str(ROOT)])
    )  # where workers find Odd
    monkeypatch.setattr(cluster, "RETRIES", 1)
    with two_machines(num_gpus=1) as (made, _), connected(made.address):
        executor = RayExecutor("cuda", 2)
        assert executor.share == Share(2, 1, 1.0)
        tasks = [Task(Odd(what), HERE, {1: b""}) for what in ("one", "die", "two", "leave", "three")]
        found = {outcome.unit.what: outcome for outcome in executor.run(tasks)}
        assert {found[what].finished.fingerprint for what in ("one", "two", "three")} == {
            f"{what} 0 [1]" for what in ("one", "two", "three")
        }
        assert found["die"].finished is None and found["die"].reason.startswith(LOST)
        assert found["leave"].finished is None and found["leave"].reason
        monkeypatch.setattr(cluster, "code_digest", lambda: "another")
        with pytest.raises(ClusterError, match="other code of clreplay; install the same there"):
            RayExecutor("cpu")


def measured(folder):
    """A rendered table without what differs between two runs, the keys of the finished units, and all images."""
    with open(folder / "table1-smoke.csv", encoding="utf-8") as file:
        lines = [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in csv.DictReader(file)]
    connection = sqlite3.connect(folder / "store.sqlite")
    keys = sorted(connection.execute("SELECT key FROM networks UNION SELECT key FROM finished_sets").fetchall())
    images = sorted(connection.execute("SELECT key, label, data FROM images").fetchall())
    connection.close()
    return lines, keys, images


def finished(folder):
    """How many networks, and classes of sets, of a store are finished."""
    if not (folder / "store.sqlite").exists():
        return 0
    connection = sqlite3.connect(folder / "store.sqlite")
    try:
        return connection.execute("SELECT (SELECT COUNT(*) FROM networks) + (SELECT COUNT(*) FROM images)").fetchone()[
            0
        ]
    except sqlite3.OperationalError:  # made, and nothing in it yet
        return 0
    finally:
        connection.close()


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_machine_killed_in_the_middle_costs_no_row_and_doubles_none(tmp_path):
    cells = ["--table", "1", "--dataset", "digits", "--ipc", "2", "--method", "random", "ddm", "dsa", "whole"]
    command = [*cells, "--preset", "smoke", "--sets", "2", "--networks", "3", "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    out = tmp_path / "killed"
    with two_machines() as (made, workers):
        run = [sys.executable, str(ROOT / "runs" / "static_tables.py"), *command, "--out", str(out)]
        run += ["--cluster", made.address, "--shards", "2"]
        with open(tmp_path / "said", "w", encoding="utf-8") as said:
            process = subprocess.Popen(run, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT)
        try:
            # Both machines at work, and something done: every unit under way has a lock.
            while finished(out) < 14 or len(list((out / "work").glob("*.lock"))) < 2:
                assert process.poll() is None, (tmp_path / "said").read_text()
                time.sleep(0.05)
            before = finished(out)
            made.remove_node(workers[1], allow_graceful=False)
            assert process.wait(timeout=900) == 0, (tmp_path / "said").read_text()
        finally:
            process.kill()
    assert before < finished(out)
    (lines, keys, images), theirs = measured(out), measured(tmp_path / "whole")
    assert (lines, keys) == theirs[:2] and {row["state"] for row in lines} == {"measured"}
    assert images == theirs[2]
    assert not list((out / "work").iterdir())  # no lock and no condensation under way is left behind


@pytest.mark.skipif(not Path("/proc/net/tcp6").exists(), reason="reads the system's table of sockets")
def test_a_cluster_of_this_machine_listens_to_this_machine_only():
    pytest.importorskip("ray")
    script = Path(__file__).with_name("local_cluster.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    addresses = done.stdout.split()
    assert addresses, "nothing was found, so nothing was looked at"
    assert all(one.endswith("0100007F") for one in addresses), addresses
    assert "listens at" not in done.stderr
