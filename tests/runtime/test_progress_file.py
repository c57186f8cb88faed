"""The file of a condensation under way: what it cost so far, and what damage gets."""

import time
import zipfile

import pytest
import torch

from clreplay.runtime.progress_file import load_progress, saving


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
def test_a_cut_file_costs_a_warning_and_a_new_start_whatever_was_cut(cut, tmp_path, caplog):
    stopped(tmp_path / "work", 0)
    (tmp_path / "work").write_bytes((tmp_path / "work").read_bytes()[:-cut])
    assert load_progress(tmp_path / "work", "this") is None
    assert "starting anew, because the work in progress" in caplog.text and "is damaged" in caplog.text


@pytest.mark.parametrize("content", [[1], 3, {"state": 1}, {"what": "this"}, {"what": "this", "state": 1}], ids=str)
def test_a_file_of_something_else_costs_a_warning(content, tmp_path, caplog):
    torch.save(content, tmp_path / "work")
    assert load_progress(tmp_path / "work", "this") is None
    assert "is damaged" in caplog.text


def test_a_compressed_part_is_not_unpacked(tmp_path, caplog):
    torch.save({"what": "this", "state": {"x": torch.zeros(1 << 16)}}, tmp_path / "written")
    with zipfile.ZipFile(tmp_path / "written") as whole, zipfile.ZipFile(tmp_path / "work", "w") as packed:
        for part in whole.infolist():
            packed.writestr(part.filename, whole.read(part), zipfile.ZIP_DEFLATED)
    assert load_progress(tmp_path / "work", "this") is None
    assert "its parts are compressed" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError, FloatingPointError])
def test_whatever_ends_the_work_early_its_state_is_saved(error, tmp_path):
    with pytest.raises(error), saving(tmp_path / "new" / "work", "this", lambda: {"x": 1}):
        raise error
    assert load_progress(tmp_path / "new" / "work", "this").state == {"x": 1}


def test_work_is_saved_as_often_as_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("CLREPLAY_SAVE_SECONDS", "0")
    with saving(tmp_path / "work", "this", lambda: {"x": 1}) as save_if_due:
        assert not (tmp_path / "work").exists()
        time.sleep(0.01)
        save_if_due()
        assert load_progress(tmp_path / "work", "this").state == {"x": 1}
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("text", ["soon", "-1", "nan"])
def test_a_wrong_number_of_seconds_is_told_before_the_work(text, tmp_path, monkeypatch):
    monkeypatch.setenv("CLREPLAY_SAVE_SECONDS", text)
    with pytest.raises(ValueError, match="CLREPLAY_SAVE_SECONDS must be a number of seconds"):
        with saving(tmp_path / "work", "this", dict):
            pytest.fail("the work has begun")


def test_a_folder_that_is_removed_on_the_way_costs_a_warning_and_is_not_made_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CLREPLAY_SAVE_SECONDS", "0")
    with saving(tmp_path / "run" / "work", "this", lambda: {"x": 1}) as save_if_due:
        (tmp_path / "run").rmdir()
        time.sleep(0.01)
        save_if_due()
    assert "is not kept" in caplog.text and "its folder is gone" in caplog.text
    assert not (tmp_path / "run").exists()
