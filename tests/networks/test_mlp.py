"""The multilayer perceptron against a slow one."""

from network_helpers import assert_equals_slow, relu


def slow_mlp(layers, images):
    values = images.flatten(1)
    for _ in range(2):
        values = relu(layers.linear(values))
        layers.tap(values.view(len(values), -1, 1, 1))
    return values


def test_it_equals_a_slow_network_in_value_and_gradient():
    assert_equals_slow("MLP", slow_mlp)
