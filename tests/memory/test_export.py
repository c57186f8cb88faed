"""Memories as files of others, and back: the same images to train on, or the error in pixel codes."""

import pytest
import torch
from memory_helpers import NORMALIZATION, codes, floats

from clreplay.memory.export import FORMATS
from clreplay.memory.replay_memory import ReplayMemory


def mixed(channels=3):
    """A condensed class and a class of real pictures."""
    normalization = NORMALIZATION if channels == 3 else None
    memory = ReplayMemory(mem_size=5, normalization=normalization)
    second = codes(2) if channels == 3 else floats(2, channels, seed=1, spread=0.1)
    memory.add({9: floats(3, channels), 2: second}, {9: 2}, {9: "nine", 2: "two"}, [{"iteration": 1, "loss": 0.5}])
    memory.info = {"dataset": "cifar10", "method": "ddm"}
    memory.name_classes({9: "cat", 2: "dog"})
    return memory


@pytest.mark.parametrize("to", FORMATS)
def test_an_export_is_read_back_with_all_that_is_known(to, tmp_path):
    memory = mixed()
    exported = memory.export(tmp_path / "out", to)
    loaded = ReplayMemory.load(exported.path, dataset="cifar10")
    assert loaded.labels.tolist() == memory.labels.tolist() and loaded.task_labels.tolist() == [2, 2, 2, 0, 0]
    assert loaded.class_names == {9: "cat", 2: "dog"} and loaded.info["method"] == "ddm"
    assert [slot.key for slot in loaded.slots.values()] == ["nine", "two"]
    assert loaded.normalization == NORMALIZATION
    steps = (loaded.images - memory.images).abs() * torch.tensor(NORMALIZATION.std).view(3, 1, 1) * 255
    assert float(steps.max()) <= exported.error + 1e-3
    assert torch.equal(loaded.class_images(2), memory.class_images(2)), "real pictures are exact"
