"""Fresh weights in place, for whole models and for the flat buffer."""

import math

import pytest
import torch
from network_helpers import BATCH_NORM, NORMS, SIZES, pictures
from torch import nn

from clreplay.networks import ConvNet, FlatParameters, build_network, reinitialize
from clreplay.networks.redraw import check_redrawable, parameter_count
from clreplay.runtime.seeding import generator

# ---------------------------------------------------------------- both ways, every network


def distance_from_uniform(values, bound):
    """Kolmogorov and Smirnov's statistic, scaled: above 2.5 has a probability of 7e-6 if the draw is uniform."""
    ordered = (values.double().sort().values / bound + 1) / 2
    steps = torch.arange(len(values) + 1, dtype=torch.float64) / len(values)
    return float(torch.maximum((steps[1:] - ordered).max(), (ordered - steps[:-1]).max())) * math.sqrt(len(values))


@pytest.mark.parametrize("name", SIZES)
def test_both_ways_of_drawing_anew_give_pytorch_s_default(name, global_chance_untouched):
    network = build_network(name, 10, image_size=SIZES[name])
    check_redrawable(network)
    with global_chance_untouched():
        reinitialize(network, 5)
        first = [p.detach().clone() for p in network.parameters()]
        flat = FlatParameters(network)
        flat.redraw(generator(0))
    owners = dict(network.named_modules())
    for values, (where, parameter) in zip(first, network.named_parameters(), strict=True):
        owner, _, kind = where.rpartition(".")
        for drawn in (values.flatten(), parameter.flatten()):
            if isinstance(owners[owner], NORMS):
                assert torch.equal(drawn, torch.full_like(drawn, 1.0 if kind == "weight" else 0.0)), where
            else:
                bound = 1 / math.sqrt(math.prod(owners[owner].weight.shape[1:]))
                assert drawn.abs().max() <= bound * (1 + 1e-6), where
                # Float32 holds fewer different numbers than millions of draws: some of them say enough.
                assert distance_from_uniform(drawn[:20_000], bound) < 2.5, where
        assert isinstance(owners[owner], NORMS) or not torch.equal(values, parameter)


@pytest.mark.parametrize("name", BATCH_NORM)
def test_both_ways_of_drawing_anew_forget_batch_norm_s_statistics(name):
    def forgotten():
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        fresh = [(m.running_mean == 0).all() and (m.running_var == 1).all() for m in norms]
        return all(fresh) and not any(m.num_batches_tracked for m in norms)

    network = build_network(name, 10, image_size=SIZES[name])
    network(pictures(name, 4, torch.float32) + 3)
    assert not forgotten()
    reinitialize(network, 0)
    assert forgotten()
    flat = FlatParameters(network)
    flat.redraw(generator(0))
    network(pictures(name, 4, torch.float32) + 3)
    flat.redraw(generator(1))
    assert forgotten()


# ---------------------------------------------------------------- FlatParameters


def test_a_redraw_is_keyed_and_leaves_no_trace_of_the_last_one(global_chance_untouched):
    network = ConvNet(2, image_size=8, width=4)
    flat = FlatParameters(network)
    with global_chance_untouched():
        flat.redraw(generator(0))
        first = flat.buffer.clone()
        flat.redraw(generator(1))
        second = flat.buffer.clone()
        flat.buffer.fill_(float("nan"))
        flat.redraw(generator(0))
    assert torch.equal(flat.buffer, first)
    assert not torch.equal(first, second)


def test_parameters_stay_views_of_the_buffer():
    network = ConvNet(3, image_size=8, width=4)
    flat = FlatParameters(network)
    flat.redraw(generator(0))
    assert flat.buffer.numel() == parameter_count(network)
    assert torch.equal(torch.cat([p.flatten() for p in network.parameters()]), flat.buffer)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    images = torch.randn(2, 3, 8, 8)
    before = network(images)
    flat.redraw(generator(1))
    assert torch.equal(torch.cat([p.flatten() for p in network.parameters()]), flat.buffer)
    assert not torch.allclose(network(images), before)


def test_the_flat_buffer_refuses_layers_it_cannot_redraw():
    with pytest.raises(TypeError, match="cannot redraw weight of a Embedding"):
        FlatParameters(nn.Sequential(nn.Linear(2, 2), nn.Embedding(2, 2)))


# ---------------------------------------------------------------- reinitialize


