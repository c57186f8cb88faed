"""ResNet-18 against a slow one; the stages that give taps."""

import pytest
import torch
from network_helpers import assert_equals_slow, quads, relu

from clreplay.networks import build_network


def slow_resnet(layers, images, average_pooling):
    maps = layers.tap(relu(layers.norm(layers.conv(images, 1))))
    for width in (64, 128, 256, 512):
        for block in range(2):
            shrinks = width > 64 and block == 0
            stride = 2 if shrinks and not average_pooling else 1
            inside = relu(layers.norm(layers.conv(maps, 1, stride)))
            inside = quads(inside).mean(0) if shrinks and average_pooling else inside
            inside = layers.norm(layers.conv(inside, 1))
            if shrinks:
                maps = layers.conv(maps, 0, stride)
                maps = layers.norm(quads(maps).mean(0) if average_pooling else maps)
            maps = relu(inside + maps)
        if width <= 128:
            layers.tap(maps)
    if not average_pooling:
        maps = torch.stack([maps[:, :, i : i + 1, j : j + 1] for i in range(4) for j in range(4)]).mean(0)
    return maps.flatten(1)


@pytest.mark.parametrize("name", ["ResNet18", "ResNet18BN", "ResNet18_AP", "ResNet18BN_AP"])
def test_it_equals_a_slow_network_in_value_and_gradient(name):
    assert_equals_slow(name, slow_resnet, average_pooling="AP" in name)


@pytest.mark.parametrize("stages", [0, 1, 4])
def test_resnet_taps_the_stages_it_is_asked_for(stages):
    with torch.device("meta"):
        taps = build_network("ResNet18", 10, tapped_stages=stages).taps(torch.empty(1, 3, 32, 32))
    shapes = [(64, 32), (64, 32), (128, 16), (256, 8), (512, 4)]
    assert [tuple(tap.shape[1:]) for tap in taps] == [(width, size, size) for width, size in shapes[: 1 + stages]]
