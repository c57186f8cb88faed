"""Memories on a hub, through its own client, which talks to a small server here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import running_hub
from memory_helpers import NORMALIZATION, codes, floats

from clreplay.memory import hub
from clreplay.memory.replay_memory import ReplayMemory

pytest.importorskip("huggingface_hub")
USER = Path(__file__).with_name("hub_user.py")


@pytest.fixture
def file(tmp_path):
    """A memory's file."""
    memory = ReplayMemory(2, normalization=NORMALIZATION)
    memory.add({0: floats(2), 1: codes(2)}, record=[{"iteration": 1, "loss": 0.5}])
    memory.name_classes(["ant", "bee"])
    memory.save(tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def use(url, home, *steps, **more):
    """What a user sees who does these steps with a hub."""
    own = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_TOKEN": "hf_none", "NO_PROXY": "*", "HF_HUB_DISABLE_XET": "1"}
    place = Path(hub.__file__).resolve().parents[2]
    ran = subprocess.run(
        [sys.executable, USER, *steps], env={**os.environ, **own, **more}, cwd=place, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_a_memory_goes_to_the_hub_and_comes_back_exactly(file, tmp_path):
    with running_hub() as server:
        steps = [f"load={file}", "push=me/digits", "load=hf://me/digits", f"save={tmp_path / 'back'}"]
        steps += ["load=hf://me/none", "load=hf://datasets/me/digits@main/data/train-00000-of-00001.parquet"]
        said = use(server.url, tmp_path / "home", *steps)
        files = server.repos["me/digits"]
    shown = "ReplayMemory(2 images a class: 4 images of 2 classes, 240 bytes)"
    assert said[0] == said[2] == shown
    assert said[1].endswith(
        '/datasets/me/digits: 4 images of 2 classes; read back with ReplayMemory.load("hf://me/digits")'
    )
    assert said[3].startswith("OSError: hf://me/none cannot be had: RepositoryNotFoundError: ")
    assert said[4].startswith("ReplayMemory(2 images a class: 4 images of 2 classes") and len(said) == 5
    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    assert set(files) == {"README.md", "croissant.json", "memory.safetensors", "data/train-00000-of-00001.parquet"}
    assert b'ReplayMemory.load("hf://me/digits")' in files["README.md"]
    # What was fetched once is there without the hub as well, and what was not is one line.
    said = use(server.url, tmp_path / "home", "load=hf://me/digits", "load=hf://me/other", HF_HUB_OFFLINE="1")
    assert said[0] == shown and said[1].startswith("OSError: hf://me/other cannot be had: ") and len(said) == 2


def test_a_data_set_without_the_memory_s_own_file_is_read_from_parquet(file, tmp_path):
    with running_hub() as server:
        use(server.url, tmp_path / "home", f"load={file}", "push=me/digits")
        del server.repos["me/digits"]["memory.safetensors"]
        said = use(server.url, tmp_path / "other home", "load=hf://me/digits")
    assert said == ["ReplayMemory(2 images a class: 4 images of 2 classes, 240 bytes)"]


def test_a_hub_that_refuses_or_does_not_answer_is_one_line_and_nothing_is_lost(file, tmp_path):
    before = file.read_bytes()
    with running_hub() as server:
        server.refuse = 403
        said = use(server.url, tmp_path / "home", f"load={file}", "push=me/digits", f"save={tmp_path / 'still'}")
    assert said[1].startswith("OSError: me/digits was not pushed: ") and "not yours" in said[1] and len(said) == 2
    said = use(server.url, tmp_path / "home", f"load={file}", "push=me/digits")
    assert said[1].startswith("OSError: me/digits was not pushed: ConnectError: ") and len(said) == 2
    assert file.read_bytes() == before == (tmp_path / "still").read_bytes()


@pytest.mark.parametrize("repo", ["digits", "", "a/b/c d/", "me/digits@main", "https://host/me/digits", 3])
def test_a_name_that_is_none_is_refused_before_anything(repo):
    with pytest.raises(ValueError, match="must be (like )?ORG/NAME"):
        ReplayMemory(1).push(repo)


def test_addresses_are_understood():
    for text in ("hf://me/d.x", "me/d.x", "hf://datasets/me/d.x"):
        assert hub.split_repo(text) == ("me/d.x", None, None)
    assert hub.split_repo("hf://me/d@v1.0/a/b.npz") == ("me/d", "v1.0", "a/b.npz")


def test_without_the_client_the_package_to_install_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"needs the package huggingface_hub .*pip install 'clreplay\[hub\]'"):
        ReplayMemory.load("hf://me/digits")
