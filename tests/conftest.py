"""What all tests share: fixed seeds, one thread, toy images, and a watch on the global generators."""

import contextlib
import random
import signal

import hypothesis
import numpy as np
import pytest
import torch

torch.set_num_threads(1)

# Derandomised: the same examples in every run, so that a failure can be repeated.
hypothesis.settings.register_profile("clreplay", deadline=None, max_examples=30, derandomize=True, database=None)
hypothesis.settings.load_profile("clreplay")


@pytest.fixture(autouse=True)
def fixed_seeds():
    """Every test starts from the same global chance."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def as_from_a_terminal():
    """Processes that a test starts ignore neither SIGHUP nor SIGINT because the tests were started with ``nohup``, or
    in the background by a shell.
    """
    before = {one: signal.getsignal(one) for one in (signal.SIGHUP, signal.SIGINT)}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


@pytest.fixture(autouse=True)
def no_cache_but_the_test_s_own(monkeypatch, tmp_path_factory):
    """Condensed classes of one test must not serve another, nor fill the user's cache."""
    monkeypatch.delenv("CLREPLAY_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def global_chance_untouched():
    """``with global_chance_untouched(): ...`` fails if the block moves a global generator (Python, NumPy, torch)."""

    @contextlib.contextmanager
    def watch():
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        yield
        assert random.getstate() == before[0], "the block moved Python's global generator"
        after = np.random.get_state()
        assert all(np.array_equal(new, old) for new, old in zip(after, before[1])), "the block moved NumPy's generator"
        assert torch.equal(torch.get_rng_state(), before[2]), "the block moved torch's global generator"

    return watch


@pytest.fixture
def pixels():
    """``pixels(classes, each)``: uint8 images (n, channels, size, size) of square toys and their labels, shuffled.

    ``each`` is the number of images a class, or a list with one number a class. Classes differ in
    their mean colour, so they can be learned.
    """

    def make(classes=3, each=12, size=8, channels=3, seed=0):
        chance = np.random.RandomState(seed)
        counts = [each] * classes if isinstance(each, int) else list(each)
        labels = np.repeat(np.arange(len(counts)), counts)
        colour = chance.randint(40, 160, (len(counts), channels, 1, 1))
        images = colour[labels] + chance.randint(0, 90, (len(labels), channels, size, size))
        order = chance.permutation(len(labels))
        return torch.from_numpy(images[order].astype(np.uint8)), torch.from_numpy(labels[order])

    return make
