"""The gradient through unrolled training against the graph of all steps, and what it holds at a time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clreplay.condensation.distillation.learned_steps import step_loss
from clreplay.condensation.distillation.unrolled_gradient import walk, walk_back
from clreplay.networks import ConvNet
from clreplay.networks.flat_function import FlatFunction


def plain_walk(loss, start, batches, step_sizes):
    """Unrolled training with the graph of all steps kept, as one would write it down."""
    weights = start
    for t in range(len(step_sizes)):
        images, labels = batches[t % len(batches)]
        (gradient,) = torch.autograd.grad(loss(weights, images, labels), weights, create_graph=True)
        weights = weights - step_sizes[t] * gradient
    return weights


def double_function(**options):
    network = ConvNet(3, 2, 8, **{"width": 4, "depth": 2, "activation": "swish", **options}).double()
    function = FlatFunction(network)
    return function, function.xavier_normal(torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize(
    "options",
    [{}, {"activation": "relu"}, {"norm": "batch"}, {"norm": "layer"}, {"norm": "none", "pooling": "max"}],
    ids=str,
)
@pytest.mark.parametrize("sizes", [[3, 3], [3, 2, 1]], ids=str)
def test_the_backward_walk_equals_the_plain_unrolled_backward(options, sizes):
    function, start = double_function(**options)
    loss = step_loss(function)
    chance = torch.Generator().manual_seed(1)
    images = [torch.randn(n, 2, 8, 8, dtype=torch.float64, generator=chance).requires_grad_() for n in sizes]
    labels = [torch.arange(n) for n in sizes]
    batches = list(zip(images, labels))
    steps = torch.rand(7, dtype=torch.float64, generator=chance).requires_grad_()
    test = torch.randn(9, 2, 8, 8, dtype=torch.float64, generator=chance), torch.arange(9) % 3

    end = plain_walk(loss, start.clone().requires_grad_(), batches, steps)
    objective = loss(end, *test)
    expected = torch.autograd.grad(objective, [*images, steps])

    path = walk(loss, start, batches, steps)
    assert len(path) == 8 and not any(weights.requires_grad for weights in path)
    torch.testing.assert_close(path[-1], end.detach(), rtol=1e-12, atol=1e-12)
    last = path[-1].clone().requires_grad_()
    value = loss(last, *test)
    torch.testing.assert_close(value, objective, rtol=1e-12, atol=1e-12)
    to_images, to_steps = walk_back(loss, path, batches, steps, torch.autograd.grad(value, last)[0])
    assert all(gradient.abs().max() > 1e-4 for gradient in expected)
    for found, wanted in zip([*to_images, to_steps], expected):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 1000))
def test_the_backward_walk_of_a_quadratic_loss_is_the_formula(steps, batches, seed):
    """loss = |w - x|^2 / 2 moves w to (1 - eta) w + eta x, so all gradients are known in closed form."""
    chance = torch.Generator().manual_seed(seed)
    images = torch.randn(batches, 1, 4, dtype=torch.float64, generator=chance)
    sizes = torch.rand(steps, dtype=torch.float64, generator=chance)
    start, end = torch.randn(2, 4, dtype=torch.float64, generator=chance)

    def loss(weights, image, labels):
        return (weights - image[0]).square().sum() / 2

    taken = [(image, torch.zeros(1)) for image in images]
    path = walk(loss, start, taken, sizes)
    to_images, to_sizes = walk_back(loss, path, taken, sizes, end)
    weights, expected_images = start, torch.zeros_like(images)
    for t in range(steps):
        image = images[t % batches, 0]
        later = end * torch.prod(1 - sizes[t + 1 :])
        torch.testing.assert_close(to_sizes[t], later @ (image - weights))
        expected_images[t % batches, 0] += later * sizes[t]
        weights = (1 - sizes[t]) * weights + sizes[t] * image
    torch.testing.assert_close(path[-1], weights)
    torch.testing.assert_close(torch.stack(to_images), expected_images)


def test_the_activations_of_one_step_are_held_at_a_time():
    """What autograd keeps between two steps is nothing: the most held at once does not grow with the steps."""
    function, start = double_function()
    batch = torch.randn(3, 2, 8, 8, dtype=torch.float64), torch.arange(3)
    most = {}
    for steps in (2, 12):
        held, peak = [0], [0]

        class Held:
            def __init__(self, tensor, count=held, top=peak):
                self.tensor, self.count = tensor, count
                count[0] += tensor.numel()
                top[0] = max(top[0], count[0])

            def __del__(self):
                self.count[0] -= self.tensor.numel()

        sizes = torch.full((steps,), 0.1, dtype=torch.float64)
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda kept: kept.tensor):
            path = walk(step_loss(function), start, [batch], sizes)
            walk_back(step_loss(function), path, [batch], sizes, torch.ones_like(start))
        most[steps] = peak[0]
    assert 0 < most[12] <= most[2]
