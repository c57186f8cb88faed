"""Gradients of gradients, class by class: together as one after another, and as finite differences say."""

import copy

import pytest
import torch
from mixed import mixed

from clreplay.condensation import METHODS, ConfiguredMethod
from clreplay.condensation.gradient_matching.class_gradients import class_gradients
from clreplay.condensation.gradient_matching.settings import GradientSettings
from clreplay.losses.gradient_distance import DISTANCES, gradient_distance, is_compared
from clreplay.networks import ConvNet


def image_gradients(network, goal, images, targets, together, distance):
    names = [name for name, p in network.named_parameters() if is_compared(p, distance)]
    images = images.clone().requires_grad_()
    own = class_gradients(network, names, images, targets, together, differentiable=True)
    theirs = class_gradients(network, names, goal, targets, together)
    assert not any(tensor.requires_grad for tensor in theirs)
    values = gradient_distance(theirs, own, distance)
    return values.detach(), torch.autograd.grad(values.sum(), images)[0], own


@pytest.fixture
def three_classes(double):
    chance = torch.Generator().manual_seed(1)
    return [torch.randn(3, n, 3, 8, 8, generator=chance) for n in (5, 2)], torch.tensor([2, 0, 1])


@pytest.mark.parametrize(
    "options",
    [{"norm": norm} for norm in ("instance", "batch", "group", "none")]
    + [{"pooling": "max"}, {"pooling": "none"}, {"activation": "swish"}, {"activation": "sigmoid"}]
    + [{"image_size": 9}, {"image_size": 9, "pooling": "max"}],
    ids=str,
)
def test_classes_together_equal_one_after_another(three_classes, options):
    (goal, images), targets = three_classes
    size = options.get("image_size", 8)  # an odd side takes another way through the pooling
    goal, images = (torch.nn.functional.pad(t, (0, size - 8, 0, size - 8), value=0.3) for t in (goal, images))
    network = ConvNet(3, 3, **{"image_size": 8, "width": 4, "depth": 2, **options})
    if options.get("norm") == "batch":
        network(goal.flatten(0, 1))
    network.eval()
    before = copy.deepcopy(network.state_dict())
    for distance in DISTANCES:
        alone, together = (image_gradients(network, goal, images, targets, t, distance) for t in (False, True))
        torch.testing.assert_close(together[0], alone[0], rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(together[1], alone[1], rtol=1e-8, atol=1e-10)
        for one, other in zip(together[2], alone[2]):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("distance", DISTANCES)
def test_the_image_gradient_is_the_slope_of_the_distance(three_classes, distance, together):
    (goal, images), targets = three_classes
    network = ConvNet(3, 3, 8, 4, 2, activation="swish")  # smooth, unlike ReLU: no corner to step over
    _, slope, _ = image_gradients(network, goal, images, targets, together, distance)
    for seed in range(3):
        direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
        ahead, behind = (
            image_gradients(network, goal, images + step * direction, targets, together, distance)[0].sum()
            for step in (1e-5, -1e-5)
        )
        assert float((slope * direction).sum()) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-5)


def test_layer_norm_is_matched_class_after_class(three_classes):
    (goal, images), targets = three_classes
    network = ConvNet(3, 3, 8, 4, 2, norm="layer", activation="swish")
    _, slope, _ = image_gradients(network, goal, images, targets, False, "row_cosine")
    ahead, behind = (
        image_gradients(network, goal, images + step * images, targets, False, "row_cosine")[0].sum()
        for step in (1e-5, -1e-5)
    )
    assert float((slope * images).sum()) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-5)
    with pytest.raises(ValueError, match="together must be false or null with norm='layer', got True"):
        ConfiguredMethod(METHODS["gradient_matching"], *mixed(GradientSettings(), norm="layer", together=True))
