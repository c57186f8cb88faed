"""``clreplay condense``: from a data set to a file, stopped on the way, and what is refused before any work."""

import numpy as np
import pytest
import torch
from PIL import Image

from clreplay.command.main import main
from clreplay.condensation.matching.engine import MatchingEngine
from clreplay.incremental.plan import plan_experiment
from clreplay.incremental.run import run_planned
from clreplay.incremental.settings import ContinualSettings
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.runtime.progress import Reporter

QUICK = ["--preset", "smoke", "--device", "cpu", "--no-cache"]
TINY = ["--set", "iterations=4", "width=4", "real_batch=6"]


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """``run("digits", "--memory", "dm")`` in an empty folder: the exit code, output and standard error."""
    monkeypatch.chdir(tmp_path)

    def command(*words):
        code = main(["condense", *words])
        return code, *capsys.readouterr()

    return command


@pytest.fixture
def plants(tmp_path):
    """Class folders of two plants, square images of 12 pixels."""
    chance = np.random.RandomState(0)
    for split, count in (("train", 5), ("test", 3)):
        for number, name in enumerate(("fern", "rose")):
            folder = tmp_path / "plants" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = chance.randint(0, 90, (12, 12, 3)) + 80 * number
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "plants"


def parts(path):
    state = ReplayMemory.load(path).state_dict()
    state.pop("settings")
    return state


def same(left, right):
    one, other = parts(left), parts(right)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_data_set_becomes_a_file_that_says_how_it_was_made(run, tmp_path):
    code, out, err = run(
        "digits", "--memory", "dm", "--images-per-class", "3", *QUICK, *TINY, "-o", "some/dm.safetensors"
    )
    assert (code, err) == (0, "")
    assert "10 classes" in out and "30 images of 10 classes" in out and "clreplay evaluate some/dm.safetensors" in out
    assert [path.name for path in (tmp_path / "some").iterdir()] == ["dm.safetensors"]
    memory = ReplayMemory.load("some/dm.safetensors", dataset="digits")
    assert len(memory) == 30 and memory.info["method"] == "dm" and len(memory.info["class_names"]) == 10
    assert (memory.info["preset"], memory.info["seed"], memory.info["settings"]["iterations"]) == ("smoke", 0, 4)


def test_it_is_the_memory_of_a_run_of_one_step(run, tmp_path):
    code, _, _ = run("digits", "--memory", "ddm", "--images-per-class", "2", *QUICK, *TINY, "--seed", "3")
    assert code == 0
    settings = ContinualSettings(
        dataset="digits", memories=("ddm",), images_per_class=2, steps=1, networks=1, preset="smoke", host="none",
        device="cpu", seed=3,
        overrides={"iterations": 4, "width": 4, "real_batch": 6, "train.updates": 1, "train.width": 4},
    )  # fmt: skip
    folder = run_planned(plan_experiment(settings), tmp_path / "run", Reporter(None))
    assert same(tmp_path / "memory.safetensors", folder / "memory.safetensors")


def test_a_budget_in_bytes_and_a_store_are_kept_to(run):
    code, out, _ = run(
        "digits", "--memory", "random", "--mem-bytes", "6000", "--store", "4bit", "--pixels", "16", *QUICK
    )
    assert code == 0 and "6,000 bytes in all" in out
    memory = ReplayMemory.load("memory.safetensors")
    assert memory.memory_bytes <= 6000 and (memory.store, memory.stored_pixels) == ("4bit", 16)


def test_a_file_that_is_there_is_replaced_only_by_force(run):
    assert run("digits", "--memory", "random", *QUICK)[0] == 0
    before = parts("memory.safetensors")
    code, out, err = run("digits", "--memory", "random", "--seed", "1", *QUICK)
    assert (code, out) == (2, "") and "memory.safetensors is there already; --force replaces it" in err
    assert all(torch.equal(part, before[name]) for name, part in parts("memory.safetensors").items())
    assert run("digits", "--memory", "random", "--seed", "1", "--force", "--quiet", *QUICK) == (0, "", "")
    assert not all(torch.equal(part, before[name]) for name, part in parts("memory.safetensors").items())


