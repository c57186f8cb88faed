"""How optimizers and schedulers begin: each with its own settings, whenever it comes."""

import logging

import pytest
import torch
from avalanche.training.plugins import LRSchedulerPlugin
from plugin_helpers import SmallNet, Spy, plain_benchmark, random_replay, strategy, toy_pixels
from torch.optim import lr_scheduler


def four_steps():
    return plain_benchmark(toy_pixels(4, 8), steps=4).train_stream


def test_an_optimizer_that_the_user_replaces_keeps_its_own_settings():
    stream, spy = four_steps(), Spy()
    trained = strategy(random_replay(), spy, model=SmallNet())
    trained.train(stream[0])
    trained.optimizer = torch.optim.Adam(trained.model.parameters(), lr=0.001, weight_decay=0.5)
    trained.train([stream[1], stream[2]])
    for start in spy.starts[1:]:
        assert start["groups"][0]["lr"] == 0.001 and start["groups"][0]["weight_decay"] == 0.5
        assert "momentum" not in start["groups"][0]


def test_a_second_strategy_trains_with_its_own_optimizer_s_settings_and_is_told_what_goes_along(caplog):
    stream, plugin, spy = four_steps(), random_replay(), Spy()
    strategy(plugin, lr=0.1, model=SmallNet()).train(stream[0])
    with caplog.at_level(logging.WARNING, "clreplay"):
        second = strategy(plugin, spy, lr=0.0001, model=SmallNet())
        second.train(stream[1])
        second.train(stream[2])
    assert [start["groups"][0]["lr"] for start in spy.starts] == [0.0001] * 2
    assert [r.getMessage().split(" go along")[0] for r in caplog.records] == [
        "the plugin goes on in another strategy: its memory and classes [0]"
    ]


def test_a_scheduler_that_joins_later_is_restarted_too():
    stream, spy = four_steps(), Spy()
    trained = strategy(random_replay(), spy, model=SmallNet())
    trained.train(stream[0])
    trained.plugins.append(LRSchedulerPlugin(lr_scheduler.MultiStepLR(trained.optimizer, [1]), reset_scheduler=False))
    trained.train([stream[1], stream[2]])
    assert [rates[0] for rates in spy.rates] == [0.1] * 3
    assert spy.rates[2][-1] == pytest.approx(0.01)
