"""Compiling the kernels: without a compiler, with a broken source, by many processes at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clreplay.networks.kernels import block, build
from clreplay.networks.kernels.build import failure

pytestmark = pytest.mark.skipif(failure() is not None, reason=f"no native kernels here: {failure()}")


def test_without_a_compiler_the_error_says_why(monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with pytest.raises(build.BuildError, match="no C compiler"):
        build.find_compiler()


def test_a_compiler_that_refuses_is_quoted(monkeypatch, tmp_path):
    bad = tmp_path / "block.c"
    bad.write_text("this is not C\n")
    monkeypatch.setattr(build, "SOURCE", bad)
    with pytest.raises(build.BuildError, match="error"):
        build.compile_library(build.find_compiler(), tmp_path / "lib" / "block.so")
    assert list((tmp_path / "lib").iterdir()) == []


def test_another_source_flag_or_processor_is_another_library(monkeypatch, tmp_path):
    compiler = build.find_compiler()
    names = {build.fingerprint(compiler)}
    assert build.fingerprint(compiler) in names
    monkeypatch.setattr(build, "FLAGS", [*build.FLAGS, "-g"])
    names.add(build.fingerprint(compiler))
    monkeypatch.setattr(build, "processor", lambda: "another")
    names.add(build.fingerprint(compiler))
    assert len(names) == 3


def test_many_processes_that_build_at_once_all_get_a_library(tmp_path):
    code = "from clreplay.networks.kernels import failure; assert failure() is None, failure()"
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    running = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    assert len(list((tmp_path / "clreplay" / "native").glob("*.so"))) == 1


def test_the_source_is_where_the_package_says():
    assert build.SOURCE.is_file()
    assert block.LANES == 16 and "LANES = 16" in build.SOURCE.read_text()


def test_a_cache_that_cannot_be_written_costs_a_warning_not_the_kernels(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLREPLAY_CACHE", str(tmp_path / "file" / "below"))
    assert build.library.__wrapped__()._name.endswith(".so")
    assert "every process compiles its own; set CLREPLAY_CACHE" in caplog.text


def test_where_nothing_at_all_can_be_written_the_error_says_so(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLREPLAY_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setattr(build, "temporary_folder", lambda: tmp_path / "file")
    with pytest.raises(build.BuildError, match="there is no place for a compiled library"):
        build.library.__wrapped__()


# ---------------------------------------------------------------- what is loaded


@pytest.fixture
def cached(monkeypatch, tmp_path):
    """The library in a cache folder of its own, as a process before this one left it."""
    monkeypatch.setenv("CLREPLAY_CACHE", str(tmp_path / "cache"))
    path = Path(build.library.__wrapped__()._name)
    assert path.parent == tmp_path / "cache" / "native" and path.parent.stat().st_mode & 0o777 == 0o700
    return path


def test_what_was_compiled_before_is_loaded(cached, monkeypatch):
    monkeypatch.setattr(build, "compile_library", lambda *_: pytest.fail("it is there"))
    assert build.library.__wrapped__()._name == str(cached)


@pytest.mark.parametrize("damage", [lambda data: data[:3000], lambda data: b"", lambda data: b"x" + data[1:]])
def test_a_damaged_library_is_compiled_again(cached, damage, caplog):
    """Loading a cut one would end the process by a signal."""
    whole = cached.read_bytes()
    cached.unlink()  # it is loaded in this process; what is mapped must not change
    cached.write_bytes(damage(whole))
    cached.chmod(0o700)
    assert build.library.__wrapped__()._name == str(cached)
    assert cached.stat().st_size == len(whole) and "is not what was compiled" in caplog.text


@pytest.mark.parametrize("what", ["file", "folder"])
@pytest.mark.parametrize("bits", [0o720, 0o702, 0o777])
def test_a_library_that_others_may_write_is_not_loaded(cached, what, bits, caplog):
    (cached if what == "file" else cached.parent).chmod(bits)
    loaded = Path(build.library.__wrapped__()._name)
    assert loaded.parent != cached.parent and loaded.parent.stat().st_mode & 0o077 == 0
    assert [record.getMessage() for record in caplog.records if "other users may write to" in record.getMessage()]


def test_a_library_of_another_user_is_not_loaded(cached, monkeypatch, caplog):
    user = os.getuid()
    monkeypatch.setattr(build.os, "getuid", lambda: user + 1)
    monkeypatch.setattr(build, "temporary_folder", lambda: cached.parents[1])
    if user == 0:  # what root owns is trusted; so is nothing else
        os.chown(cached, 12345, 12345)
    loaded = Path(build.library.__wrapped__()._name)
    assert loaded.parent == cached.parents[1] and "is another user's" in caplog.text
