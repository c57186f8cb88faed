"""The scripts as a person starts them, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from clreplay.incremental.cli import continual_main, continual_parser, continual_settings

ROOT = Path(__file__).resolve().parents[2]
SHORT = ["--set", "train.updates=4", "iterations=2"]


def start(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=300,
        env={**os.environ, **environment}, check=False,
    )  # fmt: skip


def test_digits_smoke_run_compares_two_memories_and_says_where_the_picture_is(tmp_path):
    out = ["--out", str(tmp_path / "run")]
    ran = start("runs/digits_5step.py", "--memory", "random", "ddm", "--preset", "smoke", *SHORT, *out)
    assert ran.returncode == 0, ran.stderr
    assert str(tmp_path / "run" / "accuracy.png") in ran.stdout
    assert "Random" in ran.stdout and "DDM" in ran.stdout and "step 5/5" in ran.stdout
    assert ran.stderr == ""
    assert len(pd.read_csv(tmp_path / "run" / "results.csv")) == 10
    # What is recorded of the command names no place on this machine.
    assert str(tmp_path) not in (tmp_path / "run" / "settings.yaml").read_text()


def test_a_typo_is_one_line_on_standard_error_and_status_2(tmp_path):
    ran = start("runs/digits_5step.py", "--memory", "dmm", "--out", str(tmp_path / "run"))
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: unknown memory 'dmm'") and ran.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_absent_data_names_the_ways_out(tmp_path, monkeypatch, capsys):
    def offline(*_, **__):
        raise OSError("no network")

    import torchvision

    monkeypatch.setattr(torchvision.datasets.CIFAR100, "download", offline)
    status = continual_main(
        "cifar100", "", ["--data-root", str(tmp_path), "--preset", "smoke", "--out", str(tmp_path / "run")]
    )
    said = capsys.readouterr().err
    assert status == 2
    for word in ("digits_5step.py", "--data-root", "CLREPLAY_DATA", str(tmp_path)):
        assert word in said
    assert not (tmp_path / "run").exists()


def test_help_of_every_script_needs_neither_torch_nor_avalanche():
    blocker = (
        "import runpy, sys\n"
        "sys.modules['torch'] = sys.modules['avalanche'] = None\n"
        "sys.argv = [sys.argv[1], '--help']\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    for script in sorted((ROOT / "runs").glob("*_5step.py")):
        ran = start("-c", blocker, str(script))
        assert ran.returncode == 0, ran.stderr
        assert "--memory" in ran.stdout and "--preset" in ran.stdout


def test_the_core_runs_where_avalanche_is_not_installed(tmp_path):
    code = (
        "import sys; sys.modules['avalanche'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'avalanche' else find(name, *a)\n"
        "from clreplay.incremental.cli import continual_main\n"
        "sys.exit(continual_main('digits', '', sys.argv[1:]))"
    )
    out = str(tmp_path / "run")
    ran = start("-c", code, "--memory", "dm", "--preset", "smoke", *SHORT, "--out", out)
    assert ran.returncode == 0, ran.stderr
    assert "host none" in ran.stdout


def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path, monkeypatch, capsys):
    from clreplay.incremental import core_host

    def stop(*_):
        raise KeyboardInterrupt

    arguments = [
        "--memory",
        "random",
        "--preset",
        "smoke",
        "--host",
        "none",
        "--set",
        "train.updates=2",
        "--out",
        str(tmp_path / "run"),
    ]
    with monkeypatch.context() as patched:
        patched.setattr(core_host, "_train_one", stop)
        assert continual_main("digits", "", arguments) == 130
    assert "goes on" in capsys.readouterr().err
    assert continual_main("digits", "", arguments) == 0
    assert "going on with the run" in capsys.readouterr().out


@pytest.mark.parametrize(("dataset", "budget"), [("cifar100", None), ("digits", 5)])
def test_flags_become_settings(dataset, budget):
    parsed = continual_parser(dataset, "").parse_args(
        ["--memory", "random", "dm", "--set", "iterations=7", "train.lr=1e-2", "--set", "dm.lr_img=2", "--steps", "10"]
    )
    settings = continual_settings(parsed)
    assert settings.memories == ("random", "dm") and settings.steps == 10
    assert settings.overrides == {"iterations": 7, "train.lr": 0.01, "dm.lr_img": 2}
    assert settings.images_per_class == budget
    assert settings.preset is settings.device is settings.host is None
    assert continual_settings(continual_parser(dataset, "").parse_args(["--mem-size", "200"])).images_per_class is None


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("CLREPLAY_DATA"), reason="CLREPLAY_DATA is not set: no real CIFAR-100 at hand")
def test_cifar100_smoke_run_on_real_data(tmp_path):
    ran = start(
        "runs/cifar100_5step.py", "--memory", "random", "ddm", "--preset", "smoke", "--out", str(tmp_path / "run")
    )
    assert ran.returncode == 0, ran.stderr
    rows = pd.read_csv(tmp_path / "run" / "results.csv")
    assert rows.classes_seen.unique().tolist() == [20, 40, 60, 80, 100]
    assert rows.memory_images.unique().tolist() == [400, 800, 1200, 1600, 2000]
    # 24 bytes of scale and offset beside the 3,072 of a condensed image, nothing beside a real one.
    last = rows[rows.step == 4].set_index("memory").memory_bytes
    assert last["random"] == 2000 * 3072 and last["ddm"] == 2000 * (3072 + 24)
