"""ConvNet against a slow reference; its options, sizes and pooling."""

import pytest
import torch
import torch.nn.functional as F

from clreplay.networks import ConvNet
from clreplay.networks.convnet import AveragePool2, default_depth
from clreplay.networks.redraw import parameter_count


@pytest.mark.parametrize(("classes", "image_size", "count"), [(100, 32, 504_420), (200, 64, 857_160)])
def test_parameter_counts_are_the_published_ones(classes, image_size, count):
    assert parameter_count(ConvNet(classes, image_size=image_size)) == count


@pytest.mark.parametrize(("image_size", "depth"), [(8, 3), (28, 3), (32, 3), (33, 4), (64, 4), (65, 5), (128, 5)])
def test_depth_follows_the_resolution(image_size, depth):
    assert default_depth(image_size) == depth
    assert len(ConvNet(2, image_size=image_size, width=1).blocks) == depth


@pytest.mark.parametrize(
    ("sides", "depth"), [((24, 40), 3), ((40, 24), 3), ((32, 64), 4), ((16, 256), 4), ((32, 256), 5), ((4, 100), 2)]
)
def test_the_depth_of_images_that_are_not_square_follows_from_their_area_and_fits_the_shorter_side(sides, depth):
    assert default_depth(sides) == depth == ConvNet(2, 1, sides, width=2).depth


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("image_size", "padding"), [(8, 1), (28, 3), (32, 1), (64, 1)])
def test_only_28_pixels_are_padded_to_32_whatever_the_channels(channels, image_size, padding):
    network = ConvNet(10, channels, image_size, width=4)
    assert network.blocks[0].conv.padding == (padding, padding)
    side = 32 if image_size == 28 else image_size
    assert network.taps(torch.zeros(1, channels, image_size, image_size))[0].shape[2:] == (side, side)


@pytest.mark.parametrize("image_size", [28, 32, 64, 128])
def test_the_embedding_has_2048_values_at_width_128(image_size):
    assert ConvNet(10, image_size=image_size).embedding_size == 2048


def double(**options):
    """A small float64 network whose norm layers are not at their trivial start."""
    network = ConvNet(5, **{"image_size": 8, "width": 8, "depth": 2, **options}).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def slow_norm(kind, maps, layer):
    n, channels, h, w = maps.shape
    if kind == "none":
        return maps
    sets = {  # which values share a mean and a variance
        "instance": [[(i, slice(c, c + 1))] for i in range(n) for c in range(channels)],
        "group": [[(i, slice(g * channels // 4, (g + 1) * channels // 4))] for i in range(n) for g in range(4)],
        "layer": [[(i, slice(0, channels))] for i in range(n)],
        "batch": [[(i, slice(c, c + 1)) for i in range(n)] for c in range(channels)],
    }[kind]
    result = torch.zeros_like(maps)
    for members in sets:
        values = torch.cat([maps[i, c].flatten() for i, c in members])
        mean = values.sum() / values.numel()
        variance = (values - mean).square().sum() / values.numel()
        for i, c in members:
            result[i, c] = (maps[i, c] - mean) / (variance + 1e-5).sqrt()
    if kind == "layer":
        return result * layer.weight + layer.bias
    return result * layer.weight[None, :, None, None] + layer.bias[None, :, None, None]


def slow_pool(kind, maps):
    if kind == "none":
        return maps
    quads = torch.stack([maps[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)])
    return quads.mean(0) if kind == "avg" else quads.amax(0)


SLOW_ACTIVATIONS = {
    "relu": lambda x: torch.where(x > 0, x, 0.0),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "leakyrelu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "swish": lambda x: x / (1 + torch.exp(-x)),
}
ALL_OPTIONS = (
    [{"norm": norm} for norm in ("instance", "batch", "layer", "group", "none")]
    + [{"activation": activation} for activation in ("sigmoid", "leakyrelu", "swish")]
    + [{"pooling": pooling} for pooling in ("max", "none")]
    + [{"channels": 1, "depth": 3}]
)


@pytest.mark.parametrize("options", ALL_OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_every_option_equals_a_slow_network_in_value_and_gradient(options):
    network = double(**options)
    images = torch.randn(3, options.get("channels", 3), 8, 8, dtype=torch.float64, requires_grad=True)
    maps, taps = images, []
    for block in network.blocks:
        maps = F.conv2d(maps, block.conv.weight, block.conv.bias, padding=1)
        maps = slow_norm(options.get("norm", "instance"), maps, block.norm)
        taps.append(SLOW_ACTIVATIONS[options.get("activation", "relu")](maps))
        maps = slow_pool(options.get("pooling", "avg"), taps[-1])
    logits = maps.flatten(1) @ network.classifier.weight.T + network.classifier.bias

    torch.testing.assert_close(network(images), logits)
    embedding, found = network.features(images)
    torch.testing.assert_close(embedding, maps.flatten(1))
    assert len(found) == len(taps)
    for one, other in zip(found, taps):
        torch.testing.assert_close(one, other)
    weights = [torch.randn_like(tensor) for tensor in [logits, *taps]]
    slow, fast = (
        sum((w * t).sum() for w, t in zip(weights, tensors)) for tensors in ([logits, *taps], [network(images), *found])
    )
    torch.testing.assert_close(*(torch.autograd.grad(loss, images)[0] for loss in (fast, slow)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "instanse"}, "norm must be one of instance, batch.*'instanse'"),
        ({"activation": "gelu"}, "activation must be one of relu.*'gelu'"),
        ({"pooling": "mean"}, "pooling must be one of avg, max, none, got 'mean'"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"image_size": 7}, "depth 3 needs images of at least 8 pixels, got 7"),
        ({"norm": "group", "width": 6}, "width must be a multiple of 4.*got 6"),
    ],
)
def test_an_impossible_network_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ConvNet(**{"num_classes": 2, "width": 4, **options})


@pytest.mark.parametrize("shape", [(2, 3, 8, 6), (2, 3, 7, 5), (1, 2, 9, 4)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_average_pooling_equals_pytorch_s(shape, layout):
    maps = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    torch.testing.assert_close(AveragePool2()(maps), F.avg_pool2d(maps, 2))
    assert torch.autograd.gradcheck(AveragePool2(), maps)
    assert torch.autograd.gradgradcheck(lambda m: AveragePool2()(m).square(), maps)
