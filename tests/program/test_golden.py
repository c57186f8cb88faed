"""The committed golden values: settings of all recipes, cells of all tables, flags and columns are as they were."""

import importlib.util
import json
from pathlib import Path

import pytest

RECORD = Path(__file__).resolve().parents[1] / "golden" / "record.py"


def recorder():
    spec = importlib.util.spec_from_file_location("golden_record", RECORD)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("part", ["settings", "tables", "flags", "columns"])
def test_values_are_those_that_are_recorded(part):
    record = recorder()
    before = json.loads(RECORD.with_name(f"{part}.json").read_text(encoding="utf-8"))
    now = record.plain(record.COMMITTED[part]())
    assert list(record.differences(before, now, part)) == []


def test_a_difference_is_found():
    found = list(recorder().differences({"a": {"b": [1, 2]}, "c": 3}, {"a": {"b": [1, 5]}, "d": 3}, "values"))
    assert found == ["values / a / b / 1: 2 -> 5", "values / c: only before", "values / d: only now"]
