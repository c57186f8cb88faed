"""The command line of the class-incremental scripts: what is recorded of it, and signals that end a run."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clreplay.incremental.cli import continual_main, continual_parser, recorded_command
from clreplay.incremental.run_folder import read_settings

ROOT = Path(__file__).resolve().parents[2]


def recorded(line, dataset=None):
    return recorded_command(continual_parser(dataset, ""), "runs/x.py", shlex.split(line))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--memory dm random --out dm --seed 1 --cache 1", "--memory dm random --out DIR --seed 1 --cache DIR"),
        ("--out=dm --memory dm", "--out=DIR --memory dm"),
        ("--data-r 5 --steps 5 --ou 5 --networks 5", "--data-r DIR --steps 5 --ou DIR --networks 5"),
        ("--memory runs --out runs", "--memory runs --out DIR"),
        ("--out 'my runs/a' --set ddm.lr_img=0.1", "--out DIR --set ddm.lr_img=0.1"),
        ("--seed 1", "--seed 1"),
    ],
)
def test_only_the_values_of_places_are_taken_out_of_a_command(line, expected):
    assert recorded(line, "digits") == f"runs/x.py {expected}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("folder:/home/me/cats", "folder:DIR"),
        ("folder:cats@64", "folder:DIR@64"),
        ("folder:cats@64#held-out=0.1", "'folder:DIR@64#held-out=0.1'"),
        ("cifar10", "cifar10"),
    ],
)
def test_of_a_folder_of_images_all_but_its_place_is_kept(name, expected):
    assert recorded(f"--dataset '{name}' --memory dm") == f"runs/x.py --dataset {expected} --memory dm"
    assert recorded(f"'--dataset={name}' --memory dm").replace("'", "") == (
        f"runs/x.py --dataset={expected} --memory dm".replace("'", "")
    )


def test_the_command_in_the_settings_is_that_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = "--memory random --preset smoke --steps 1 --set train.updates=2 train.width=4 --seed 1 --out random"
    assert continual_main("digits", "", [*shlex.split(flags), "--cache", "1"]) == 0
    assert read_settings("random")["command"].endswith(f" {flags.replace('--out random', '--out DIR')} --cache DIR")


# ---------------------------------------------------------------- signals


def started(out, *more):
    flags = ["--memory", "ddm", "--preset", "smoke", "--host", "none", "--steps", "2", "--no-cache", "--out", str(out)]
    small = ["--set", "width=8", "iterations=300", "train.updates=2", "train.width=4"]
    return subprocess.Popen(
        [*more, sys.executable, "runs/digits_5step.py", *flags, *small],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def wait_for_the_work(process, out):
    until = time.monotonic() + 120
    while not (out / "settings.yaml").is_file() or "chosen" not in (out / "settings.yaml").read_text():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.05)
    for line in process.stdout:  # said just before the first iteration
        if line.startswith("  time "):
            break
    time.sleep(1.0)


@pytest.mark.usefixtures("as_from_a_terminal")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_saves_and_stops_as_ctrl_c_does(number, tmp_path):
    process = started(tmp_path / "run")
    wait_for_the_work(process, tmp_path / "run")
    process.send_signal(number)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 128 + number
    assert said == f"\nStopped by {number.name}. The same command goes on from here.\n"
    assert list((tmp_path / "run" / "checkpoint").glob("*.progress")), "the condensation under way is saved"
    assert not (tmp_path / "run" / ".owner.json").exists()


def test_what_nohup_ignores_stays_ignored(tmp_path):
    process = started(tmp_path / "run", "nohup")
    wait_for_the_work(process, tmp_path / "run")
    process.send_signal(signal.SIGHUP)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM


def test_a_cache_that_cannot_be_written_does_not_stop_a_run(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLREPLAY_CACHE", str(tmp_path / "file" / "cache"))
    flags = ["--memory", "ddm", "--preset", "smoke", "--host", "none", "--steps", "1", "--out", str(tmp_path / "run")]
    small = ["--set", "width=8", "iterations=2", "train.updates=2", "train.width=4", "kernels=auto"]
    assert continual_main("digits", "", [*flags, *small]) == 0
    assert "cannot cache condensed classes" in caplog.text
