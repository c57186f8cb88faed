"""AlexNet, VGG-11, ResNet-18, MLP, LeNet and AlexCifarNet against slow networks; taps, sizes, norms, redraws."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clreplay.networks import FlatParameters, build_network, reinitialize
from clreplay.networks.redraw import check_redrawable, parameter_count
from clreplay.runtime.seeding import generator

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
}
BATCH_NORM = [name for name in SIZES if "BN" in name]
every_network = pytest.mark.parametrize("name", SIZES)


def double(name, **options):
    """A float64 network whose norm layers are not at their trivial start."""
    network = build_network(name, 3, image_size=SIZES[name], **options).double()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.GroupNorm | nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    return network


def pictures(name, n=2, dtype=torch.float64):
    return torch.randn(n, 3, SIZES[name], SIZES[name], dtype=dtype)


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("name", "channels", "image_size", "count"),
    [
        ("ResNet18", 3, 32, 11_173_962),
        ("ResNet18BN", 3, 32, 11_173_962),
        ("ResNet18", 3, 64, 11_173_962 + 10 * (2048 - 512)),
        ("ResNet18", 3, 128, 11_173_962 + 10 * (8192 - 512)),
        ("ResNet18", 1, 28, 11_173_962 - 2 * 64 * 9),
        ("ResNet18_AP", 3, 32, 11_173_962 + 10 * (512 * 16 - 512)),
        ("ResNet18BN_AP", 3, 32, 11_173_962 + 10 * (512 * 16 - 512)),
        ("ResNet18_AP", 1, 28, 11_173_962 - 2 * 64 * 9 + 10 * (512 * 9 - 512)),
        ("VGG11", 3, 32, 9_231_114),
        ("VGG11BN", 3, 32, 9_231_114),
        ("VGG11", 3, 64, 9_231_114 + 10 * (2048 - 512)),
        ("VGG11", 3, 128, 9_231_114 + 10 * (8192 - 512)),
        ("VGG11", 1, 28, 9_231_114 - 2 * 64 * 9),
        ("AlexNet", 3, 32, 1_872_202),
        ("AlexNetBN", 3, 32, 1_872_202 + 2 * (128 + 192 + 256 + 192 + 192)),
        ("AlexNet", 3, 64, 1_872_202 + 10 * 192 * (64 - 16)),
        ("AlexNet", 1, 28, 1_872_202 - 2 * 128 * 25),
        ("AlexNet", 1, 8, 1_872_202 - 2 * 128 * 25 - 10 * 192 * 15),
        ("LeNet", 3, 32, 62_006),
        ("LeNet", 1, 28, 61_706),
        ("MLP", 3, 32, 411_146),
        ("MLP", 1, 28, 118_282),
        ("MLP", 1, 8, 118_282 - 128 * (784 - 64)),
        ("AlexCifarNet", 3, 32, 1_756_426),
        ("ConvNet", 3, 64, 320_010 + 128 * 128 * 9 + 3 * 128),
        ("ConvNet", 3, 128, 320_010 + 2 * (128 * 128 * 9 + 3 * 128)),
        ("ConvNet", 1, 28, 320_010 - 2 * 128 * 9),
        ("ConvNet", 1, 8, 320_010 - 2 * 128 * 9 - 10 * 128 * 15),
    ],
)
def test_parameter_counts_are_the_known_ones(name, channels, image_size, count):
    with torch.device("meta"):
        assert parameter_count(build_network(name, 10, channels, image_size)) == count


@every_network
def test_the_embedding_has_the_size_that_it_says_whatever_the_images(name):
    for channels, image_size in ((1, 28), (1, 32), (3, 33), (3, 39), (3, 71)):
        with torch.device("meta"):
            network = build_network(name, 7, channels, image_size)
            images = torch.empty(2, channels, image_size, image_size)
            assert network.embedding(images).shape == (2, network.embedding_size)


@pytest.mark.parametrize(
    ("name", "image_size", "embedding", "taps"),
    [
        ("AlexNet", 32, 3072, [(128, 16), (192, 8)]),
        ("AlexNet", 28, 3072, [(128, 16), (192, 8)]),
        ("VGG11", 32, 512, [(64, 32), (128, 16), (256, 8), (256, 8), (512, 4), (512, 4), (512, 2), (512, 2)]),
        ("VGG11", 28, 512, [(64, 32), (128, 16), (256, 8), (256, 8), (512, 4), (512, 4), (512, 2), (512, 2)]),
        ("VGG11", 64, 2048, [(64, 64), (128, 32), (256, 16), (256, 16), (512, 8), (512, 8), (512, 4), (512, 4)]),
        ("ResNet18", 32, 512, [(64, 32), (64, 32), (128, 16)]),
        ("ResNet18", 64, 2048, [(64, 64), (64, 64), (128, 32)]),
        ("ResNet18BN_AP", 32, 8192, [(64, 32), (64, 32), (128, 16)]),
        ("LeNet", 32, 84, [(6, 28), (16, 10)]),
        ("LeNet", 28, 84, [(6, 28), (16, 10)]),
        ("AlexCifarNet", 32, 192, [(64, 32), (64, 16)]),
        ("AlexCifarNet", 28, 192, [(64, 32), (64, 16)]),
        ("MLP", 28, 128, [(128, 1), (128, 1)]),
    ],
)
def test_taps_and_embeddings_have_the_shapes_of_the_literature(name, image_size, embedding, taps):
    with torch.device("meta"):
        found, maps = build_network(name, 10, image_size=image_size).features(torch.empty(1, 3, image_size, image_size))
    assert found.shape == (1, embedding)
    assert [tuple(tap.shape[1:]) for tap in maps] == [(width, size, size) for width, size in taps]


@pytest.mark.parametrize("stages", [0, 1, 4])
def test_resnet_taps_the_stages_it_is_asked_for(stages):
    with torch.device("meta"):
        taps = build_network("ResNet18", 10, tapped_stages=stages).taps(torch.empty(1, 3, 32, 32))
    shapes = [(64, 32), (64, 32), (128, 16), (256, 8), (512, 4)]
    assert [tuple(tap.shape[1:]) for tap in taps] == [(width, size, size) for width, size in shapes[: 1 + stages]]


# ---------------------------------------------------------------- slow networks


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


def slow_mlp(layers, images):
    values = images.flatten(1)
    for _ in range(2):
        values = relu(layers.linear(values))
        layers.tap(values.view(len(values), -1, 1, 1))
    return values


def slow_lenet(layers, images):
    maps = images
    for _ in range(2):
        maps = quads(layers.tap(relu(layers.conv(maps, 0)))).amax(0)
    return relu(layers.linear(relu(layers.linear(maps.flatten(1)))))


def slow_alexnet(layers, images, norm):
    maps = images
    for padding, pooled, tapped in ((2, 1, 1), (2, 1, 1), (1, 0, 0), (1, 0, 0), (1, 1, 0)):
        maps = layers.conv(maps, padding)
        maps = relu(layers.norm(maps) if norm else maps)
        maps = quads(maps).amax(0) if pooled else maps
        maps = layers.tap(maps) if tapped else maps
    return maps.flatten(1)


def slow_vgg(layers, images):
    maps = images
    for entry in "64 M 128 M 256 256 M 512 512 M 512 512 M".split():
        maps = quads(maps).amax(0) if entry == "M" else layers.tap(relu(layers.norm(layers.conv(maps, 1))))
        assert entry == "M" or maps.shape[1] == int(entry)
    return maps.flatten(1)


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


def slow_network(name, layers, images):
    if name.startswith("AlexNet"):
        return slow_alexnet(layers, images, norm="BN" in name)
    if name.startswith("ResNet18"):
        return slow_resnet(layers, images, average_pooling="AP" in name)
    others = {"MLP": slow_mlp, "LeNet": slow_lenet, "AlexCifarNet": slow_alexcifarnet}
    return others.get(name, slow_vgg)(layers, images)


@every_network
def test_every_network_equals_a_slow_one_in_value_and_gradient(name):
    network, images = double(name), pictures(name).requires_grad_()
    layers = Layers(network, name in BATCH_NORM)
    expected = slow_network(name, layers, images)
    logits = layers.linear(expected)
    for rest in (layers.convs, layers.norms, layers.linears):
        assert next(rest, None) is None, "the network has layers that the slow one has not"
    embedding, taps = network.features(images)
    found = [network.classifier(embedding), embedding, *taps]
    wanted = [logits, expected, *layers.taps]
    torch.testing.assert_close(found, wanted)
    weights = [torch.randn_like(tensor) for tensor in wanted]
    losses = [sum((w * t).sum() for w, t in zip(weights, tensors)) for tensors in (found, wanted)]
    fast, slow = (torch.autograd.grad(loss, images)[0] for loss in losses)
    torch.testing.assert_close(fast, slow, rtol=1e-6, atol=1e-8)
    assert all(gradient.abs().max() > 0 for gradient in slow), "every image must matter"


@pytest.mark.parametrize("name", ["AlexNet", "VGG11", "LeNet", "AlexCifarNet"])
def test_digits_of_28_pixels_are_what_the_same_picture_with_a_margin_of_two_is(name):
    narrow, wide = (build_network(name, 3, 1, size).double() for size in (28, 32))
    wide.load_state_dict(narrow.state_dict())
    digits = torch.randn(2, 1, 28, 28, dtype=torch.float64)
    torch.testing.assert_close(narrow(digits), wide(F.pad(digits, (2, 2, 2, 2))))


# ---------------------------------------------------------------- taps


@every_network
def test_taps_are_post_activation_and_nothing_writes_over_them(name):
    """Pre-pooling too, but for AlexNet, whose taps are the first two pooled maps."""
    network = double(name)
    kind = nn.MaxPool2d if name.startswith("AlexNet") else nn.ReLU
    inputs, outputs = [], []
    for module in network.modules():
        if isinstance(module, kind):
            module.register_forward_hook(lambda m, args, out: inputs.append((args[0], args[0].clone())))
            module.register_forward_hook(lambda m, args, out: outputs.append((out, out.clone())))
    taps = network.taps(pictures(name))
    assert len(taps) >= 2
    assert all(torch.equal(tensor, copy) for tensor, copy in [*inputs, *outputs]), "something writes in place"
    by_place = {out.data_ptr(): copy for out, copy in outputs}
    assert all(torch.equal(tap.flatten(), by_place[tap.data_ptr()].flatten()) for tap in taps)
    assert all((tap >= 0).all() and (tap > 0).any() for tap in taps)
    if kind is nn.ReLU:
        assert (torch.stack([(before < 0).any() for before, _ in inputs])).all(), "no activation is idle"


@every_network
def test_embedding_taps_features_and_logits_agree(name):
    network, images = double(name).eval(), pictures(name)
    embedding, taps = network.features(images)
    assert torch.equal(network.embedding(images), embedding)
    assert all(torch.equal(one, other) for one, other in zip(network.taps(images), taps, strict=True))
    assert torch.equal(network(images), network.classifier(embedding))
    assert isinstance(network.classifier, nn.Linear)
    assert network.classifier.in_features == network.embedding_size


# ---------------------------------------------------------------- norms


@every_network
def test_only_batch_norm_lets_an_image_see_the_others(name):
    network, images = double(name), pictures(name, 3)
    kinds = {type(module) for module in network.modules()} & {nn.GroupNorm, nn.BatchNorm2d}
    together, alone = network(images), network(images[:2])[:1]
    if name in BATCH_NORM:
        assert kinds == {nn.BatchNorm2d}
        assert not torch.allclose(together[:1], alone)
        assert not torch.allclose(network.eval()(images), together)
        torch.testing.assert_close(network(images)[:1], network(images[:2])[:1])
    else:
        assert kinds == ({nn.GroupNorm} if name.startswith(("VGG", "ResNet18")) else set())
        torch.testing.assert_close(together[:1], alone)
        torch.testing.assert_close(network.eval()(images), together)


@pytest.mark.parametrize("name", ["VGG11", "ResNet18", "ResNet18_AP"])
def test_instance_norm_has_one_group_a_channel_and_a_scale_and_shift(name):
    norms = [module for module in build_network(name, 2).modules() if isinstance(module, nn.GroupNorm)]
    assert len(norms) == (8 if name == "VGG11" else 20)
    assert all(norm.num_groups == norm.num_channels and norm.affine and norm.eps == 1e-5 for norm in norms)


@every_network
def test_gradients_reach_every_parameter(name):
    network = double(name)
    F.cross_entropy(network(pictures(name)), torch.tensor([0, 2])).backward()
    for where, parameter in network.named_parameters():
        gradient = parameter.grad
        assert gradient is not None and gradient.isfinite().all(), where
        shifts_before_a_norm = name.startswith(("VGG", "AlexNetBN")) and parameter.ndim == 1
        assert shifts_before_a_norm or gradient.abs().max() > 0, where


# ---------------------------------------------------------------- fresh weights


def distance_from_uniform(values, bound):
    """Kolmogorov and Smirnov's statistic, scaled: above 2.5 has a probability of 7e-6 if the draw is uniform."""
    ordered = (values.double().sort().values / bound + 1) / 2
    steps = torch.arange(len(values) + 1, dtype=torch.float64) / len(values)
    return float(torch.maximum((steps[1:] - ordered).max(), (ordered - steps[:-1]).max())) * math.sqrt(len(values))


