"""The record as columns: equal rows come back, whatever they hold, in a fraction of the bytes."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from memory_helpers import floats
from safetensors import safe_open

from clreplay.memory.record_columns import column_names, to_columns, to_rows
from clreplay.memory.replay_memory import ReplayMemory

RUN = Path(__file__).resolve().parents[2] / "notebooks" / "digits_run"
NUMBERS = st.integers(-(2**70), 2**70) | st.floats()
VALUES = NUMBERS | st.booleans() | st.none() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
ROWS = st.lists(st.dictionaries(st.sampled_from(["experience", "loss", "a.b", "rows", "columns"]), VALUES, max_size=4))


def same(one, other):
    """Equal in kind as well; NaN is equal to itself."""
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and one == other


@given(ROWS | st.lists(st.fixed_dictionaries({"iteration": st.integers(0, 9), "loss": st.floats(width=32)})))
def test_any_rows_come_back(rows):
    about, tensors = to_columns(rows)
    about = json.loads(json.dumps(about))
    assert column_names(about) == set(tensors)
    found = to_rows(about, tensors)
    assert len(found) == len(rows)
    for one, other in zip(rows, found):
        assert list(one) == list(other) and all(same(one[name], other[name]) for name in one)


def test_columns_are_as_short_as_they_can_be():
    _, columns = to_columns([{"iteration": 1, "far": 2**40, "loss": 0.5, "exact": 0.1}] * 3)
    kinds = {name.removeprefix("record.0."): column.dtype for name, column in columns.items()}
    assert kinds == {"iteration": torch.int32, "far": torch.int64, "loss": torch.float32, "exact": torch.float64}


def test_a_file_of_before_is_read_and_is_a_third_when_written_anew(tmp_path):
    before = RUN / "memory-ddm.safetensors"
    with safe_open(before, "pt") as file:
        rows = json.loads(file.metadata()["clreplay"])["record"]
    memory = ReplayMemory.load(before)
    assert len(memory.record) == 600 and memory.record == rows
    memory.save(tmp_path / "m.safetensors")
    again = ReplayMemory.load(tmp_path / "m.safetensors")
    assert again.record == rows and torch.equal(again.images, memory.images)
    assert 3 * (tmp_path / "m.safetensors").stat().st_size < before.stat().st_size


def test_a_memory_without_a_record_is_written_so_that_older_versions_read_it(tmp_path):
    memory = ReplayMemory(1)
    memory.add({0: floats(1)})
    assert json.loads(memory.state_dict()["settings"])["format"] == 3
    memory.record = [{"note": "no numbers"}]
    assert json.loads(memory.state_dict()["settings"])["record"] == memory.record
    memory.record = [{"loss": 0.5}]
    assert json.loads(memory.state_dict()["settings"])["format"] == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("record.0.loss"), "the memory lacks record.0.loss; it is incomplete"),
        (
            lambda state: state.update({"record.0.loss": torch.zeros(3)}),
            "columns of part 0 of the record differ in length",
        ),
        (lambda state: state.update({"record.1.loss": torch.zeros(2)}), "record.1.loss, of no class that it names"),
    ],
)
def test_a_damaged_record_is_told(change, message):
    memory = ReplayMemory(1)
    memory.add({0: floats(1)}, record=[{"iteration": 1, "loss": 0.5}, {"iteration": 2, "loss": 0.25}])
    state = memory.state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        memory.load_state_dict(state)
