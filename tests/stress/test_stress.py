"""A few of the cases of ``make stress`` in every run of the tests, and structures that hypothesis makes up."""

from __future__ import annotations

import csv
import io
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from fuzzing import OTHER, mutated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kinds import KINDS
from safetensors.torch import save_file

from clreplay.incremental.results_file import COLUMNS, read_rows
from clreplay.incremental.settings_file import differing, load_settings
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.recipes.recipe import PRESETS, load_recipe

HERE = Path(__file__).resolve().parent
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="forks, and looks at memory in /proc")


# ---------------------------------------------------------------- damaged files


@pytest.fixture(scope="module")
def tallies():
    """What became of a few hundred damaged files, by kind: all cases, and those that went wrong."""
    command = [sys.executable, "-W", "ignore", str(HERE / "fuzz.py"), "--cases", "400", "--seed", "7", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@LINUX
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_damaged_file_is_refused_by_name_or_read_right(kind, tallies):
    cases, bad = tallies[kind.name]
    assert cases > 4 and bad == []


@LINUX
def test_the_watch_finds_what_it_looks_for(tmp_path):
    """Kinds that do all that none may do, each found."""
    code = f"""
import os, sys, time, signal
sys.path.insert(0, {str(HERE)!r})
import fuzzing
from fuzzing import Kind, fuzz
fuzzing.SECONDS = 1
def bad(what):
    def load(path):
        if path.read_bytes() == b"whole": return 1
        if what == "foreign error": raise KeyError("x")
        if what == "hang": time.sleep(60)
        if what == "memory": bytearray(1 << 30)
        if what == "crash": os.kill(os.getpid(), signal.SIGSEGV)
        if what == "unnamed": raise ValueError("wrong")
        return 2
    return Kind(what, "file", lambda folder: (folder / "file").write_bytes(b"whole") and None, load, sealed=True)
for what in ("foreign error", "hang", "memory", "crash", "unnamed", "other content"):
    print(max(fuzz(bad(what), 2, 3).bad).split(": ")[1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == ["foreign error", "hang", "memory", "crash", "foreign error", OTHER]


# ---------------------------------------------------------------- structures made up by hypothesis

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4),
    max_leaves=12,
)
KEYS = ("base", "method", "label", "source", "settings", "terms", "cases", "presets", "lr_img", "iterations", "dm")
PARTS = st.dictionaries(st.sampled_from([*KEYS, *PRESETS]), PLAIN, max_size=5)
FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW
@given(content=PARTS, base=st.sampled_from(["dm", "matching", "herding", None]))
def test_any_recipe_is_read_or_refused_in_a_line_that_names_it(tmp_path, content, base):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**content, **({"base": base} if base else {})}), encoding="utf-8")
    try:
        load_recipe(str(path)).settings("paper", {})
    except ValueError as error:
        assert "mine" in str(error)


@FEW
@given(content=PLAIN, other=PLAIN)
def test_any_settings_are_read_or_refused_in_a_line_that_names_them(tmp_path, content, other):
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    try:
        found = load_settings(path)
    except ValueError as error:
        assert "settings.yaml" in str(error) and "\n" not in str(error)
    else:
        assert all(len(one) < 2000 for one in differing(found, {"steps": other}))


@FEW
@given(rows=st.lists(st.lists(st.text(max_size=6) | st.integers(-2, 9).map(str), min_size=9, max_size=12), max_size=4))
def test_any_results_are_read_or_refused_by_line(tmp_path, rows):
    text = io.StringIO()
    csv.writer(text).writerows([COLUMNS, *rows])
    path = tmp_path / "results.csv"
    path.write_bytes(text.getvalue().encode("utf-8", "replace"))
    try:
        read_rows(path)
    except ValueError as error:
        assert "results.csv" in str(error)


CHANGES = st.dictionaries(
    st.sampled_from(["format", "images_per_class", "mem_size", "store", "quality", "pixels", "normalization", "classes",
                     "record", "info", "total_classes"]),
    PLAIN, min_size=1, max_size=3,
)  # fmt: skip


@FEW
@given(changes=CHANGES)
def test_a_memory_whose_settings_are_anything_is_read_or_refused_by_name(tmp_path, changes):
    """As somebody may write it by hand, without a checksum."""
    memory = ReplayMemory(images_per_class=2)
    memory.add({0: torch.zeros(2, 3, 4, 4)})
    state = memory.state_dict()
    said = {**json.loads(state.pop("settings")), **changes}
    path = tmp_path / "memory.safetensors"
    save_file(state, path, {"clreplay": json.dumps(said)})
    try:
        found = ReplayMemory.load(path)
    except ValueError as error:
        assert "memory.safetensors" in str(error)
    else:
        assert found.images.isfinite().all() and len(found) == 2


# ---------------------------------------------------------------- long


@LINUX
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kills_change_no_byte():
    command = [sys.executable, "-W", "ignore", str(HERE / "kill_resume.py"), "--kills", "10", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().split("\n")[-1] == "kills survived: 10, bytes different: 0"


@LINUX
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_at_once_leave_what_one_does():
    command = [sys.executable, "-W", "ignore", str(HERE / "two_at_once.py"), "--times", "4", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().split("\n")[-1].endswith("failed: 0, bytes different: 0")


def test_damages_repeat_and_differ():
    data = bytes(range(200))
    first, again, other = (mutated(data, random.Random(seed)) for seed in ("0 a 1", "0 a 1", "0 a 2"))
    assert first == again != other and first != data
