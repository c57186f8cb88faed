"""``clreplay export`` and ``clreplay push``: the methods of a memory as commands."""

import numpy as np
import pytest
import torch

from clreplay import condense
from clreplay.command.main import main
from clreplay.memory.replay_memory import ReplayMemory


@pytest.fixture
def memory(pixels, tmp_path):
    images, labels = pixels()
    condense(images, labels, "random", 2, normalization="cifar10").save(tmp_path / "memory.safetensors")
    return tmp_path / "memory.safetensors"


@pytest.mark.parametrize(("target", "to"), [("pictures", []), ("arrays.npz", []), ("hub", ["--to", "parquet"])])
def test_what_is_exported_is_read_back(memory, target, to, tmp_path, capsys):
    assert main(["export", str(memory), str(tmp_path / target), *to]) == 0
    assert f"{tmp_path / target}: 6 images of 3 classes as " in capsys.readouterr().out
    back = ReplayMemory.load(tmp_path / target)
    assert torch.allclose(back.images, ReplayMemory.load(memory).images, atol=0.02)
    assert main(["export", str(memory), str(tmp_path / target), *to]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["export", str(memory), str(tmp_path / target), *to, "--force"]) == 0
    if target.endswith(".npz"):
        assert np.load(tmp_path / target)["labels"].tolist() == back.labels.tolist()


def test_an_unknown_format_is_one_line(memory, tmp_path, capsys):
    assert main(["export", str(memory), str(tmp_path / "x"), "--to", "gif"]) == 2
    err = capsys.readouterr().err
    assert "to must be one of png, npz, parquet, got 'gif'" in err and err.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_memory_is_pushed_as_the_method_pushes_it(memory, monkeypatch, capsys):
    pushed = []

    def push(self, repo, *, private):
        pushed.append((len(self), repo, private))
        return "pushed"

    monkeypatch.setattr(ReplayMemory, "push", push)
    assert main(["push", str(memory), "me/digits", "--private"]) == 0
    assert pushed == [(6, "me/digits", True)] and capsys.readouterr().out == "pushed\n"
