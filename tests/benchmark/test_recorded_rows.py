"""Rows that were measured and committed are found by today's code: whatever came later did not rename them."""

from pathlib import Path

import pytest

from clreplay.benchmark.cli import main

RESULTS = Path(__file__).resolve().parents[2] / "results"
CHOICE = ["--table", "1", "--dataset", "cifar10", "--ipc", "10", "--sets", "1", "--networks", "5", "--preset", "paper"]
CHOICE += ["--device", "cpu", "--held-out", "0.1"]
CONDENSED = ["iterations=5000", "real_batch=64", "precision=bfloat16", "train.precision=bfloat16"]


@pytest.mark.parametrize(
    ("memories", "settings", "said"),
    [
        (["random"], ["train.precision=bfloat16"], ["Random on cifar10, IPC 10, ConvNet: 32.73"]),
        (["dm", "dm+patch"], CONDENSED, ["DM on cifar10, IPC 10, ConvNet: 49.04", "DM+Patch on cifar10, IPC 10"]),
        (["ddm-paper"], CONDENSED, ["DDM (ddm-paper) on cifar10, IPC 10, ConvNet: 51.59"]),
        (["dm+sm-second"], CONDENSED, ["DM+SM (second) (dm+sm-second) on cifar10, IPC 10, ConvNet: 50.55"]),
        (["ddm-scripts"], CONDENSED, ["DDM (scripts) (ddm-scripts) on cifar10, IPC 10, ConvNet: 50.35"]),
    ],
)
def test_the_choice_at_width_128_is_found(tmp_path, capsys, memories, settings, said):
    stores = sorted(map(str, (RESULTS / "cifar10_choice").glob("store-*.sqlite")))
    assert len(stores) == 3
    flags = [*CHOICE, "--out", str(tmp_path), "--merge", *stores, "--method", *memories, "--set", *settings]
    assert main([*flags, "--status"]) == 0
    out = capsys.readouterr().out
    assert f"{len(memories)} measured of {len(memories)} cells" in out and all(one in out for one in said)