class Scale(nn.Module):
    """Owns a parameter and does not know how to reset it."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_reinitialize_draws_every_parameter_and_statistic_anew_in_place():
    model = ConvNet(4, image_size=8, width=4, norm="batch")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    model.train()(torch.randn(4, 3, 8, 8) + 3)
    identities = [id(parameter) for parameter in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    reinitialize(model, 5)
    assert [id(parameter) for parameter in model.parameters()] == identities
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == identities
    assert not any((parameter == 7).any() for parameter in model.parameters())
    for block in model.blocks:
        assert torch.equal(block.norm.running_mean, torch.zeros(4))
        assert torch.equal(block.norm.running_var, torch.ones(4))
        assert block.norm.num_batches_tracked == 0
        assert torch.equal(block.norm.weight, torch.ones(4))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_reinitialize_is_a_function_of_its_seed_alone():
    models = [ConvNet(4, image_size=8, width=4) for _ in range(3)]
    for model, seed in zip(models, (5, 5, 6)):
        torch.rand(3)
        reinitialize(model, seed)
    assert all(torch.equal(a, b) for a, b in zip(state(models[0]).values(), state(models[1]).values()))
    assert not torch.equal(models[0].classifier.weight, models[2].classifier.weight)


def test_reinitialize_leaves_the_global_chance_alone(global_chance_untouched, monkeypatch):
    reseeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", reseeded.append)
    model = nn.Linear(3, 2)
    with global_chance_untouched():
        reinitialize(model, 1)
        reinitialize(model, 1, custom=lambda m: nn.init.normal_(m.weight))
    assert not reseeded, "a model on the CPU must not reseed the GPUs"


def test_reinitialize_leaves_the_global_chance_alone_even_if_it_fails(global_chance_untouched):
    def fail(model):
        nn.init.normal_(model.weight)
        raise RuntimeError("no")

    model = nn.Linear(3, 2)
    with global_chance_untouched(), pytest.raises(RuntimeError, match="no"):
        reinitialize(model, 1, custom=fail)


def test_a_module_that_cannot_reset_is_named_and_the_model_left_untouched():
    model = nn.Sequential(nn.Linear(3, 3), nn.ModuleDict({"gain": Scale()}))
    before = state(model)
    with pytest.raises(TypeError, match=r"cannot re-initialise '1.gain' \(Scale\): it owns scale.*reinitialize="):
        reinitialize(model, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(model).items())
    with pytest.raises(TypeError, match=r"the model \(Scale\)"):
        reinitialize(Scale(), 0)


def test_a_custom_redraw_gets_the_model_and_a_keyed_chance():
    model = Scale()
    identity = id(model.scale)

    def redraw(same):
        assert same is model
        same.scale.uniform_(-1, 1)  # no torch.no_grad() needed

    reinitialize(model, 3, custom=redraw)
    first = model.scale.detach().clone()
    reinitialize(model, 4, custom=redraw)
    assert not torch.equal(model.scale, first)
    reinitialize(model, 3, custom=redraw)
    assert torch.equal(model.scale, first)
    assert id(model.scale) == identity


class ZeroHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def reset_parameters(self):
        nn.init.zeros_(self.head.weight)


def test_a_parent_has_the_last_word_about_its_children():
    model = ZeroHead()
    reinitialize(model, 0)
    assert torch.equal(model.head.weight, torch.zeros(2, 3))


# ---------------------------------------------------------------- parameters without gradient


def moved(model):
    """The model with sevens for weights and with statistics that are not those of the start."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    model.train()(torch.randn(4, 3, 8, 8) + 3)
    return model


def test_frozen_parameters_and_their_norm_s_statistics_are_kept_if_that_is_asked_for():
    model = moved(ConvNet(4, image_size=8, width=4, norm="batch"))
    model.blocks[0].requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_redrawable(model, keep_frozen=True)
    reinitialize(model, 5, keep_frozen=True)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("blocks.0."), name


def test_of_a_module_that_is_frozen_in_part_only_that_part_is_kept():
    model = moved(ConvNet(4, image_size=8, width=4, norm="batch"))
    norm = model.blocks[0].norm
    norm.weight.requires_grad_(False)
    reinitialize(model, 5, keep_frozen=True)
    assert (norm.weight == 7).all() and (norm.bias == 0).all()
    assert torch.equal(norm.running_mean, torch.zeros(4))


def test_frozen_parameters_are_drawn_anew_otherwise():
    models = [moved(ConvNet(4, image_size=8, width=4)) for _ in range(2)]
    models[1].requires_grad_(False)
    for model in models:
        reinitialize(model, 5)
    assert all(torch.equal(a, b) for a, b in zip(state(models[0]).values(), state(models[1]).values()))


def test_what_a_parent_s_reset_does_to_a_frozen_child_is_put_back():
    model = ZeroHead()
    model.head.requires_grad_(False)
    before = model.head.weight.clone()
    reinitialize(model, 0, keep_frozen=True)
    assert torch.equal(model.head.weight, before)
