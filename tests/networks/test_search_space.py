"""The space of 720 ConvNets."""

from itertools import product

import torch

from clreplay.networks import build_network, search_space
from clreplay.training.settings import TrainingSettings


def test_the_search_space_is_the_grid_of_720():
    members = list(search_space())
    assert len(members) == 720
    assert {tuple(member.items()) for member in members} == {
        (("width", w), ("depth", d), ("norm", n), ("activation", a), ("pooling", p))
        for w, d, n, a, p in product(
            (32, 64, 128, 256),
            (1, 2, 3, 4),
            ("none", "batch", "layer", "instance", "group"),
            ("sigmoid", "relu", "leakyrelu"),
            ("none", "max", "avg"),
        )
    }
    assert list(search_space()) == members


def test_every_member_of_the_search_space_is_a_network_of_its_own():
    with torch.device("meta"):
        built = {str(build_network("ConvNet", 10, **options)) for options in search_space()}
    assert len(built) == 720
    assert len({TrainingSettings(**options) for options in search_space()}) == 720
