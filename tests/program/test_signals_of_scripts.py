"""Every script that computes takes the signals of batch systems and closed terminals as it takes Ctrl-C."""

import ast
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHOWS = {"reference_loop.py", "bench_condense.py", "equal_time.py", "analysis.py"}
"""Scripts that measure for minutes and keep nothing on the way."""


def names_used(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


@pytest.mark.parametrize("path", sorted((ROOT / "runs").glob("*.py")), ids=lambda path: path.name)
def test_scripts_end_through_the_shared_exit(path):
    if path.name in SHOWS:
        pytest.skip("it keeps nothing on the way")
    used = names_used(path)
    assert {"exit_code", "continual_main", "door_main", "main"} & used


@pytest.mark.usefixtures("as_from_a_terminal")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_rates_are_saved_when_asked_to_end(number, tmp_path):
    words = "--dataset digits --preset smoke --memory ddm --store uint8 --mem-bytes 40000 --updates 5 --device cpu"
    command = [sys.executable, "-W", "ignore", "runs/rate_accuracy.py", *words.split(), "--out", str(tmp_path / "out")]
    command += ["--cache", str(tmp_path / "cache"), "--set", "ddm.iterations=100000", "ddm.width=4", "train.width=4"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "out").rglob("checkpoint")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    time.sleep(2)
    process.send_signal(number)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 128 + number
    assert said.strip().splitlines()[-1].endswith("The same command goes on from here.")
    assert list((tmp_path / "out").rglob("*.progress"))
