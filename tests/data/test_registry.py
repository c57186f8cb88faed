"""The table of data sets: entering one, and names that are refused."""

import pytest
import torch

from clreplay.data import Dataset, ImageSet, Normalization, load_dataset, register_dataset, registry
from clreplay.data import load as loading


def test_a_data_set_of_ones_own_is_registered_under_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "DATASETS", registry.DATASETS.copy())
    monkeypatch.setattr(loading, "DATASETS", registry.DATASETS)
    images = ImageSet(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    made = Dataset("toy", images, images, ("a",), Normalization((0.5,) * 3, (0.5,) * 3), "Made.")

    @register_dataset("toy")
    def load_toy(name, root, *, download, channels):
        assert (name, root, download, channels) == ("toy", tmp_path, False, 3)
        return made

    assert load_dataset("toy", tmp_path, download=False, channels=3) is made
    with pytest.raises(ValueError, match="did you mean 'toy'"):
        load_dataset("toys")


def test_a_name_that_is_taken_or_written_otherwise_is_refused():
    with pytest.raises(ValueError, match="name 'cifar10' is taken by clreplay.data.sets.cifar"):
        register_dataset("cifar10")
    with pytest.raises(ValueError, match="lower-case letters and digits, got 'My-Set'; write 'myset'"):
        register_dataset("My-Set")
