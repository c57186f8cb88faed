"""The example of a memory as a data set runs as it is printed."""

import logging
import re
import shutil
from pathlib import Path

import torch

from clreplay import ReplayMemory

ROOT = Path(__file__).resolve().parents[2]


def example():
    """The code of the page."""
    page = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    return re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]


def test_the_example_runs_as_printed(tmp_path, monkeypatch, capsys, caplog):
    shutil.copy(ROOT / "notebooks" / "digits_run" / "memory-ddm.safetensors", tmp_path / "memory.safetensors")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    caplog.set_level(logging.WARNING)
    exec(example(), {})
    said = capsys.readouterr().out
    assert re.fullmatch(r"pictures: 50 images of 10 classes as png, \d\d kB, read back to float rounding\n", said)
    (line,) = caplog.messages
    assert line.startswith("pictures: 38,670 of 51,200 pixel values (75.5 %), in 50 of 50 images, lie outside [0, 1]: ")
    assert (tmp_path / "pictures" / "3" / "0004.png").is_file()
    before, after = (ReplayMemory.load(name) for name in ("memory.safetensors", "pictures"))
    assert torch.allclose(before.images, after.images, atol=1e-5) and torch.equal(before.labels, after.labels)


def test_it_is_short():
    lines = [line for line in example().splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(lines) <= 10
