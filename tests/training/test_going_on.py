"""A training that is stopped at any moment goes on to the bytes of one that was not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from training_helpers import NORMALIZATION, AllSettings, assert_same, keys_of, network_of, networks_of, state, states

from clreplay.runtime import progress_file
from clreplay.training import loop
from clreplay.training.cutmix import CutMixSettings
from clreplay.training.going_on import forget_training
from clreplay.training.learner import train_learner
from clreplay.training.loop import train
from clreplay.training.stacked import train_together

SMALL = {"width": 4, "depth": 2, "batch_size": 16, "lr": 0.05}
LOOPS = {
    "dm": AllSettings(**SMALL, updates=None, epochs=3),  # one epoch more; the drop begins momentum anew
    "cutmix": CutMixSettings(**SMALL, epochs=6),
    "nesterov": AllSettings(**SMALL, updates=10, nesterov=True, drop_resets_momentum=False),
}
UPDATES = {"dm": 12, "cutmix": 18, "nesterov": 12}  # three batches an epoch


class Stopped(BaseException):
    """What ends a training: a signal that is taken as Ctrl-C is."""


class Steps:
    """Counts the optimiser's steps, and stops in the place of one of them: before it, or when it is half done."""

    def __init__(self, patch: pytest.MonkeyPatch, stop_at: int | None = None, half_done: bool = False) -> None:
        self.made, step = 0, torch.optim.SGD.step

        def counted(optimizer):
            if self.made + 1 == stop_at:
                if half_done:
                    with torch.no_grad():
                        optimizer.param_groups[0]["params"][0].add_(1)
                raise Stopped
            step(optimizer)
            self.made += 1

        patch.setattr(torch.optim.SGD, "step", counted)


@pytest.fixture
def task(pixels):
    images, labels = pixels()
    return NORMALIZATION.apply(images), labels


def trained(settings, task, keep, norm="instance"):
    network = network_of(norm=norm)
    seconds = train_learner(network, *task, settings, (0, "train"), keep=keep)
    return state(network), seconds


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("half_done", [False, True])
@pytest.mark.parametrize("kind", LOOPS)
def test_a_training_stopped_again_and_again_ends_in_the_same_bytes(kind, half_done, norm, task, tmp_path, monkeypatch):
    settings, keep, made = LOOPS[kind], tmp_path / "new" / "network.training", 0
    unbroken, _ = trained(settings, task, None, norm)
    monkeypatch.setattr(progress_file, "SECONDS_BETWEEN_SAVES", -1.0)
    for stop_at in (1, 2, 3, 3, 4, None):  # also at the ends of epochs, at drops, and before the first update
        with monkeypatch.context() as patch:
            steps = Steps(patch, stop_at, half_done)
            try:
                found, seconds = trained(settings, task, keep, norm)
            except Stopped:
                assert stop_at is not None
            made += steps.made
    assert_same(found, unbroken)
    assert made == UPDATES[kind]  # no update was made twice
    assert seconds > 0


@pytest.mark.parametrize(("norm", "again"), [("instance", 0), ("batch", 4)])
def test_a_signal_before_the_weights_change_loses_nothing_and_later_what_is_not_saved(
    norm, again, task, tmp_path, monkeypatch
):
    """Statistics of batch norm change in the forward pass, so that its networks are saved between updates only."""
    made, logits_in = [], loop.logits_in
    for stop_at in (5, None):
        with monkeypatch.context() as patch:
            steps = Steps(patch)

            def stopping(*given, steps=steps, stop_at=stop_at):
                logits = logits_in(*given)
                if steps.made + 1 == stop_at:
                    raise Stopped
                return logits

            patch.setattr(loop, "logits_in", stopping)
            try:
                found, _ = trained(LOOPS["dm"], task, tmp_path / "n.training", norm)
            except Stopped:
                pass
            made.append(steps.made)
    assert made == [4, 8 + again]
    assert_same(found, trained(LOOPS["dm"], task, None, norm)[0])


