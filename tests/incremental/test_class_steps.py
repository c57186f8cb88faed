"""A larger first step, and an order of classes of one's own."""

import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from run_helpers import QUIET, TINY, memory_bytes_of, one, same

from clreplay.incremental.class_steps import own_order, read_class_order, step_sizes
from clreplay.incremental.cli import continual_main, continual_parser, continual_settings, recorded_command
from clreplay.incremental.plan import default_folder, plan_experiment
from clreplay.incremental.run import run_experiment
from clreplay.incremental.settings import ContinualSettings
from clreplay.memory.replay_memory import ReplayMemory

ORDER = (9, 0, 8, 1, 7, 2, 6, 3, 5, 4)


def tiny(**changes):
    settings = ContinualSettings(
        dataset="digits", memories=("ddm",), images_per_class=2, preset="smoke", host="none", device="cpu", networks=1,
        steps=3, first_step=6, overrides=TINY,
    )  # fmt: skip
    return one(settings, **changes)


@given(st.integers(1, 1000), st.integers(1, 12), st.none() | st.integers(0, 1000))
def test_every_class_has_its_step_or_it_is_an_error(classes, steps, first):
    try:
        sizes = step_sizes(classes, steps, first, "toys")
    except ValueError as error:
        assert "even" in str(error) or "must divide" in str(error)
        return
    assert sum(sizes) == classes and len(sizes) == steps and min(sizes) >= 1
    assert len(set(sizes[1:])) <= 1 and (first is None or sizes[0] == first)


def test_the_usual_splits_are_there():
    assert step_sizes(100, 6, 50, "cifar100") == [50] + [10] * 5
    assert step_sizes(10, 3, 4, "digits") == [4, 3, 3]
    assert step_sizes(7, 1, None, "x") == step_sizes(7, 1, 7, "x") == [7]


@pytest.mark.parametrize("host", ["none", "avalanche"])
def test_a_larger_first_step_runs_on_both_hosts(tmp_path, host):
    folder = run_experiment(tiny(host=host, class_order=ORDER), tmp_path / host, QUIET)
    assert pd.read_csv(folder / "results.csv").classes_seen.tolist() == [6, 8, 10]
    memory = ReplayMemory.load(folder / "memory.safetensors")
    assert [{*memory.classes[:6]}, {*memory.classes[6:8]}] == [{9, 0, 8, 1, 7, 2}, {6, 3}]
    assert yaml.safe_load((folder / "settings.yaml").read_text())["class_order"] == list(ORDER)


def test_hosts_agree(tmp_path):
    runs = [
        run_experiment(tiny(host=host, class_order=ORDER), tmp_path / host, QUIET) for host in ("none", "avalanche")
    ]
    first, second = (folder / "memory.safetensors" for folder in runs)
    assert same(memory_bytes_of(first), memory_bytes_of(second))
    accuracies = [pd.read_csv(folder / "results.csv").accuracy for folder in runs]
    assert torch.allclose(*(torch.tensor(a.to_numpy()) for a in accuracies))


def test_a_class_comes_out_the_same_in_any_order(tmp_path):
    runs = [tiny(class_order=order, first_step=None, steps=5) for order in (None, ORDER)]
    folders = [run_experiment(settings, tmp_path / str(n), QUIET) for n, settings in enumerate(runs)]
    assert same(*(memory_bytes_of(folder / "memory.safetensors") for folder in folders))


def test_a_run_does_not_go_on_in_another_order(tmp_path):
    run_experiment(tiny(), tmp_path / "run", QUIET)
    for changes, word in (({"class_order": ORDER}, "class_order"), ({"first_step": 8, "steps": 2}, "first_step")):
        with pytest.raises(ValueError, match=word):
            run_experiment(tiny(**changes), tmp_path / "run", QUIET)
    plans = [plan_experiment(tiny(**c)) for c in ({}, {"class_order": ORDER}, {"first_step": 8, "steps": 2})]
    assert len({default_folder(plan) for plan in plans}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first_step": 5}, "the other 5 of the 10 classes of digits would come in 2 step.s., which does not come out"),
        ({"first_step": 10}, "the other 0 of the 10 classes"),
        ({"first_step": 0}, "first_step is 0"),
        ({"first_step": 12}, "the other 0 of the 10 classes"),
        ({"class_order": ORDER[:-1]}, "every of the 10 classes once, it lacks class 4"),
        ({"class_order": (*ORDER, 9)}, "it has class 9 twice"),
        ({"class_order": (*ORDER[:-1], 10)}, "class_order has 10, which is no class; give labels 0 to 9 only"),
        ({"class_order": ORDER, "class_orders": 2}, "class_orders asks for 2; give one of them"),
        ({"images_per_class": None, "mem_size": 9}, "mem_size must be at least the number of classes"),
    ],
)
def test_what_cannot_be_is_one_error_before_any_work(changes, message):
    with pytest.raises(ValueError, match=message):
        plan_experiment(tiny(**changes))


def test_classes_may_be_named():
    names = ["cat", "dog", "2"]
    assert own_order(["2", "cat", "dog"], names) == [2, 0, 1]
    assert own_order([2, 0, 1], names) == own_order(["2", "0", "1"], names) == [2, 0, 1]


@pytest.mark.parametrize("text", ["3,1,2", "3\n1\n2\n", "[3, 1, 2]", "- 3\n- 1\n- 2\n", "'3', '1', '2'"])
def test_an_order_is_read_from_a_list_or_a_file(tmp_path, text):
    (tmp_path / "order.txt").write_text(text)
    assert read_class_order(str(tmp_path / "order.txt")) == ("3", "1", "2")
    if "\n" not in text:
        assert read_class_order(text) == ("3", "1", "2")


def test_the_flags_reach_the_settings(tmp_path, capsys):
    parser = continual_parser("digits", "")
    path = tmp_path / "order.txt"
    path.write_text("\n".join(map(str, ORDER)))
    words = ["--steps", "3", "--first-step", "6", "--class-order", str(path)]
    settings = continual_settings(parser.parse_args(words))
    assert (settings.first_step, settings.class_order) == (6, tuple(map(str, ORDER)))
    assert recorded_command(parser, "x.py", words) == "x.py --steps 3 --first-step 6 --class-order FILE"
    assert continual_main("digits", "", ["--class-order", "1,2", "--preset", "smoke"]) == 2
    assert "error: class_order must have every of the 10 classes once" in capsys.readouterr().err
