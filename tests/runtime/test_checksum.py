"""Checksums: a flipped bit anywhere in a file is told, and files of before checksums are read."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from clreplay.runtime.checksum import DamagedFile, read_sealed, read_tensors, tensor_bytes, write_bytes, write_sealed

TENSORS = {
    "3.codes": torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4),
    "half": torch.linspace(-1, 1, 5).to(torch.bfloat16),
    "none": torch.zeros(0, 3),
    "one": torch.tensor(7),
}
TEXTS = {"settings": '{"a": 1, "b": "ä"}', "about": "x"}


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_tensors_and_texts_come_back(tmp_path):
    write_bytes(tmp_path / "file", tensor_bytes(TENSORS, TEXTS))
    tensors, texts = read_tensors(tmp_path / "file", ())
    assert tensors.keys() == TENSORS.keys() and all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert {name: texts[name] for name in TEXTS} == TEXTS


def test_the_same_content_gives_the_same_bytes():
    texts = {str(n): str(n) for n in range(20)}
    assert len({tensor_bytes(TENSORS, dict(random.sample(sorted(texts.items()), 20))) for _ in range(10)}) == 1


def test_a_flipped_bit_anywhere_is_told_or_changes_nothing(tmp_path):
    data = tensor_bytes(TENSORS, TEXTS)
    for bit in range(0, 8 * len(data), 5):
        (tmp_path / "file").write_bytes(flipped(data, bit))
        try:
            tensors, texts = read_tensors(tmp_path / "file", ("settings", "about"))
        except DamagedFile:
            continue
        assert {name: texts[name] for name in TEXTS} == TEXTS
        assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_a_file_of_before_checksums_is_read(tmp_path):
    save_file(TENSORS, tmp_path / "file", TEXTS)
    assert read_tensors(tmp_path / "file", tuple(TEXTS))[1] == TEXTS


def test_a_name_that_nobody_gave_is_damage(tmp_path):
    """A checksum whose name has lost a bit must not pass for a file of before."""
    save_file(TENSORS, tmp_path / "file", {**TEXTS, "checksuo": "0" * 32})
    with pytest.raises(DamagedFile, match="it has no checksum, but 'checksuo'"):
        read_tensors(tmp_path / "file", tuple(TEXTS))


@given(st.binary(max_size=200))
def test_bytes_come_back_from_behind_their_checksum(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("sealed") / "file"
    write_sealed(path, content)
    assert read_sealed(path) == content


def test_a_flipped_bit_of_sealed_bytes_is_told_unless_it_breaks_the_seal(tmp_path):
    write_sealed(tmp_path / "file", b"content" * 5)
    data = (tmp_path / "file").read_bytes()
    for bit in range(8 * len(data)):
        (tmp_path / "file").write_bytes(flipped(data, bit))
        if bit < 8 * len(b"clreplay-sum-1\n"):  # then it passes for a file of before, whose reader knows better
            assert read_sealed(tmp_path / "file") == flipped(data, bit)
        else:
            with pytest.raises(DamagedFile, match="does not match its checksum"):
                read_sealed(tmp_path / "file")