def test_what_is_finished_is_found_until_it_is_forgotten(task, tmp_path, monkeypatch):
    keep = tmp_path / "n.training"
    first, _ = trained(LOOPS["cutmix"], task, keep)
    steps = Steps(monkeypatch)
    again, seconds = trained(LOOPS["cutmix"], task, keep)
    assert steps.made == 0 and seconds > 0
    assert_same(again, first)
    forget_training(keep)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("other", ["lr", "key", "images", "labels", "loop"])
def test_another_training_does_not_go_on_from_it(other, task, tmp_path, caplog):
    images, labels = task
    keep, settings, key = tmp_path / "n.training", LOOPS["dm"], (0, "train")
    trained(settings, task, keep)
    if other == "lr":
        settings = AllSettings(**{**SMALL, "lr": 0.04}, updates=None, epochs=3)
    elif other == "key":
        key = (1, "train")
    elif other == "images":
        images = images.clone()
        images[0, 0, 0, 0] += 1
    elif other == "labels":
        labels = labels.roll(1)
    else:
        settings = CutMixSettings(**SMALL, epochs=3)
    kept, plain = network_of(), network_of()
    assert train_learner(kept, images, labels, settings, key, keep=keep) == 0.0
    assert "is of other work; starting anew" in caplog.text
    train_learner(plain, images, labels, settings, key)
    assert_same(state(kept), state(plain))


@examples(max_examples=25, deadline=None)
@given(place=st.floats(0, 1), what=st.sampled_from(["cut", "flip", "tensors", "momentum", "epoch"]))
def test_a_damaged_file_costs_a_warning_and_a_new_start(place, what, tmp_path_factory):
    task = (torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3)
    settings, keep = AllSettings(**SMALL, updates=4), tmp_path_factory.mktemp("kept") / "n.training"
    plain, _ = trained(settings, task, keep)
    if what in ("cut", "flip"):
        content = bytearray(keep.read_bytes())
        at = min(int(place * len(content)), len(content) - 1)
        if what == "cut":
            del content[at:]
        else:
            content[at] ^= 64
        keep.write_bytes(content)
    else:
        from clreplay.runtime.state_file import load_state, save_state

        content = load_state(keep)
        content["state"][what] = {"tensors": {"x": torch.zeros(1)}, "momentum": [torch.zeros(2)], "epoch": "two"}[what]
        save_state(keep, content)
    found, seconds = trained(settings, task, keep)
    assert seconds == 0.0
    assert_same(found, plain)


def test_what_watches_goes_on_as_well(task, tmp_path, monkeypatch):
    images, labels = task

    def count(keep, stop_at=None):
        seen = torch.zeros(len(images), dtype=torch.int64)

        def watch(rows, labels, logits):
            seen[rows] += 1 + logits.argmax(1)

        with monkeypatch.context() as patch:
            steps = Steps(patch, stop_at)
            try:
                train(network_of(), images, labels, LOOPS["dm"], (0,), watch=watch, keep=keep, watched={"seen": seen})
            except Stopped:
                assert stop_at is not None
        return seen, steps.made

    unbroken, _ = count(None)
    monkeypatch.setattr(progress_file, "SECONDS_BETWEEN_SAVES", -1.0)
    assert count(tmp_path / "n.training", 6)[1] == 5
    assert count(tmp_path / "n.training", 3)[1] == 2
    found, made = count(tmp_path / "n.training")
    assert made == 5 and torch.equal(found, unbroken)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_networks_trained_together_go_on_stack_by_stack(norm, task, tmp_path, monkeypatch):
    settings, keep, made = AllSettings(**SMALL, updates=6), tmp_path / "step.training", 0
    plain = networks_of(norm=norm)
    train_together(plain, *task, settings, keys_of(), max_together=2)
    monkeypatch.setattr(progress_file, "SECONDS_BETWEEN_SAVES", -1.0)
    for stop_at in (2, 6, 3, None):  # the second ends amid the second stack
        with monkeypatch.context() as patch:
            steps = Steps(patch, stop_at, half_done=True)
            networks = networks_of(norm=norm)
            try:
                seconds = train_together(networks, *task, settings, keys_of(), max_together=2, keep=keep)
            except Stopped:
                assert stop_at is not None
            made += steps.made
    assert made == 12 and seconds > 0
    assert_same(states(networks), states(plain))
    forget_training(keep)
    assert not list(tmp_path.iterdir())