def test_stopped_it_goes_on_to_the_same_bytes(run, tmp_path, monkeypatch):
    words = ["digits", "--memory", "dm", "--images-per-class", "2", *QUICK, *TINY]
    assert run(*words, "-o", "whole.safetensors")[0] == 0
    steps, step = [], MatchingEngine.step

    def stopping(engine):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return step(engine)

    monkeypatch.setattr("clreplay.incremental.one_memory._expected", lambda *_: 1.0)  # it would take steps of its own
    with monkeypatch.context() as patched:
        patched.setattr(MatchingEngine, "step", stopping)
        code, _, err = run(*words)
    assert code == 130 and "The same command goes on from here" in err
    assert not (tmp_path / "memory.safetensors").exists()
    assert (tmp_path / "memory.safetensors.unfinished" / "condensing.progress").is_file()
    counted = []

    def counting(engine):
        counted.append(1)
        return step(engine)

    monkeypatch.setattr(MatchingEngine, "step", counting)
    code, out, _ = run(*words)
    assert code == 0 and "going on with what was begun" in out
    assert len(counted) == 2, "two of four iterations were done before"
    assert same("memory.safetensors", "whole.safetensors")
    assert not (tmp_path / "memory.safetensors.unfinished").exists()


def test_a_preset_that_nobody_asked_for_is_told_with_what_the_paper_s_takes(run, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    words = ["digits", "--memory", "dm", "--images-per-class", "1", "--no-cache", "--set", "iterations=1", "width=4"]
    code, out, _ = run(*words)
    assert code == 0
    (line,) = [line for line in out.splitlines() if line.startswith("  preset")]
    assert line.startswith("  preset    cpu, because there is no GPU; --preset paper (") and "would take" in line
    code, out, _ = run(*words, "--preset", "cpu", "--force")
    assert code == 0 and "because there is no GPU" not in out  # asked for
    code, out, _ = run("digits", "--memory", "random", "--force")
    assert code == 0 and "because there is no GPU" not in out  # the same under both


@pytest.mark.parametrize("written", ["{plants}", "{plants}@16", "folder:{plants}@16"])
def test_a_folder_of_one_s_own_is_a_data_set(run, plants, written):
    size = 16 if "@" in written else 12
    code, out, err = run(written.format(plants=plants), "--memory", "random", "--images-per-class", "2", *QUICK)
    assert (code, err) == (0, "") and "2 classes" in out
    memory = ReplayMemory.load("memory.safetensors")
    assert memory.images.shape == (4, 3, size, size) and memory.info["class_names"] == ["fern", "rose"]


def test_a_folder_whose_size_cannot_be_told_names_the_cure(run, plants):
    Image.new("RGB", (20, 20)).save(plants / "train" / "rose" / "large.png")
    code, _, err = run(str(plants), "--memory", "random", "--images-per-class", "2", *QUICK)
    assert code == 2 and f"folder:{plants}@64" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["./nothing"], "does not exist; give a data set's name or a folder"),
        (["digits", "--images-per-class", "3", "--mem-size", "30"], "one of them; got images_per_class, mem_size"),
        (["digits", "--images-per-class", "5000"], "take at most"),
        (["digits", "--set", "train.updates=3"], "train.updates: settings of the learner"),
        (["digits", "--store", "gif"], "store must be one of uint8"),
        (["digits", "--mem-bytes", "20"], "too few for one image"),
        (["digits", "--out", "."], "is a folder; --out names the memory's file"),
        (["digits", "--memory", "dm", "--set", "network=resnt18"], "did you mean 'ResNet18'"),
        (["digits", "--device", "gpu"], "device must be like cpu"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(run, tmp_path, words, message):
    code, out, err = run(*words)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())
