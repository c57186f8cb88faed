"""VGG-11 against a slow one."""

import pytest
from network_helpers import assert_equals_slow, quads, relu


def slow_vgg(layers, images):
    maps = images
    for entry in "64 M 128 M 256 256 M 512 512 M 512 512 M".split():
        maps = quads(maps).amax(0) if entry == "M" else layers.tap(relu(layers.norm(layers.conv(maps, 1))))
        assert entry == "M" or maps.shape[1] == int(entry)
    return maps.flatten(1)


@pytest.mark.parametrize("name", ["VGG11", "VGG11BN"])
def test_it_equals_a_slow_network_in_value_and_gradient(name):
    assert_equals_slow(name, slow_vgg)
