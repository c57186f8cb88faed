"""Runs over images of another height than width: both hosts, a forecast, pictures."""

from __future__ import annotations

import pytest
from data_helpers import write_classes
from PIL import Image
from run_helpers import QUIET, TINY, memory_bytes_of, same

from clreplay.incremental.run import run_experiment
from clreplay.incremental.settings import ContinualSettings
from clreplay.memory.replay_memory import ReplayMemory


@pytest.fixture
def wide(tmp_path):
    """Four classes of pictures of 24 x 40 (height x width)."""
    for number, split in enumerate(("train", "test")):
        write_classes(tmp_path / "wide" / split, {name: 6 for name in "abcd"}, 1000 * number, size=(40, 24))
    return tmp_path / "wide"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="classes"),
        pytest.param({"domains": ("none", "rotate:30", "blur")}, id="domains", marks=pytest.mark.slow),
    ],
)
def test_the_hosts_agree_on_images_that_are_not_square(wide, tmp_path, changes):
    settings = ContinualSettings(
        dataset=f"folder:{wide}", memories=("random", "ddm"), images_per_class=3, steps=2, preset="smoke", device="cpu",
        networks=1, overrides=TINY, store="webp", host="none", **changes,
    )  # fmt: skip
    folders = [
        run_experiment(ContinualSettings(**{**vars(settings), "host": host}), tmp_path / host, QUIET)
        for host in ("none", "avalanche")
    ]
    for name in ("random", "ddm"):
        files = [folder / f"memory-{name}.safetensors" for folder in folders]
        assert same(*map(memory_bytes_of, files))
        assert ReplayMemory.load(files[0]).images.shape[1:] == (3, 24, 40)
    accuracies = [(folder / "results.csv").read_text().splitlines()[1].split(",")[6] for folder in folders]
    assert accuracies[0] == accuracies[1]
    with Image.open(folders[0] / "memory.png") as picture:
        assert picture.width > picture.height  # three blocks of wide images, four rows
