"""LeNet against a slow one."""

from network_helpers import assert_equals_slow, quads, relu


def slow_lenet(layers, images):
    maps = images
    for _ in range(2):
        maps = quads(layers.tap(relu(layers.conv(maps, 0)))).amax(0)
    return relu(layers.linear(relu(layers.linear(maps.flatten(1)))))


def test_it_equals_a_slow_network_in_value_and_gradient():
    assert_equals_slow("LeNet", slow_lenet)
