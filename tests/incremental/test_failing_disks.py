"""Disks that are full, read-only or gone: one line that names the file and the cure, and what is finished is kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from run_helpers import memory_bytes_of, same

from clreplay.incremental import run
from clreplay.incremental.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    *("--memory random ddm --preset smoke --host none --images-per-class 2 --device cpu --set").split(),
    *("ddm.iterations=3 ddm.width=4 train.width=4 train.updates=4").split(),
]


def start(out, *flags, limit=None, **environment):
    """The digits script; ``limit`` is what a file may have, in bytes, and fails like a disk that is full."""
    said = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    words = ["runs/digits_5step.py", *FLAGS, "--out", str(out), *flags]
    if limit is not None:
        code = "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        code += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, -1)); "
        words = ["-c", code + "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')", *words]
    done = subprocess.run([sys.executable, "-W", "ignore", *words], capture_output=True, text=True, cwd=ROOT, env=said)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    done = start(out, "--no-cache")
    assert done.returncode == 0, done.stderr
    return out


def check_ends_as(whole, out):
    for path in whole.glob("memory*.safetensors"):
        assert same(memory_bytes_of(path), memory_bytes_of(out / path.name))
    seconds = ["condense_seconds", "train_seconds"]
    assert RunFolder(out).rows().drop(columns=seconds).equals(RunFolder(whole).rows().drop(columns=seconds))


def partials(out):
    return [path for path in out.rglob("*") if path.name.endswith(".partial")]


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("limit", [pytest.param(limit, marks=pytest.mark.slow) for limit in (300, 4_000, 30_000)])
def test_a_file_that_cannot_be_written_is_one_line_and_the_run_goes_on_later(limit, whole, tmp_path):
    out = tmp_path / "run"
    done = start(out, "--no-cache", limit=limit)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
    assert line.startswith("error: ") and "cannot be written (file too large); allow larger files" in line
    assert not partials(tmp_path)
    done = start(out, "--no-cache")
    assert done.returncode == 0, done.stderr
    check_ends_as(whole, out)


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_costs_warnings_only(whole, tmp_path):
    (tmp_path / "file").touch()
    done = start(tmp_path / "run", CLREPLAY_CACHE=str(tmp_path / "file" / "below"))
    assert done.returncode == 0, done.stderr
    assert "WARNING" in done.stderr and "cannot cache condensed classes" in done.stderr
    check_ends_as(whole, tmp_path / "run")


@contextmanager
def mounted(folder, options):
    """A small disk in memory, where this process may make one."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("mount"), reason="needs mount")
@pytest.mark.parametrize("size", [8, 28, 96])
def test_a_full_disk_is_one_line_and_with_room_the_run_goes_on(size, whole, tmp_path):
    with mounted(tmp_path / "disk", f"size={size}k") as disk:
        done = start(disk / "run", "--no-cache")
        assert done.returncode == 2
        assert "error: " in done.stderr and "no space left on device); make room on that disk" in done.stderr
        assert not partials(disk)
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        done = start(disk / "run", "--no-cache")
        assert done.returncode == 0, done.stderr
        check_ends_as(whole, disk / "run")


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("mount"), reason="needs mount")
def test_a_disk_that_is_read_only_is_one_line(tmp_path):
    with mounted(tmp_path / "disk", "ro,size=1m") as disk:
        done = start(disk / "run", "--no-cache")
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert "Read-only file system" in done.stderr or "read-only file system" in done.stderr


def test_a_folder_that_is_removed_on_the_way_is_told_and_not_half_made_again(tmp_path, monkeypatch, capsys):
    from clreplay.incremental.cli import continual_main

    monkeypatch.setattr(run, "announce", lambda *_: None)
    append, seen = RunFolder.append, []

    def removing(folder, rows):
        seen.append(1)
        if len(seen) == 2:
            shutil.rmtree(folder.path)
        append(folder, rows)

    monkeypatch.setattr(RunFolder, "append", removing)
    assert continual_main("digits", "", [*FLAGS, "--no-cache", "--out", str(tmp_path / "run")]) == 2
    assert "run was removed or emptied while the run worked in it; put it back" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
