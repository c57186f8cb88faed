"""Every network small and in double precision, and what their slow versions share."""

import torch
import torch.nn.functional as F
from torch import nn

from clreplay.networks import build_network

# The smallest image that is quick and not trivial; odd sizes where a pooling can drop or keep a row.
SIZES = {
    "MLP": 5,
    "LeNet": 18,
    "AlexNet": 17,
    "AlexNetBN": 16,
    "VGG11": 33,
    "VGG11BN": 32,
    "ResNet18": 25,
    "ResNet18BN": 25,
    "ResNet18_AP": 18,
    "ResNet18BN_AP": 9,
    "AlexCifarNet": 9,
    "ConvNet": 9,
    "ConvNetBN": 8,
    "ConvNetLN": 8,
    "ConvNetGN": 8,
    "ConvNetNN": 8,
}
BATCH_NORM = [name for name in SIZES if "BN" in name]
NORMS = nn.GroupNorm | nn.BatchNorm2d | nn.LayerNorm


def double(name, **options):
    """A float64 network whose norm layers are not at their trivial start."""
    network = build_network(name, 3, image_size=SIZES[name], **options).double()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, NORMS):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    return network


def pictures(name, n=2, dtype=torch.float64):
    return torch.randn(n, 3, SIZES[name], SIZES[name], dtype=dtype)


class Layers:
    """The network's layers in the order in which the data meets them."""

    def __init__(self, network, batch_norm):
        def of(*kinds):
            return iter([module for module in network.modules() if isinstance(module, kinds)])

        self.convs, self.norms, self.linears = of(nn.Conv2d), of(nn.GroupNorm, nn.BatchNorm2d), of(nn.Linear)
        self.over = (0, 2, 3) if batch_norm else (2, 3)
        self.taps = []

    def conv(self, maps, padding, stride=1):
        layer = next(self.convs)
        return F.conv2d(maps, layer.weight, layer.bias, stride, padding)

    def norm(self, maps):
        layer, mean = next(self.norms), maps.mean(self.over, keepdim=True)
        variance = (maps - mean).square().mean(self.over, keepdim=True)
        scaled = (maps - mean) / (variance + 1e-5).sqrt()
        return scaled * layer.weight[:, None, None] + layer.bias[:, None, None]

    def linear(self, values):
        layer = next(self.linears)
        return values @ layer.weight.T + layer.bias

    def tap(self, maps):
        self.taps.append(maps)
        return maps


def relu(maps):
    return torch.where(maps > 0, maps, 0.0)


def quads(maps):
    even = maps[:, :, : maps.shape[2] // 2 * 2, : maps.shape[3] // 2 * 2]
    return torch.stack([even[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)])


def assert_equals_slow(name, slow_embedding, **options):
    """The network's logits, embedding, taps and gradient are those of ``slow_embedding(layers, images)``."""
    network, images = double(name), pictures(name).requires_grad_()
    layers = Layers(network, name in BATCH_NORM)
    expected = slow_embedding(layers, images, **options)
    logits = layers.linear(expected)
    for rest in (layers.convs, layers.norms, layers.linears):
        assert next(rest, None) is None, "the network has layers that the slow one does not have"
    embedding, taps = network.features(images)
    found = [network.classifier(embedding), embedding, *taps]
    wanted = [logits, expected, *layers.taps]
    torch.testing.assert_close(found, wanted)
    weights = [torch.randn_like(tensor) for tensor in wanted]
    losses = [sum((w * t).sum() for w, t in zip(weights, tensors)) for tensors in (found, wanted)]
    fast, slow = (torch.autograd.grad(loss, images)[0] for loss in losses)
    torch.testing.assert_close(fast, slow, rtol=1e-6, atol=1e-8)
    assert all(gradient.abs().max() > 0 for gradient in slow), "every image must matter"
