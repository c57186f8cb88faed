"""AlexNet against a slow one."""

import pytest
from network_helpers import assert_equals_slow, quads, relu


def slow_alexnet(layers, images, norm):
    maps = images
    for padding, pooled, tapped in ((2, 1, 1), (2, 1, 1), (1, 0, 0), (1, 0, 0), (1, 1, 0)):
        maps = layers.conv(maps, padding)
        maps = relu(layers.norm(maps) if norm else maps)
        maps = quads(maps).amax(0) if pooled else maps
        maps = layers.tap(maps) if tapped else maps
    return maps.flatten(1)


@pytest.mark.parametrize("name", ["AlexNet", "AlexNetBN"])
def test_it_equals_a_slow_network_in_value_and_gradient(name):
    assert_equals_slow(name, slow_alexnet, norm="BN" in name)
