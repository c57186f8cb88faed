"""The file of a condensation under way: what it cost so far, and what damage gets."""

import time

import pytest
import torch

from clreplay.condensation.engine.progress_file import load_progress, saving


def stopped(path, seconds, before=0.0):
    with pytest.raises(KeyboardInterrupt), saving(path, "this", lambda: {"x": torch.zeros(100)}, before):
        time.sleep(seconds)
        raise KeyboardInterrupt


def test_seconds_are_kept_beside_the_state_and_add_up(tmp_path):
    stopped(tmp_path / "work", 0.2)
    first = load_progress(tmp_path / "work", "this")
    assert 0.2 <= first.seconds < 2 and torch.equal(first.state["x"], torch.zeros(100))
    stopped(tmp_path / "work", 0.1, before=first.seconds)
    assert load_progress(tmp_path / "work", "this").seconds >= 0.3
    assert load_progress(tmp_path / "work", "another") is None


def test_a_state_of_before_has_cost_nothing_known(tmp_path):
    torch.save({"what": "this", "state": {"x": 1}}, tmp_path / "work")
    assert load_progress(tmp_path / "work", "this") == ({"x": 1}, 0.0)


@pytest.mark.parametrize("cut", [1, 10, 50, 200, 500, 1000])
def test_a_cut_file_is_named_whatever_was_cut(cut, tmp_path):
    stopped(tmp_path / "work", 0)
    (tmp_path / "work").write_bytes((tmp_path / "work").read_bytes()[:-cut])
    with pytest.raises(ValueError, match="work is truncated or not a condensation in progress; delete it"):
        load_progress(tmp_path / "work", "this")


@pytest.mark.parametrize("content", [[1], 3, {"state": 1}, {"what": "this"}], ids=str)
def test_a_file_of_something_else_is_named(content, tmp_path):
    torch.save(content, tmp_path / "work")
    with pytest.raises(ValueError, match="work is truncated or not a condensation in progress"):
        load_progress(tmp_path / "work", "this")
