"""Files are replaced whole, by several writers too; where they are kept if there is no place for them."""

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from file_writer import write_many

from clreplay.runtime import files

HOMELESS = """
import os, pathlib, sys
for name in ("HOME", "CLREPLAY_CACHE", "XDG_CACHE_HOME"):
    os.environ.pop(name, None)
if len(sys.argv) > 1:
    os.environ["CLREPLAY_CACHE"] = sys.argv[1]
os.path.expanduser = lambda path: path  # as for a user without an entry in the password file
from clreplay.runtime.files import user_cache
found = user_cache()
assert user_cache() == found
found.mkdir(parents=True)
print(found, oct(found.parent.stat().st_mode)[-3:])
"""


@pytest.mark.parametrize("more", [(), ("~/cache",)], ids=["nothing set", "tilde"])
def test_without_a_home_there_is_a_cache_for_one_process_and_one_warning(more):
    ran = subprocess.run([sys.executable, "-c", HOMELESS, *more], capture_output=True, text=True, check=True)
    place, mode = ran.stdout.split()
    assert "clreplay-" in place and mode == "700"
    assert not Path(place).parent.exists(), "it ends with its process"
    assert ran.stderr.count("nothing is cached for later processes") == 1 and "set CLREPLAY_CACHE" in ran.stderr


def test_the_temporary_folder_is_one_a_process(monkeypatch):
    here = files.temporary_folder()
    assert files.temporary_folder() == here
    monkeypatch.setattr(files.os, "getpid", lambda: -1)
    assert files.temporary_folder() != here


def test_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "rows.csv"
    with files.replacing(path) as first:
        first.write_text("first")
        with files.replacing(path) as second:  # begun later, through earlier
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first" and os.listdir(tmp_path) == ["rows.csv"]


def test_processes_may_write_one_file_at_the_same_time(tmp_path):
    path, context = tmp_path / "rows.csv", multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(path, letter)) for letter in "ab"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert not path.exists() or path.read_text() in ("a" * 5000, "b" * 5000)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert os.listdir(tmp_path) == ["rows.csv"]


def test_a_block_that_fails_changes_nothing(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("before")
    with pytest.raises(OSError, match="full"), files.replacing(path) as partial:
        partial.write_text("half")
        raise OSError("full")
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["rows.csv"]


def test_what_a_killed_process_left_is_removed_an_hour_later_and_what_another_writes_is_not(tmp_path):
    path, old, new = (tmp_path / name for name in ("a[1].csv", "a[1].csv.00.partial", "a[1].csv.01.partial"))
    other = tmp_path / "a1.csv.00.partial"  # of another file
    for left in (old, new, other):
        left.touch()
    for left in (old, other):
        os.utime(left, (time.time() - 2 * files.LEFT_BEHIND,) * 2)
    files.write_text(path, "through")
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, new.name, other.name])


@pytest.mark.skipif(sys.platform == "win32", reason="other permissions")
@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_a_file_that_its_writer_hides_gets_the_permissions_of_the_umask(mask, tmp_path):
    before = os.umask(mask)
    try:
        with files.replacing(tmp_path / "memory") as partial:
            partial.touch(mode=0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "memory").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "set"
    for text in ("first", "second"):
        with files.replacing_folder(path) as partial:
            (partial / "inside").mkdir()
            (partial / "inside" / text).touch()
    with pytest.raises(KeyboardInterrupt), files.replacing_folder(path) as partial:
        (partial / "third").touch()
        raise KeyboardInterrupt
    assert os.listdir(path / "inside") == ["second"] and os.listdir(path.parent) == ["set"]


def test_a_folder_that_cannot_take_its_name_leaves_the_old_one(tmp_path, monkeypatch):
    path, rename = tmp_path / "set", Path.rename
    path.mkdir()
    (path / "old").touch()

    def fail(self, target):
        if self.name.endswith(".partial"):
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no"), files.replacing_folder(path) as partial:
        (partial / "new").touch()
    assert os.listdir(path) == ["old"] and os.listdir(tmp_path) == ["set"]


def test_what_a_killed_process_left_of_a_folder_is_removed_an_hour_later(tmp_path):
    left = tmp_path / "set.00.partial"
    (left / "inside").mkdir(parents=True)
    os.utime(left, (time.time() - 2 * files.LEFT_BEHIND,) * 2)
    with files.replacing_folder(tmp_path / "set"):
        pass
    assert os.listdir(tmp_path) == ["set"]
