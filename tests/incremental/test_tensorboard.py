"""A run's event files: what is in them, and that nothing is in them twice, whenever the run was stopped."""

import sys

import pytest
import torch
from run_helpers import QUIET, TINY, one, tiny_settings

from clreplay.condensation.matching.engine import MatchingEngine
from clreplay.incremental import run
from clreplay.incremental.cli import continual_main
from clreplay.incremental.run import run_experiment
from clreplay.incremental.run_folder import RunFolder
from clreplay.incremental.settings import ContinualSettings
from clreplay.incremental.tensorboard import Board, picture
from clreplay.memory.replay_memory import ReplayMemory

board = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="pip install tensorboard")


def events(folder):
    found = board.EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def points(folder):
    """All scalars, by name: steps and values."""
    found = events(folder)
    return {name: [(p.step, p.value) for p in found.Scalars(name)] for name in found.Tags()["scalars"]}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    for name in ("announce", "accuracy_picture", "memory_picture", "leave_report"):
        monkeypatch.setattr(run, name, lambda *_: None)


def wanted(**changes):
    return one(tiny_settings(), steps=2, networks=2, overrides={**TINY, "ddm.iterations": 4}, **changes)


def check(folder):
    """Everything that a run of two steps has to show is there once."""
    line, memory = folder / "tensorboard" / "ddm-order0", ReplayMemory.load(folder / "memory.safetensors")
    rows = RunFolder(folder).rows()
    found = points(line)
    means = rows.groupby("step").accuracy.mean()
    assert found["accuracy/mean"] == [(s + 1, pytest.approx(means[s], abs=1e-4)) for s in (0, 1)]
    assert [value for _, value in found["accuracy/network 2"]] == pytest.approx(
        list(rows[rows.network == 1].accuracy), abs=1e-4
    )
    assert found["memory/bytes"] == [(1, rows.memory_bytes.min()), (2, rows.memory_bytes.max())]
    assert {"memory/images", "classes seen", "seconds/condensing", "seconds/training"} <= set(found)
    assert all([step for step, _ in of] == [1, 2] for of in found.values())
    for step in (1, 2):
        record = [row for row in memory.record if row["experience"] == step - 1]
        losses = points(line / f"step-{step}")
        assert set(losses) == {
            "loss/mean_matching", "loss/moment_matching", "loss/correlation_matching", "loss/diversity",
            "images/std", "images/min", "images/max",
        }  # fmt: skip
        assert losses["loss/diversity"] == [(r["iteration"], pytest.approx(r["diversity"], rel=1e-5)) for r in record]
        assert losses["images/std"] == [(r["iteration"], pytest.approx(r["image_std"], rel=1e-5)) for r in record]
        assert len(record) == 4
    # Files of the same second are in no order.
    images = sorted(events(line / "memory").Images("memory"), key=lambda image: image.step)
    assert [image.step for image in images] == [1, 2]
    across = 3 * 32 + 4 * 2
    assert [(image.width, image.height) for image in images] == [(across, 5 * 34 + 2), (across, 10 * 34 + 2)]


@pytest.mark.parametrize("host", ["none", "avalanche"])
def test_losses_accuracies_bytes_and_pictures(host, tmp_path):
    check(run_experiment(wanted(host=host), tmp_path / "run", QUIET, tensorboard=True))


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("host", "place", "name", "call"),
    [
        ("none", MatchingEngine, "step", 3),  # in the middle of the first step, whose state was saved
        ("avalanche", MatchingEngine, "step", 7),
        ("none", RunFolder, "append", 1),  # condensed, trained, not written down
        ("none", Board, "measured", 1),  # written down, not drawn
        ("none", Board, "_picture", 2),
    ],
    ids="step-1 step-2-avalanche append measured picture".split(),
)
def test_a_run_that_goes_on_writes_no_point_twice(host, place, name, call, tmp_path, monkeypatch):
    method, calls = getattr(place, name), []

    def dying(*arguments, **keywords):
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return method(*arguments, **keywords)

    with monkeypatch.context() as patched:
        patched.setenv("CLREPLAY_SAVE_SECONDS", "0")
        patched.setattr(place, name, dying)
        with pytest.raises(Killed):
            run_experiment(wanted(host=host), tmp_path / "run", QUIET, tensorboard=True)
    check(run_experiment(wanted(host=host), tmp_path / "run", QUIET, tensorboard=True))
    check(run_experiment(wanted(host=host), tmp_path / "run", QUIET, tensorboard=True))


def test_a_finished_run_is_written_afterwards(tmp_path):
    folder = run_experiment(wanted(), tmp_path / "run", QUIET)
    assert not (folder / "tensorboard").exists()
    check(run_experiment(wanted(), folder, QUIET, tensorboard=True))


def test_a_total_budget_keeps_the_pictures_of_before(tmp_path):
    settings = wanted(images_per_class=None, mem_size=30)
    for _ in range(2):
        folder = run_experiment(settings, tmp_path / "run", QUIET, tensorboard=True)
        images = sorted(
            events(folder / "tensorboard" / "ddm-order0" / "memory").Images("memory"), key=lambda image: image.step
        )
        assert [(image.step, image.width) for image in images] == [(1, 6 * 34 + 2), (2, 3 * 34 + 2)]


def test_a_memory_that_domains_share_keeps_the_pictures_of_before(tmp_path):
    settings = ContinualSettings(
        dataset="digits", domains=("rotate:0,40",), memories=("ddm",), images_per_class=4, preset="smoke", host="none",
        device="cpu", networks=1, overrides=TINY,
    )  # fmt: skip
    found = []
    for _ in range(2):
        folder = run_experiment(settings, tmp_path / "run", QUIET, tensorboard=True)
        images = events(folder / "tensorboard" / "ddm-order0" / "memory").Images("memory")
        found.append({image.step: image.encoded_image_string for image in images})
    assert set(found[0]) == {1, 2} and found[0] == found[1] and found[0][1] != found[0][2]


def test_a_missing_package_is_said_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    flags = ["--memory", "random", "--preset", "smoke", "--tensorboard", "--out", str(tmp_path / "run")]
    assert continual_main("digits", "", flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --tensorboard needs the package tensorboard") and "clreplay[tensorboard]" in error
    assert not (tmp_path / "run").exists()


def test_the_command_says_where_to_look(tmp_path, capsys):
    flags = ["--memory", "random", "--preset", "smoke", "--steps", "1", "--no-cache", "--set", "train.updates=2"]
    assert continual_main("digits", "", [*flags, "--tensorboard", "--out", str(tmp_path / "run")]) == 0
    assert f"tensorboard --logdir {tmp_path / 'run' / 'tensorboard'}" in capsys.readouterr().out
    assert points(tmp_path / "run" / "tensorboard" / "random-order0")["accuracy/mean"]
    assert not list((tmp_path / "run" / "tensorboard").glob("*/step-*")), "a selection has no losses"


def test_a_picture_of_many_classes_shows_evenly_spaced_ones():
    memory = ReplayMemory(images_per_class=3)
    memory.add({label: torch.full((1 + label % 3, 1, 4, 4), float(label)) for label in range(30)}, fewer=range(30))
    assert picture(memory, memory.classes, rows=20, columns=2).shape == (3, 20 * 6 + 2, 2 * 6 + 2)
