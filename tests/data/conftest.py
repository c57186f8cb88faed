"""What the tests of data share: no data of the user, no way to real servers, and a small folder of pets."""

from pathlib import Path

import pytest
from data_helpers import PETS, write_classes


@pytest.fixture(autouse=True)
def no_data_and_no_network(monkeypatch):
    """Nothing listens where everything but this machine's own servers would be reached."""
    monkeypatch.delenv("CLREPLAY_DATA", raising=False)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def pets(tmp_path) -> Path:
    """Three classes of 20x20 pictures in train/ and test/, of as many images as `PETS` says."""
    folder = tmp_path / "pets"
    for number, (split, counts) in enumerate(PETS.items()):
        write_classes(folder / split, counts, first=1000 * number)
    return folder
