"""The script that measures long streams runs and tells what a step costs; in a long one nothing piles up."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clreplay import ReplayBuffer
from clreplay.data import Normalization

ROOT = Path(__file__).resolve().parents[2]


def test_the_script_measures_a_short_stream(tmp_path):
    command = ["runs/streams.py", "--experiences", "5", "--memory", "random", "--stream", "returning"]
    done = subprocess.run(
        [sys.executable, *command, "--out", tmp_path / "rows.csv"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "returning classes; commit" in done.stdout
    rows = (tmp_path / "rows.csv").read_text().splitlines()
    assert rows[0].startswith("memory,experiences,steps,classes,stored,train_seconds,condense_seconds")
    assert len(rows) == 6
    wrong = subprocess.run(
        [sys.executable, "runs/streams.py", "--experiences", "4"], capture_output=True, text=True, cwd=ROOT
    )
    assert wrong.returncode == 2 and wrong.stderr == "error: --experiences must be at least 5, got 4\n"


def held():
    """Numbers in all tensors that are alive."""
    gc.collect()
    return sum(one.numel() for one in gc.get_objects() if isinstance(one, torch.Tensor))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["new", "returning"])
def test_two_hundred_experiences_hold_no_more_than_their_budget(kind):
    buffer = ReplayBuffer("random", mem_size=400, normalization=Normalization((0.5,), (0.25,)), device="cpu")
    alive = {}
    for step in range(200):
        images = torch.randint(0, 256, (30, 1, 8, 8), dtype=torch.uint8)
        labels = torch.arange(30) % 2 + (2 * step if kind == "new" else 2 * step % 10)
        buffer.observe(images, labels)
        buffer.consolidate()
        buffer.sample(16)
        del images, labels
        alive[step] = held()
        assert len(buffer) <= 400
    full = alive[99]  # by then all that fits is there
    assert alive[199] <= full + 400 * 8 and len(buffer.classes) == (400 if kind == "new" else 10)
