"""The network that DD calls AlexNet against a slow one."""

import math

import torch
import torch.nn.functional as F
from network_helpers import assert_equals_slow, relu


def slow_response_norm(maps):
    """Each channel over what it and its neighbours (two before, one after) hold."""
    channels = []
    for c in range(maps.shape[1]):
        around = maps[:, max(0, c - 2) : c + 2].square().sum(1)
        channels.append(maps[:, c] / (1 + 0.001 / 9 * around / 4) ** 0.75)
    return torch.stack(channels, 1)


def slow_overlapping_pool(maps):
    padded = F.pad(maps, (1, 1, 1, 1), value=-math.inf)
    n = (maps.shape[-1] + 1) // 2
    rows = range(0, 2 * n, 2)
    return torch.stack(
        [torch.stack([padded[:, :, i : i + 3, j : j + 3].amax((2, 3)) for j in rows], -1) for i in rows], -2
    )


def slow_alexcifarnet(layers, images):
    maps = layers.tap(relu(layers.conv(images, 2)))
    maps = layers.tap(relu(layers.conv(slow_response_norm(slow_overlapping_pool(maps)), 2)))
    maps = slow_overlapping_pool(slow_response_norm(maps))
    return relu(layers.linear(relu(layers.linear(maps.flatten(1)))))


def test_it_equals_a_slow_network_in_value_and_gradient():
    assert_equals_slow("AlexCifarNet", slow_alexcifarnet)
