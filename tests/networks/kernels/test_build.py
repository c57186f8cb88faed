"""Compiling the kernels: without a compiler, with a broken source, by many processes at once."""

import os
import subprocess
import sys

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
    assert len(list((tmp_path / "clreplay" / "native").iterdir())) == 1


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
