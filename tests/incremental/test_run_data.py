"""A run knows the data it is made with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from run_helpers import QUIET, one, tiny_settings

from clreplay.data import Dataset, ImageSet, Normalization, dataset
from clreplay.incremental.plan import plan_experiment
from clreplay.incremental.run import run_experiment
from clreplay.incremental.run_folder import SettingsMismatch
from clreplay.memory.replay_memory import ReplayMemory

OURS = {"memories": ("random",), "steps": 2, "overrides": {"train.width": 4, "train.updates": 2}}


def flowers(folder, shade=0, names=("rose", "tulip")):
    """A folder with two classes of grey squares; another shade is another data set."""
    for split in ("train", "test"):
        for position, name in enumerate(names):
            (folder / split / name).mkdir(parents=True)
            for number in range(4):
                pixels = np.full((8, 8, 3), 20 * number + 90 * position + shade, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def of_folder(folder):
    return one(tiny_settings(), dataset=f"folder:{folder}", **OURS)


def test_the_data_of_a_run_is_in_its_settings_and_its_memory(tmp_path):
    folder = run_experiment(of_folder(flowers(tmp_path / "a" / "fl")), tmp_path / "run", QUIET)
    said = yaml.safe_load((folder / "settings.yaml").read_text())
    memory = ReplayMemory.load(folder / "memory.safetensors")
    assert said["class_names"] == memory.info["class_names"] == ["rose", "tulip"]
    assert len(said["data_fingerprint"]) == 32 and memory.info["data_fingerprint"] == said["data_fingerprint"]


@pytest.mark.parametrize("other", [{"shade": 1}, {"names": ("rose", "violet")}], ids=["images", "names"])
def test_a_run_does_not_go_on_with_other_data_of_the_same_name(other, tmp_path):
    run_experiment(of_folder(flowers(tmp_path / "a" / "fl")), tmp_path / "run", QUIET)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    said = "its images or labels are others" if "shade" in other else "class_names is .*tulip.* there and .*violet"
    with pytest.raises(SettingsMismatch, match=said):
        run_experiment(of_folder(flowers(tmp_path / "b" / "fl", **other)), tmp_path / "run", QUIET)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()} == before


def test_a_folder_that_does_not_say_its_data_goes_on(tmp_path):
    wanted = of_folder(flowers(tmp_path / "fl"))
    folder = run_experiment(wanted, tmp_path / "run", QUIET)
    said = yaml.safe_load((folder / "settings.yaml").read_text())
    for name in ("data_fingerprint", "class_names"):
        del said[name]
    (folder / "settings.yaml").write_text(yaml.safe_dump(said))
    checkpoint = folder / "checkpoint" / "random-order0.safetensors"
    memory = ReplayMemory.load(checkpoint)
    del memory.info["data_fingerprint"], memory.info["class_names"]
    memory.save(checkpoint)
    rows = (folder / "results.csv").read_bytes()
    run_experiment(wanted, folder, QUIET)
    assert (folder / "results.csv").read_bytes() == rows


def test_a_memory_file_of_other_data_is_refused(tmp_path):
    folder = run_experiment(of_folder(flowers(tmp_path / "a" / "fl")), tmp_path / "run", QUIET)
    other = plan_experiment(of_folder(flowers(tmp_path / "b" / "fl", shade=1))).data
    with pytest.raises(ValueError, match=r"memory.safetensors is a memory of other images or labels"):
        ReplayMemory.load(folder / "memory.safetensors", dataset="folder-fl", fingerprint=other.fingerprint)


def made(images, labels, mean=0.5):
    part = ImageSet(images, labels)
    return Dataset("toy", part, part, ("a", "b"), Normalization((mean,), (0.5,)), "toys")


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "sampled"])
def test_a_fingerprint_is_of_images_labels_and_normalisation(whole, monkeypatch):
    images, labels = torch.arange(40 * 16, dtype=torch.int64).remainder(251).to(torch.uint8), torch.arange(40) % 2
    images = images.view(40, 1, 4, 4)
    if not whole:
        monkeypatch.setattr(dataset, "HASHED_WHOLE", 100)
        monkeypatch.setattr(dataset, "_SAMPLED", 16 * 4)
    first = made(images, labels).fingerprint
    assert made(images.clone(), labels.clone()).fingerprint == first
    assert made(images, 1 - labels).fingerprint != first
    assert made(images, labels, mean=0.4).fingerprint != first
    assert made(images[:39], labels[:39]).fingerprint != first
    assert made(images.view(40, 1, 4, 4).roll(1, 0), labels).fingerprint != first
    changed = images.clone()
    changed[39] += 1
    assert made(changed, labels).fingerprint != first
    changed = images.clone()
    changed[20] += 1  # between two of four rows that are read: that is the price of not reading all
    assert (made(changed, labels).fingerprint != first) == whole


def test_of_a_large_set_few_images_are_read(monkeypatch):
    monkeypatch.setattr(dataset, "HASHED_WHOLE", 100)
    monkeypatch.setattr(dataset, "_SAMPLED", 16 * 4)
    assert len(dataset.evenly(torch.zeros(1000, 1, 4, 4, dtype=torch.uint8))) == 4
