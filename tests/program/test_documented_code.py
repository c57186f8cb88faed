"""The Python of the pages runs as it is printed, and what else they tell people to type is there."""

import configparser
import re
from pathlib import Path

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from torch.utils.data import TensorDataset

import clreplay
from clreplay import ReplayMemory

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(language):
    """Every block of a language: its page, its number there, and its text."""
    found = []
    for page in PAGES:
        of_it = [text for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]
        found += [(page.relative_to(ROOT).as_posix(), number, text) for number, text in enumerate(of_it)]
    return found


def code(page, number=0):
    return next(text for name, place, text in blocks("python") if (name, place) == (page, number))


ELSEWHERE = {
    ("docs/datasets.md", 0),  # tests/program/test_dataset_page.py
    ("docs/memory_file.md", 0),  # tests/memory/test_stores.py
    ("docs/own_method.md", 0),  # tests/recipes/test_own_code.py
    ("docs/own_term.md", 0),  # tests/recipes/test_own_terms.py
}
HERE = {
    ("README.md", 0),
    ("docs/plugin.md", 0),
    ("docs/python.md", 0),
    ("docs/python.md", 1),
    ("docs/start.md", 0),
    ("docs/watching.md", 0),
}


def test_every_example_is_run():
    assert {(page, number) for page, number, _ in blocks("python")} == ELSEWHERE | HERE


class Labelled(TensorDataset):
    """A small data set as torchvision's are."""

    def __init__(self, each):
        self.targets = torch.arange(100).repeat_interleave(each).tolist()
        draws = torch.Generator().manual_seed(0)
        super().__init__(torch.rand(len(self.targets), 3, 32, 32, generator=draws), torch.tensor(self.targets))


@pytest.fixture
def small_cifar100(monkeypatch):
    """Avalanche's benchmark, with three images a class."""

    def split(steps, dataset_root):
        return nc_benchmark(Labelled(3), Labelled(1), steps, task_labels=False, seed=0)

    monkeypatch.setattr("avalanche.benchmarks.SplitCIFAR100", split)


def test_the_script_of_the_first_page(small_cifar100):
    """But for the device, the size of the network and the length of the training, which are a GPU's."""
    text = code("README.md")
    for printed, here in {
        'device="cuda"': 'device="cpu"',
        "train_epochs=300": "train_epochs=1",
        "num_classes=100": "num_classes=100, width=4",
        "images_per_class=20": 'images_per_class=1, preset="smoke", iterations=1',
    }.items():
        assert text.count(printed) == 1
        text = text.replace(printed, here)
    names = {}
    exec(text, names)
    (plugin,) = (one for one in names["strategy"].plugins if isinstance(one, clreplay.DDMReplayPlugin))
    assert sorted(plugin.memory.slots) == list(range(100)) and len(plugin.memory) == 100
    assert len(names["benchmark"].train_stream) == 5


def test_the_script_is_short():
    lines = [line for line in code("README.md").splitlines() if line and not line.startswith(("import", "from"))]
    assert len(lines) <= 10


def test_the_rehearsing_plugin():
    names = {}
    exec(code("docs/plugin.md"), names)
    assert names["plugin"].rehearsal is not None and names["plugin"].rehearsal.memory_share == 0.5


def test_the_logger(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code("docs/watching.md"), names)
    assert len(names["evaluator"].loggers) == 1 and (tmp_path / "board").is_dir()


def test_one_call(pixels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, labels = pixels(classes=2, each=12)
    monkeypatch.setattr(clreplay, "condense", quick(clreplay.condense))
    exec(code("docs/python.md", 0), {"images": images, "labels": labels})
    memory = ReplayMemory.load("memory.safetensors")
    assert len(memory) == 20 and memory.record and memory.info["method"] == "ddm"


def test_a_buffer(pixels, monkeypatch):
    images, labels = pixels(classes=2, each=20)
    monkeypatch.setattr(clreplay, "ReplayBuffer", quick(clreplay.ReplayBuffer))
    names = {"images": images, "labels": labels}
    exec(code("docs/python.md", 1), names)
    assert len(names["images"]) == len(names["labels"]) == 64 and names["images"].is_floating_point()


def quick(function):
    """The same, with the settings of a smoke test."""
    return lambda *args, **options: function(*args, **options, preset="smoke", iterations=1, width=4)


def test_five_minutes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(code("docs/start.md"), {})
    assert len(ReplayMemory.load("digits.safetensors")) == 30
    assert re.search(r"\d+\.\d", capsys.readouterr().out)


TYPED = (
    "python runs/",
    "clreplay ",
    "make ",
    "pip install ",
    "ray start ",
    "export ",
    "git clone ",
    "python3 -m venv ",
)


def test_what_is_typed_is_there():
    """Scripts and sub-commands have a test of their own (test_documented_commands.py)."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines = [line.split("#")[0].strip() for _, _, text in blocks("") for line in text.splitlines()]
    assert [line for line in lines if line and not line.startswith(TYPED)] == []
    made = {line.split()[1] for line in lines if line.startswith("make ")}
    assert {"demo", "test"} <= made <= targets
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    extras = set(re.findall(r"(?:clreplay|\.)\[(\w+)\]", text)) | set(re.findall(r"`\[(\w+)\]`", text))
    assert len(extras) >= 5 and extras <= set(config["options.extras_require"])


FIGURE = re.compile(r"\d+\.\d+ ± \d+\.\d+|\d{1,3}(?:,\d{3})+|\d+\.\d(?= (?:%|dB))")
WITHOUT_COMMA = {"10,011"}  # as results/trust.md does not write it


@pytest.mark.parametrize("name", ["README.md", "docs/budget.md"])
def test_figures_are_those_of_the_recorded_runs(name):
    measured = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "results").glob("*.md"))
    figures = FIGURE.findall((ROOT / name).read_text(encoding="utf-8"))
    assert len(figures) > 20
    found = {figure for figure in FIGURE.findall(measured)} | set(re.findall(r"\d+\.\d+", measured)) | WITHOUT_COMMA
    assert [figure for figure in figures if figure not in found] == []
