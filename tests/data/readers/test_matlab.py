"""MATLAB files: what is read of them, and that damage is an error and not the end of the process."""

import io

import numpy as np
import pytest
from scipy.io import savemat

from clreplay.data.readers import matlab
from clreplay.data.readers.matlab import struct_rows

FIELDS = ("ILSVRC2012_ID", "WNID", "num_children")


def kit(**options) -> bytes:
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(1, "n02119789", "kit fox", 0), (2, "n02100735", "English setter", 0), (1001, "n00001740", "entity", 9)]
    file = io.BytesIO()
    savemat(file, {"synsets": np.array(rows, dtype=kinds).reshape(-1, 1)}, **options)
    return file.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_fields_of_every_element_are_read(compressed):
    rows = struct_rows(kit(do_compression=compressed), "synsets", FIELDS)
    assert rows == [[1, "n02119789", 0], [2, "n02100735", 0], [1001, "n00001740", 9]]


def test_bytes_that_crash_scipy_are_errors():
    """Found by trying all; another release of SciPy may refuse them in its own words."""
    for place, value in [(273, 255), (305, 1), (348, 1), (418, 1), (1041, 255)]:
        damaged = bytearray(kit())
        damaged[place] = value
        with pytest.raises(ValueError, match="^[^\n]+$"):
            struct_rows(bytes(damaged), "synsets", FIELDS)


def test_a_reader_that_is_ended_by_the_system_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "matlab_process.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr(matlab, "__file__", str(tmp_path / "matlab.py"))
    with pytest.raises(ValueError, match="its reader crashed .signal 11."):
        struct_rows(kit(), "synsets", FIELDS)


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0", b"\0" * 400, kit()[:300]])
def test_what_is_no_matlab_file_is_an_error_of_one_line(content):
    with pytest.raises(ValueError, match="^[^\n]+$"):
        struct_rows(content, "synsets", FIELDS)


def test_another_variable_or_field_is_an_error():
    with pytest.raises(ValueError, match="KeyError: 'answers'"):
        struct_rows(kit(), "answers", FIELDS)
    with pytest.raises(ValueError, match="colour"):
        struct_rows(kit(), "synsets", ("colour",))


def test_a_reader_that_comes_to_no_end_is_ended(monkeypatch):
    monkeypatch.setattr(matlab, "SECONDS", 0.01)
    with pytest.raises(ValueError, match="its reader came to no end in 0.01 seconds|argument"):
        struct_rows(kit(), "synsets", FIELDS)


def test_a_file_larger_than_any_kit_is_not_read():
    with pytest.raises(ValueError, match="more than the 16,777,216 that are read"):
        struct_rows(bytes((1 << 24) + 1), "synsets", FIELDS)
