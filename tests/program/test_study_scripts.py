"""The scripts that look into condensed sets and losses, called as a person calls them."""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest

from clreplay.benchmark.cli import main as tables

ROOT = Path(__file__).resolve().parents[2]


def script(name):
    """A script of ``runs`` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "runs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_style_gap_of_sets_is_read_from_the_store_that_the_tables_filled(tmp_path, capsys):
    flags = ["--table", "1", "--dataset", "digits", "--ipc", "2", "--method", "random", "dm", "--preset", "smoke"]
    flags += ["--sets", "2", "--networks", "1", "--device", "cpu", "--held-out", "0.2", "--out", str(tmp_path)]
    flags += ["--set", "train.updates=1", "iterations=2", "kernels=eager", "layout=contiguous", "parallel=operators"]
    main = script("style_gap").main
    assert main(flags) == 2 and "holds none of these sets" in capsys.readouterr().err
    assert tables(flags) == 0
    capsys.readouterr()
    assert main([*flags, "--draws", "2", "--csv", str(tmp_path / "gap.csv")]) == 0
    said = capsys.readouterr().out
    assert "image_std" in said and "layer1_std_ratio" in said and "random" in said and "dm" in said
    rows = pd.read_csv(tmp_path / "gap.csv")
    assert rows.method.tolist() == ["random", "random", "dm", "dm"] and rows.set.nunique() == 4
    assert rows.real_image_std.nunique() == 1 and rows.image_std.nunique() == 4
    # A few real images have a contrast like that of all; condensing at a rate of 10 moves it.
    ratios = (rows.layer1_std_ratio - 1).abs()
    assert ratios[:2].max() < 0.1


@pytest.mark.parametrize("memory", ["ddm", "dm+patch"])
def test_gradient_shares_are_printed_by_term_and_width(memory, tmp_path, capsys):
    flags = ["--memory", memory, "--dataset", "digits", "--ipc", "2", "--width", "4", "8", "--networks", "1"]
    assert script("gradient_shares").main([*flags, "--classes", "2", "--out", str(tmp_path / "rows.csv")]) == 0
    assert "cosine" in capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert set(rows.width) == {4, 8} and {"mean_matching"} < set(rows.term)
    assert rows[rows.term == "mean_matching"].share.tolist() == pytest.approx([1.0] * 4)
