"""Learning-rate schedules start anew with every experience, whichever they are and wherever they are listed."""

import pytest
import torch
from avalanche.training.plugins import LRSchedulerPlugin
from plugin_helpers import Spy, TinyNet, plain_benchmark, random_replay, run
from torch.optim import lr_scheduler

# Avalanche's running mean of the loss.
pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad:UserWarning")

EPOCHS = 5
BY_EPOCH = {
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 4], gamma=0.1),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2, gamma=0.5),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.7),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=3),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: min(1.0, (epoch + 1) / 3) * (1 - epoch / EPOCHS)),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.3, total_steps=EPOCHS + 1),
}


def whole_batch(*plugins, **options):
    """A run with one iteration an epoch, so that every experience sees the same number of each."""
    return run(plain_benchmark(), *plugins, train_mb_size=64, train_epochs=EPOCHS, **options)


def scheduled(make, order="ours first", **options):
    """The learning rates of every experience under a schedule, and what a spy saw."""
    model, spy = TinyNet(), Spy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = LRSchedulerPlugin(make(optimizer), **options)
    plugins = [random_replay(), schedule] if order == "ours first" else [schedule, random_replay()]
    whole_batch(*plugins, spy, model=model, optimizer=optimizer)
    return spy


def reference(make, steps=EPOCHS):
    """The learning rates that PyTorch gives in a plain loop."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    schedule, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("order", ["ours first", "ours last"])
@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("name", BY_EPOCH)
def test_every_experience_gets_the_whole_schedule(name, reset, order):
    # Trap: the learning rate and the schedule stay where the last experience ended; Avalanche's own reset
    # sets warm-up schedules to their full rate.
    spy = scheduled(BY_EPOCH[name], order, reset_scheduler=reset, reset_lr=reset)
    expected = reference(BY_EPOCH[name])
    assert len(set(expected)) > 1
    for rates in spy.rates:
        assert rates == pytest.approx(expected)


def test_a_schedule_by_iteration_starts_anew_too():
    def make(optimizer):
        return lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=50)

    model, spy = TinyNet(), Spy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = LRSchedulerPlugin(make(optimizer), step_granularity="iteration")
    run(plain_benchmark(), random_replay(), schedule, spy, model=model, optimizer=optimizer, train_mb_size=2)
    first, second = spy.rates
    assert len(second) > len(first)
    assert second[: len(first)] == pytest.approx(first)
    assert second == pytest.approx(reference(make, len(second)))
    # One-cycle schedules drive the momentum as well.
    assert [start["groups"][0]["momentum"] for start in spy.starts] == [0.95, 0.95]


def test_a_schedule_that_watches_the_loss_starts_anew():
    def make(optimizer):  # no loss is ever good enough: the rate falls every epoch
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=1.0)

    spy = scheduled(make, metric="train_loss")
    for rates in spy.rates:
        assert rates == pytest.approx([0.1 * 0.5**epoch for epoch in range(EPOCHS)])


def test_a_schedule_for_the_first_experience_alone_leaves_the_others_at_the_start():
    spy = scheduled(BY_EPOCH["StepLR"], first_exp_only=True)
    assert spy.rates[0] == pytest.approx(reference(BY_EPOCH["StepLR"]))
    assert spy.rates[1] == [0.1] * EPOCHS


def test_two_schedules_are_both_restarted():
    model, spy = TinyNet(), Spy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedules = [LRSchedulerPlugin(BY_EPOCH[name](optimizer)) for name in ("ExponentialLR", "MultiStepLR")]
    whole_batch(random_replay(), *schedules, spy, model=model, optimizer=optimizer)
    assert spy.rates[0] == pytest.approx(spy.rates[1])
    assert len(set(spy.rates[0])) == EPOCHS
