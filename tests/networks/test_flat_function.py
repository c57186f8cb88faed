"""A network as a function of one vector of weights."""

import math

import pytest
import torch

from clreplay.networks import ConvNet
from clreplay.networks.flat_function import FlatFunction


def test_a_flat_function_is_the_network():
    network = ConvNet(5, 3, 8, width=4, depth=2)
    images = torch.randn(2, 3, 8, 8)
    weights = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    expected = network(images).detach()
    function = FlatFunction(network)
    assert function.size == len(weights)
    assert torch.equal(function(weights, images), expected)
    doubled = function.module(2 * weights)
    assert torch.equal(doubled(images), function(2 * weights, images))
    assert not torch.equal(doubled(images), expected)


def test_xavier_weights_have_the_published_spread():
    network = ConvNet(40, 8, 8, width=64, depth=2)
    function = FlatFunction(network)
    function.module(function.xavier_normal(torch.Generator().manual_seed(0)))
    first, second = network.blocks
    for layer, fan_in, fan_out in (
        (first.conv, 8 * 9, 64 * 9),
        (second.conv, 64 * 9, 64 * 9),
        (network.classifier, 256, 40),
    ):
        assert float(layer.weight.std()) == pytest.approx(math.sqrt(2 / (fan_in + fan_out)), rel=0.03)
        assert abs(float(layer.weight.mean())) < 4 * float(layer.weight.std()) / math.sqrt(layer.weight.numel())
        assert not layer.bias.any()
    assert (first.norm.weight == 1).all() and not first.norm.bias.any()


def test_other_layers_are_refused():
    with pytest.raises(TypeError, match="cannot draw weight of a PReLU"):
        FlatFunction(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.PReLU()))
