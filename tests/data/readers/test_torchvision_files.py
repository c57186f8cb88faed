"""A downloaded folder gets its final name in one step."""

import pytest
from data_helpers import write

from clreplay.data.readers.torchvision_files import move_folder


def test_the_folder_of_a_process_that_was_faster_stays(tmp_path):
    write(tmp_path / "mine" / "file", "same")
    write(tmp_path / "target" / "file", "same")
    move_folder(tmp_path / "mine", tmp_path / "target")
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["file"]


def test_what_cannot_be_moved_for_another_reason_is_an_error(tmp_path):
    write(tmp_path / "target", "a file, not a folder")
    (tmp_path / "mine").mkdir()
    with pytest.raises(OSError, match="Not a directory"):
        move_folder(tmp_path / "mine", tmp_path / "target")