@every_network
def test_both_ways_of_drawing_anew_give_pytorch_s_default(name, global_chance_untouched):
    network = build_network(name, 10, image_size=SIZES[name])
    check_redrawable(network)
    with global_chance_untouched():
        reinitialize(network, 5)
        first = [p.detach().clone() for p in network.parameters()]
        flat = FlatParameters(network)
        flat.redraw(generator(0))
    owners = dict(network.named_modules())
    for values, (where, parameter) in zip(first, network.named_parameters(), strict=True):
        owner, _, kind = where.rpartition(".")
        for drawn in (values.flatten(), parameter.flatten()):
            if isinstance(owners[owner], nn.GroupNorm | nn.BatchNorm2d):
                assert torch.equal(drawn, torch.full_like(drawn, 1.0 if kind == "weight" else 0.0)), where
            else:
                bound = 1 / math.sqrt(math.prod(owners[owner].weight.shape[1:]))
                assert drawn.abs().max() <= bound * (1 + 1e-6), where
                # Float32 holds fewer different numbers than millions of draws: some of them say enough.
                assert distance_from_uniform(drawn[:20_000], bound) < 2.5, where
        assert kind == "bias" or parameter.ndim == 1 or not torch.equal(values, parameter)


@pytest.mark.parametrize("name", BATCH_NORM)
def test_both_ways_of_drawing_anew_forget_batch_norm_s_statistics(name):
    def statistics():
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        return all((m.running_mean == 0).all() and (m.running_var == 1).all() for m in norms)

    network = build_network(name, 10, image_size=SIZES[name])
    network(pictures(name, 4, torch.float32) + 3)
    assert not statistics()
    reinitialize(network, 0)
    assert statistics()
    flat = FlatParameters(network)
    flat.redraw(generator(0))
    network(pictures(name, 4, torch.float32) + 3)
    flat.redraw(generator(1))
    assert statistics()


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("AlexNet", {"image_size": 7}, "AlexNet needs images of at least 8 pixels, got 7"),
        ("VGG11", {"image_size": 31}, "VGG11 needs images of at least 32 pixels, or of 28, .*got 31"),
        ("VGG11BN", {"image_size": 8}, "VGG11 needs images of at least 32 pixels.*got 8"),
        ("ResNet18", {"image_size": 24}, "ResNet18 with instance norm needs images of at least 25 pixels, got 24"),
        ("ResNet18_AP", {"image_size": 15}, "instance norm and average pooling needs .* at least 16 pixels, got 15"),
        ("ResNet18BN_AP", {"image_size": 7}, "batch norm and average pooling needs .* at least 8 pixels, got 7"),
        ("LeNet", {"image_size": 15}, "LeNet needs images of at least 16 pixels, got 15"),
        ("MLP", {"image_size": 0}, "image_size must be at least 1, got 0"),
        ("MLP", {"channels": 0}, "channels must be at least 1, got 0"),
        ("AlexCifarNet", {"classes": 0}, "num_classes must be at least 1, got 0"),
        ("AlexNet", {"norm": "instance"}, "norm of AlexNet must be one of none, batch, got 'instance'"),
        ("VGG11", {"norm": "none"}, "norm of VGG11 must be one of instance, batch, got 'none'"),
        ("ResNet18", {"norm": "layer"}, "norm of ResNet18 must be one of instance, batch, got 'layer'"),
        ("ResNet18", {"tapped_stages": 5}, r"tapped_stages must be within 0\.\.4, got 5"),
    ],
)
def test_a_network_that_cannot_work_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_network(name, **{"classes": 2, **options})


@every_network
def test_the_smallest_image_that_is_allowed_works(name):
    """One pixel less is refused, but for the networks that take any size; and no image is mapped to a constant."""
    smallest = {"MLP": 1, "AlexCifarNet": 1, "LeNet": 16, "AlexNet": 8, "AlexNetBN": 8, "VGG11": 32, "VGG11BN": 32}
    smallest |= {"ResNet18": 25, "ResNet18BN": 25, "ResNet18_AP": 16, "ResNet18BN_AP": 8}
    size = smallest[name]
    network = build_network(name, 3, image_size=size).double()
    logits = network(torch.randn(4, 3, size, size, dtype=torch.float64))
    assert logits.std(0).min() > 1e-6
    if size > 1:
        with pytest.raises(ValueError, match=f"got {size - 1}"):
            build_network(name, 3, image_size=size - 1)
