"""``clreplay evaluate``: what is printed, and that a command line is the function."""

import json

import pytest

from clreplay import condense, evaluate
from clreplay.command.main import main
from clreplay.data import load_digits
from clreplay.memory.replay_memory import ReplayMemory

QUICK = ["--preset", "smoke", "--device", "cpu", "--networks", "2", "--set", "updates=3", "width=4"]


@pytest.fixture
def memory(tmp_path):
    """Two digits of every class in a file."""
    digits = load_digits()
    made = condense(
        digits.train.images, digits.train.labels, "random", 2, normalization=digits.normalization, dataset="digits"
    )
    made.save(tmp_path / "digits.safetensors")
    return str(tmp_path / "digits.safetensors")


@pytest.fixture
def run(capsys):
    def command(*words):
        code = main(["evaluate", *words])
        return code, *capsys.readouterr()

    return command


def test_it_prints_what_the_function_gives(run, memory):
    code, out, err = run(memory, "--dataset", "digits", *QUICK)
    found = evaluate(memory, "digits", training={"updates": 3, "width": 4}, networks=2, preset="smoke", device="cpu")
    assert (code, err) == (0, "")
    last = out.splitlines()[-1]
    assert last.startswith(f"Accuracy {found.mean:.2f} % (std {found.std:.2f} over 2 networks), last epoch; each: ")
    assert "network 1/2" in out and "preset smoke" in out and "less than half a minute" in out
    code, out, err = run(memory, "--json", *QUICK)  # the data set is the memory's own
    assert (code, err) == (0, "") and json.loads(out)["accuracies"] == list(found.accuracies)
    code, out, err = run(memory, "--quiet", *QUICK)
    assert code == 0 and out.count("\n") == 1 and out.split(";")[0] == last.split(";")[0]


def test_network_protocol_and_seed_are_the_function_s(run, memory):
    code, out, _ = run(memory, "--json", "--network", "mlp", "--protocol", "idc", "--seed", "7", *QUICK[:-1])
    found = evaluate(
        memory, "digits", "mlp", {"updates": 3}, 2, 7, "cpu", preset="smoke", protocol="idc"
    )  # fmt: skip
    assert code == 0 and json.loads(out)["accuracies"] == list(found.accuracies)
    assert json.loads(out)["protocol"] == "idc" and json.loads(out)["training"]["network"] == "mlp"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "cifar11"], "did you mean 'cifar10'?"),
        (["--dataset", "digits", "--network", "resnt18"], "did you mean 'ResNet18'?"),
        (["--dataset", "digits", "--network", "nothing.py:net"], "no file nothing.py"),
        (["--dataset", "digits", "--set", "epoch=3"], "did you mean 'epochs'?"),
        (["--dataset", "digits", "--channels", "3"], "the memory holds images of 1 channel, 32 x 32 pixels"),
        (["--dataset", "digits", "--networks", "0"], "networks must be at least 1"),
    ],
)
def test_what_does_not_fit_is_one_line(run, memory, words, message):
    code, out, err = run(memory, *words)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


def test_stopped_it_says_that_it_begins_anew(run, memory, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("clreplay.scoring.train_learner", stop)
    code, _, err = run(memory, "--dataset", "digits", *QUICK)
    assert code == 130 and err.strip() == "Stopped. The same command begins anew."


def test_what_was_exported_is_scored_as_the_memory_is(run, memory, tmp_path):
    ReplayMemory.load(memory).export(tmp_path / "pictures.npz")
    expected = json.loads(run(memory, "--json", *QUICK)[1])["accuracies"]
    code, out, _ = run(str(tmp_path / "pictures.npz"), "--dataset", "digits", "--json", *QUICK)
    assert code == 0 and json.loads(out)["accuracies"] == pytest.approx(expected, abs=0.2)


def test_a_memory_that_does_not_say_of_what_it_was_made_wants_a_data_set(run, tmp_path, pixels):
    images, labels = pixels()
    condense(images, labels, "random", 1).save(tmp_path / "own.safetensors")
    code, _, err = run(str(tmp_path / "own.safetensors"))
    assert code == 2 and "--dataset is missing" in err
