"""The examples of replay buffers run, and remember."""

import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_loop_of_one_s_own_remembers_all_digits():
    done = subprocess.run(
        [sys.executable, EXAMPLES / "replay_buffer.py"], capture_output=True, text=True, cwd=EXAMPLES.parent
    )
    assert done.returncode == 0, done.stderr
    assert "50 images of 10 classes" in done.stdout
    assert float(re.search(r"([\d.]+) % of all ten digits", done.stdout)[1]) > 75  # without rehearsal about 20


class Er(nn.Module):
    """As much of Mammoth's ER as the example builds on."""

    def __init__(self, backbone, loss, args, transform, dataset=None):
        super().__init__()
        self.net, self.loss, self.args, self.transform, self.device = backbone, loss, args, transform, "cpu"
        self.buffer = None


def test_the_example_for_mammoth_puts_the_memory_in_the_buffer_s_place(pixels, monkeypatch):
    module = ModuleType("models.er")
    module.Er = Er
    monkeypatch.setitem(sys.modules, "models", ModuleType("models"))
    monkeypatch.setitem(sys.modules, "models.er", module)
    names = {}
    exec((EXAMPLES / "mammoth_buffer.py").read_text(encoding="utf-8"), names)
    model = names["CondensedEr"](nn.Flatten(), nn.CrossEntropyLoss(), Namespace(buffer_size=6), None)
    model.buffer.condensed.configured = replaced_by_a_short_one(model.buffer.condensed.configured)
    images, labels = pixels(3)
    assert model.buffer.is_empty()
    model.buffer.add_data(examples=images / 255, labels=labels)
    model.end_task(None)
    assert [len(part) for part in model.buffer.get_data(6, transform=torch.neg)] == [6, 6]


def replaced_by_a_short_one(configured):
    from dataclasses import replace

    return replace(configured, settings=replace(configured.settings, iterations=1, width=4, depth=1))


def test_the_examples_are_short():
    for name in ("replay_buffer.py", "mammoth_buffer.py"):
        assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) <= 26
