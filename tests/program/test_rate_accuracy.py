"""runs/rate_accuracy.py as a user types it, on the digits."""

import runpy
from pathlib import Path

import pandas as pd
import pytest
import yaml

from clreplay.incremental import rate_accuracy
from clreplay.incremental.rate_accuracy import COLUMNS, Point, points, settings_of
from clreplay.incremental.settings import ContinualSettings
from clreplay.memory.budget import TooFewBytes
from clreplay.memory.kept import Kept

SCRIPT = Path(__file__).parents[2] / "runs" / "rate_accuracy.py"


@pytest.fixture
def main(tmp_path, capsys):
    def run(*flags, out="rate"):
        common = ["--dataset", "digits", "--preset", "smoke", "--device", "cpu", "--networks", "2"]
        places = ["--out", str(tmp_path / out), "--cache", str(tmp_path / "cache")]
        code = runpy.run_path(str(SCRIPT))["main"]([*common, *places, *flags])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


ASKED = (
    "--memory",
    "random",
    "dm",
    "--store",
    "uint8",
    "png:4px",
    "--mem-bytes",
    "1500",
    "12000",
    "--updates",
    "4",
    "8",
)


@pytest.mark.slow
def test_every_point_is_run_once_and_the_best_of_every_budget_is_said(main, tmp_path, monkeypatch):
    code, out, _ = main(*ASKED)
    rows = pd.read_csv(tmp_path / "rate" / "rows.csv")
    assert code == 0 and tuple(rows.columns) == COLUMNS
    # 1,500 bytes are less than a raw image a class: two memories and two lengths are left out there.
    assert out.count("left out:") == 4 and "too few for one image of class 0 in store 'uint8'" in out
    assert len(rows) == 2 * (2 * 2 * 2 * 2 - 4) and (rows.bytes <= rows.budget_bytes).all()
    assert set(rows.updates) == {4, 8} and set(rows.kept) == {"uint8", "png:4px"} and set(rows.width) == {16}
    for file in ("bytes.png", "updates.png"):
        assert (tmp_path / "rate" / file).is_file()
    for (budget, updates), some in rows.groupby(["budget_bytes", "updates"]):
        assert f"and {updates} updates:" in out
    best = rows[rows.updates <= 4].groupby(["memory", "kept", "budget_bytes"]).accuracy.mean()
    assert f"at most 12 kB and 4 updates: {best.idxmax()[0]} kept as {best.idxmax()[1]}, {best.max():.1f} +-" in out
    monkeypatch.setattr("clreplay.incremental.run._host_of", lambda *_: pytest.fail("ran again"))
    finished = [flag for flag in ASKED if flag != "1500"]
    main(*finished)
    code, again, _ = main("--mem-bytes", "1", "--updates", "1", "--render")
    assert code == 0 and again.splitlines()[1:-1] == [line for line in out.splitlines() if "at most" in line]


def test_steps_and_protocol_are_those_of_the_experiment(main, tmp_path):
    flags = ("--memory", "random", "--store", "avif:auto:8px", "--mem-bytes", "20000", "--updates", "3")
    code, _, _ = main(*flags, "--steps", "5", "--protocol", "idc", "--set", "train.mix=1.0", "train.lr=0.02")
    (folder,) = (tmp_path / "rate" / "runs").iterdir()
    said = yaml.safe_load((folder / "settings.yaml").read_text())
    assert (code, said["steps"], said["protocol"], said["class_orders"]) == (0, 5, "idc", 1)
    assert (said["training"]["mix"], said["training"]["lr"], said["training"]["updates"]) == (1.0, 0.02, 3)
    rows = pd.read_csv(tmp_path / "rate" / "rows.csv")
    assert len(rows) == 2 and said["quality"] == "auto" and rows.kept[0] == "avif:auto:8px" and rows.steps[0] == 5


def test_a_budget_that_turns_out_too_small_for_a_class_does_not_end_the_others(main, tmp_path, monkeypatch):
    real, taken = rate_accuracy.run_planned, []

    def short(plan, *others):
        taken.append(plan.settings.mem_bytes)
        if plan.settings.mem_bytes == 12000:
            raise TooFewBytes("too few for one image of class 3")
        return real(plan, *others)

    monkeypatch.setattr(rate_accuracy, "run_planned", short)
    flags = ("--memory", "random", "--store", "uint8", "--mem-bytes", "12000", "24000", "--updates", "3")
    code, out, _ = main(*flags)
    assert code == 0 and taken == [12000, 24000] and "left out: random kept as uint8 in 12,000 bytes" in out
    assert set(pd.read_csv(tmp_path / "rate" / "rows.csv").budget_bytes) == {24000}


def test_an_unfinished_point_has_no_rows_and_is_gone_on_with(main, tmp_path, monkeypatch):
    flags = ("--memory", "random", "--store", "uint8", "--mem-bytes", "12000", "--updates", "3", "--steps", "2")
    real = rate_accuracy.run_planned

    def stopped(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(rate_accuracy, "run_planned", stopped)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        raise SystemExit(main(*flags)[0])
    (folder,) = (tmp_path / "rate" / "runs").iterdir()
    whole = (folder / "results.csv").read_text()
    (folder / "results.csv").write_text("\n".join(whole.splitlines()[:-2]) + "\n")
    assert not len(rate_accuracy.finished(tmp_path / "rate"))
    monkeypatch.undo()
    code, _, error = main(*flags)
    assert code == 0, error
    assert len(rate_accuracy.finished(tmp_path / "rate")) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--mem-bytes", "0", "--updates", "3"), "--mem-bytes must be at least 1"),
        (("--mem-bytes", "9", "--updates", "0"), "--updates must be at least 1"),
        (("--mem-bytes", "9", "--updates", "3", "--store", "gif"), "store must be one of uint8"),
        (("--mem-bytes", "9", "--updates", "3", "--store", "avif:fine"), "store must be like avif, avif:30"),
        (
            ("--mem-bytes", "9", "--updates", "3", "--store", "uint8:30"),
            "quality belongs to the stores png, jpeg, webp, avif",
        ),
    ],
)
def test_bad_input_is_one_line(main, flags, message):
    code, _, error = main(*flags)
    assert code == 2 and message in error and len(error.strip().splitlines()) == 1


def test_points_of_other_learners_are_not_drawn_together(main, tmp_path):
    flags = ("--memory", "random", "--store", "uint8", "--mem-bytes", "12000", "--updates", "3")
    main(*flags)
    code, _, error = main(*flags[:-1], "4", "--set", "train.width=8")
    assert code == 2 and "take an --out for each" in error


@pytest.mark.parametrize("text", ["uint8", "avif", "avif:30", "avif:auto", "png:16px", "webp:0:8px"])
def test_a_store_is_said_as_it_is_read(text):
    assert str(Kept.parse(text)) == text


def test_points_are_ordered_and_named_apart():
    every = points(["random", "own/mine.yaml"], [Kept("uint8"), Kept("avif", 30, 16)], [900, 30], [50, 5])
    assert len({point.folder for point in every}) == 16 and [p.updates for p in every] == [5] * 8 + [50] * 8
    assert every[0] == Point("random", Kept("uint8"), 30, 5)
    assert "mine-avif-30-16px-900-bytes-5-updates" in {point.folder for point in every}
    made = settings_of(every[2], ContinualSettings(dataset="digits", overrides={"train.lr": 1.0}))
    assert made.overrides == {"train.lr": 1.0, "train.updates": 5} and made.images_per_class is None
    assert (made.store, made.quality, made.pixels, made.mem_bytes) == ("avif", 30, 16, 30)
