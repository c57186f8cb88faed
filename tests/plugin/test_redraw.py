"""Which models the plugin can start anew, and what it says about the others."""

import logging

import pytest
import torch
from plugin_helpers import Spy, TinyNet, plain_benchmark, random_replay, run, strategy, weights
from torch import nn

from clreplay.plugin.replay import CondensedReplayPlugin


class OwnScale(TinyNet):
    """Owns a parameter and has no way to reset it."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return super().forward(images) * self.scale


class ResettableScale(OwnScale):
    def reset_parameters(self):
        nn.init.ones_(self.scale)


class ScaledLinear(nn.Linear):
    """Inherits a way to reset its weights, which forgets the scale."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, features):
        return super().forward(features) * self.scale


class InheritedReset(TinyNet):
    def __init__(self):
        super().__init__()
        self.classifier = ScaledLinear(4, 4)


class WeightNormed(TinyNet):
    def __init__(self):
        super().__init__()
        self.classifier = nn.utils.weight_norm(self.classifier)


class Parametrised(TinyNet):
    def __init__(self):
        super().__init__()
        self.classifier = nn.utils.parametrizations.weight_norm(self.classifier)


def from_scratch(model):
    """What a user passes as ``reinitialize=``: weights and statistics of a newly made model."""
    model.load_state_dict(type(model)().state_dict())


def never(real, counts, settings, **rest):
    raise AssertionError("nothing may be condensed for a model that cannot be started anew")


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("model", "named"),
    [
        (OwnScale, r"the model \(OwnScale\): it owns scale and has no reset_parameters"),
        (Parametrised, r"'classifier.parametrizations.weight' \(ParametrizationList\): it owns original0, original1"),
        (InheritedReset, r"classifier.scale: no reset_parameters"),
        (WeightNormed, r"classifier.weight_g, classifier.weight_v: no reset_parameters"),
    ],
)
def test_a_model_that_would_keep_learned_weights_is_refused_before_any_work(model, named):
    made = model()
    before = weights(made)
    plugin = CondensedReplayPlugin(never, 2)
    with pytest.raises(TypeError, match=f"cannot re-initialise {named}.*reinitialize="):
        strategy(plugin, model=made).train(plain_benchmark().train_stream[0])
    assert torch.equal(weights(made), before)
    assert len(plugin.memory) == 0


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("model", [OwnScale, Parametrised, InheritedReset, WeightNormed])
def test_a_redraw_of_one_s_own_serves_any_model(model):
    spy = Spy()
    run(plain_benchmark(), random_replay(reinitialize=from_scratch), spy, model=model())
    first, second = spy.starts
    assert not torch.equal(first["weights"], second["weights"])
    assert torch.equal(second["buffers"]["norm.running_mean"], torch.zeros(4))
    assert second["optimized"] == second["parameters"]


def test_a_module_with_its_own_reset_is_accepted():
    spy = Spy()
    model = ResettableScale()
    run(plain_benchmark(), random_replay(), spy, model=model)
    assert [start["weights"][0] for start in spy.starts] == [1, 1]
    assert model.scale != 1


def test_a_redraw_of_one_s_own_has_the_plugin_s_chance():
    # The same seed, other global chance: a redraw that uses PyTorch's global generator is keyed all the same.
    results = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        spy = Spy()
        run(plain_benchmark(), random_replay(reinitialize=from_scratch), spy, model=OwnScale())
        results.append([start["weights"] for start in spy.starts])
    assert all(torch.equal(one, other) for one, other in zip(*results))


def test_a_redraw_may_keep_what_the_user_wants_kept():
    model = TinyNet()
    kept = model.conv.weight.detach().clone()
    spy = Spy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    plugin = random_replay(reinitialize=lambda m: m.classifier.reset_parameters())
    run(plain_benchmark(), plugin, spy, model=model, optimizer=optimizer)
    assert torch.equal(model.conv.weight, kept)


def test_a_redraw_that_replaces_parameters_is_refused():
    # The optimizer would go on moving the old ones.
    def replace(model):
        model.classifier = nn.Linear(4, 4)

    with pytest.raises(TypeError, match="replaced instead of redrawn in place"):
        run(plain_benchmark(), random_replay(reinitialize=replace))


def frozen_backbone(model):
    """The model with everything but its classifier frozen."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("classifier" in name)
    return model


def test_frozen_parameters_keep_their_values_and_the_others_are_drawn_anew():
    # What cannot be trained again would else be random for ever.
    model, spy = frozen_backbone(TinyNet()), Spy()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    run(plain_benchmark(), random_replay(), spy, model=model)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == ("classifier" not in name), name
    assert not torch.equal(spy.starts[0]["weights"], spy.starts[1]["weights"])


def test_trainable_parameters_are_drawn_as_if_nothing_were_frozen():
    spies = [Spy(), Spy()]
    for spy, model in zip(spies, (TinyNet(), frozen_backbone(TinyNet()))):
        run(plain_benchmark(), random_replay(), spy, model=model)
    count = sum(p.numel() for p in TinyNet().classifier.parameters())
    assert torch.equal(spies[0].starts[0]["weights"][-count:], spies[1].starts[0]["weights"][-count:])


def test_frozen_parameters_are_told_of_once(caplog):
    with caplog.at_level(logging.WARNING, "clreplay"):
        run(plain_benchmark(), random_replay(), model=frozen_backbone(TinyNet()))
    assert [r.getMessage() for r in caplog.records] == [
        "conv.weight, conv.bias, norm.weight, norm.bias: not trained (requires_grad is False), so they keep their "
        "values at every experience; all others are drawn anew"
    ]


def test_a_frozen_parameter_needs_no_way_to_be_reset():
    model = OwnScale()
    model.scale.requires_grad_(False).fill_(2.0)
    run(plain_benchmark(), random_replay(), model=model)
    assert model.scale == 2


def test_a_redraw_of_one_s_own_may_write_into_frozen_parameters():
    model = frozen_backbone(TinyNet())
    plugin = random_replay(reinitialize=lambda m: nn.init.ones_(m.conv.weight))
    run(plain_benchmark(), plugin, model=model)
    assert torch.equal(model.conv.weight, torch.ones_like(model.conv.weight))


def test_checking_the_model_leaves_its_statistics_and_frozen_parameters_as_they_are():
    model = TinyNet()
    model.conv.weight.requires_grad_(False)
    spy = Spy()
    run(plain_benchmark(), random_replay(), spy, model=model)
    assert not model.conv.weight.requires_grad
    assert not any(torch.isnan(start["weights"]).any() for start in spy.starts)
