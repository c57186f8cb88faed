"""Strategies and plugins that bring images of their own, or that hold the weights of the last experience."""

import logging

import pytest
import torch
from avalanche.models import SimpleMLP
from avalanche.training import storage_policy
from avalanche.training.plugins import (
    AGEMPlugin,
    EWCPlugin,
    FromScratchTrainingPlugin,
    GDumbPlugin,
    GEMPlugin,
    GenerativeReplayPlugin,
    LwFPlugin,
    MASPlugin,
    MIRPlugin,
    RARPlugin,
    ReplayPlugin,
    SupervisedPlugin,
    SynapticIntelligencePlugin,
)
from avalanche.training.supervised import AGEM, CoPE, GDumb, GSS_greedy, Replay
from avalanche.training.supervised.der import DER
from avalanche.training.supervised.er_ace import ER_ACE
from plugin_helpers import Spy, nc, plain_benchmark, random_replay, run, stored, strategy, toy_pixels

from clreplay.plugin.replay import CondensedReplayPlugin, DDMReplayPlugin


def never(real, counts, settings, **rest):
    raise AssertionError("nothing may be condensed")


def condensed():
    return CondensedReplayPlugin(never, 2)


class OwnReplay(SupervisedPlugin, supports_distributed=True):
    """A replay of the user's own, with one of Avalanche's buffers."""

    def __init__(self):
        super().__init__()
        self.storage_policy = storage_policy.ReservoirSamplingBuffer(4)


class SubclassedAGEM(AGEMPlugin):
    pass


PLUGINS = {
    "ReplayPlugin": lambda: ReplayPlugin(20),
    "GDumbPlugin": lambda: GDumbPlugin(20),
    "AGEMPlugin": lambda: AGEMPlugin(4, 4),
    "GEMPlugin": lambda: GEMPlugin(4, 0.5),
    "MIRPlugin": lambda: MIRPlugin(4),
    "RARPlugin": lambda: RARPlugin(4, opt_lr=0.1, name_ext_layer="conv", use_adversarial_replay=False),
    "OwnReplay": OwnReplay,
    "SubclassedAGEM": lambda: SubclassedAGEM(4, 4),
}


@pytest.mark.parametrize("first", [True, False], ids=["listed before", "listed after"])
@pytest.mark.parametrize(("name", "make"), PLUGINS.items(), ids=PLUGINS)
def test_a_plugin_that_keeps_real_images_is_refused_before_condensing(name, make, first):
    plugins = [condensed(), make()]
    trained = strategy(*(plugins[::-1] if first else plugins))
    with pytest.raises(ValueError, match=f"{name} keeps real images of its own.*leave it out, or compare"):
        trained.train(nc().train_stream[0])


STRATEGIES = {
    "ReplayPlugin": (Replay, {"mem_size": 20}),
    "GDumbPlugin": (GDumb, {"mem_size": 20}),
    "AGEMPlugin": (AGEM, {"patterns_per_exp": 4}),
    "CoPEPlugin": (CoPE, {"mem_size": 20, "n_classes": 4, "p_size": 4}),
    "GSS_greedyPlugin": (GSS_greedy, {"mem_size": 20, "input_size": [3, 8, 8]}),
    "ER_ACE": (ER_ACE, {"mem_size": 20, "batch_size_mem": 4}),
    "DER": (DER, {"mem_size": 20, "batch_size_mem": 4}),
}


@pytest.mark.parametrize(("name", "kind", "options"), [(n, *v) for n, v in STRATEGIES.items()], ids=STRATEGIES)
def test_a_strategy_that_keeps_real_images_is_refused_before_condensing(name, kind, options):
    with pytest.raises(ValueError, match=f"{name} keeps real images of its own"):
        strategy(condensed(), kind=kind, **options).train(nc().train_stream[0])


@pytest.mark.parametrize("other", [condensed, lambda: DDMReplayPlugin(2)], ids=["the same", "a subclass"])
def test_two_condensed_memories_in_one_strategy_are_refused(other):
    with pytest.raises(ValueError, match="serves a condensed memory as well.*give each its own strategy"):
        strategy(condensed(), other()).train(plain_benchmark().train_stream[0])


def test_a_plugin_that_makes_images_is_refused():
    with pytest.raises(ValueError, match="GenerativeReplayPlugin adds generated images.*leave it out"):
        strategy(condensed(), GenerativeReplayPlugin()).train(plain_benchmark().train_stream[0])


def test_a_plugin_that_puts_the_first_weights_back_is_refused():
    with pytest.raises(ValueError, match="FromScratchTrainingPlugin puts the first weights back.*leave it out"):
        strategy(condensed(), FromScratchTrainingPlugin()).train(plain_benchmark().train_stream[0])


def test_a_plugin_that_joins_later_is_noticed_at_the_next_experience():
    stream, trained = plain_benchmark().train_stream, strategy(random_replay())
    trained.train(stream[0])
    trained.plugins.append(ReplayPlugin(20))
    with pytest.raises(ValueError, match="ReplayPlugin keeps real images"):
        trained.train(stream[1])


# ---------------------------------------------------------------- what no list of names can know


class Serving(SupervisedPlugin, supports_distributed=True):
    """Puts real images in the memory's place, at one of the hooks."""

    def __init__(self, hook):
        super().__init__()
        setattr(self, hook, self.serve)

    def serve(self, strategy, **kwargs):
        strategy.dataloader = torch.utils.data.DataLoader(strategy.experience.dataset, batch_size=4)


@pytest.mark.parametrize("hook", ["before_training_exp", "before_training_epoch"])
def test_real_images_in_the_memory_s_place_are_noticed(hook):
    with pytest.raises(ValueError, match="data loader is a DataLoader.*serves its own data; leave it out"):
        run(plain_benchmark(), random_replay(), Serving(hook))


def test_data_that_another_plugin_adds_after_condensing_are_noticed():
    class Adding(SupervisedPlugin, supports_distributed=True):
        def after_train_dataset_adaptation(self, strategy, **kwargs):
            strategy.adapted_dataset = strategy.adapted_dataset.subset(range(4))

    with pytest.raises(ValueError, match="changed the data after they were condensed; list it before"):
        run(plain_benchmark(), random_replay(), Adding())
    plugin = random_replay(1)
    run(plain_benchmark(toy_pixels(2, 10), steps=1), Adding(), plugin)  # listed before, it is heeded
    assert plugin.experiences == 1


# ---------------------------------------------------------------- regularisation towards the last weights

HOLDERS = {
    "EWCPlugin": lambda: EWCPlugin(1.0),
    "LwFPlugin": LwFPlugin,
    "MASPlugin": MASPlugin,
    "SynapticIntelligencePlugin": lambda: SynapticIntelligencePlugin(0.1),
}


@pytest.mark.parametrize(("name", "make"), HOLDERS.items(), ids=HOLDERS)
def test_what_holds_the_last_weights_is_warned_of_once_and_trains(name, make, caplog):
    plugin, spy = random_replay(augment=None), Spy()
    with caplog.at_level(logging.WARNING, "clreplay"):
        run(nc(), plugin, make(), spy)
    assert [r.getMessage().split(" has no")[0] for r in caplog.records] == [
        f"{name}: holding the model to what it was after the last experience"
    ]
    assert all(stored(spy.images(1), plugin.memory.images))


def test_a_plain_strategy_is_not_warned_of(caplog):
    with caplog.at_level(logging.WARNING, "clreplay"):
        run(nc(), random_replay(), model=SimpleMLP(num_classes=4, input_size=3 * 8 * 8, hidden_size=8))
    assert caplog.records == []
