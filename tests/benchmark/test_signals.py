"""Runs of the static tables that are asked to end, or killed: what is under way is saved, and no worker computes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clreplay.benchmark import worker

ROOT = Path(__file__).resolve().parents[2]
LONG = ["--table", "1", "--dataset", "digits", "--ipc", "5", "--method", "dm", "--preset", "smoke", "--sets", "2",
        "--networks", "1", "--device", "cpu", "--set", "width=8", "iterations=20000"]  # fmt: skip

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc"),
    pytest.mark.usefixtures("as_from_a_terminal"),
]


def begin(out, *flags, seconds="60"):
    environment = {**os.environ, "CLREPLAY_SAVE_SECONDS": seconds, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "runs/static_tables.py", *LONG, "--out", str(out), *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **pipes)


def wait_for(condition, process, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.1)


def lives(number):
    try:
        state = Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def children(number):
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rsplit(")", 1)[1].split()[1]) == number:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def saved(out):
    return len(list((out / "work").glob("*.progress")))


def gone(numbers, seconds):
    end = time.monotonic() + seconds
    while any(map(lives, numbers)) and time.monotonic() < end:
        time.sleep(0.1)
    return not any(map(lives, numbers))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_one_job_that_is_asked_to_end_saves_and_says_how_to_go_on(number, tmp_path):
    process = begin(tmp_path / "out", seconds="0")
    wait_for(lambda: saved(tmp_path / "out"), process)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said.strip().splitlines()[-1].endswith("The same command goes on from here.")
    assert saved(tmp_path / "out") == 1 and not list((tmp_path / "out" / "work").glob("*.lock"))


def test_workers_of_a_run_that_is_asked_to_end_save_first(tmp_path):
    process = begin(tmp_path / "out", "--jobs", "2", seconds="0")  # to know when both have begun
    wait_for(lambda: saved(tmp_path / "out") == 2, process)
    workers = children(process.pid)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "work").glob("*.progress")}
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=90)
    assert process.returncode == 143 and "Stopped by SIGTERM. The same command goes on from here." in said
    assert "Traceback" not in said
    assert gone(workers, 10)
    assert all(path.stat().st_mtime_ns > moment for path, moment in before.items()), "saved once more at the end"
    assert not list((tmp_path / "out" / "work").glob("*.lock"))


def test_workers_of_a_run_that_is_killed_save_and_end_and_let_go_of_their_work(tmp_path):
    process = begin(tmp_path / "out", "--jobs", "2", seconds="0")
    wait_for(lambda: saved(tmp_path / "out") == 2, process)
    workers = children(process.pid)
    process.kill()
    process.wait()
    assert workers and gone(workers, 40)
    assert saved(tmp_path / "out") == 2 and not list((tmp_path / "out" / "work").glob("*.lock"))


# ---------------------------------------------------------------- in a process of its own each


def run_worker(body):
    """What a child does that works for a parent which ends at once; its exit code and output."""
    code = f"""
import os, signal, sys, time
from clreplay.benchmark import worker
read, write = os.pipe()
parent = os.fork()
if parent == 0:
    middle = os.getpid()
    if os.fork() == 0:
{body}
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(parent, 0)
os.close(write)
sys.stdout.write(os.read(read, 1000).decode())
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)


def test_a_worker_whose_parent_dies_ends_what_it_is_at():
    done = run_worker("""
        with worker.working_for(middle):
            try:
                time.sleep(50)
            finally:
                os.write(write, b"saved")
""")
    assert done.stdout == "saved", done.stderr


def test_a_worker_that_does_not_end_is_ended():
    done = run_worker("""
        worker.SECONDS_TO_SAVE = 1
        with worker.working_for(middle):
            try:
                time.sleep(50)
            finally:
                time.sleep(50)
                os.write(write, b"never")
""")
    assert done.stdout == "", done.stderr


def test_in_the_process_itself_nothing_is_watched():
    before = signal.getsignal(signal.SIGTERM)
    with worker.working_for(os.getpid()):
        assert signal.getsignal(signal.SIGTERM) == before


def test_handlers_are_given_back():
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with worker.workers_save_first():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
