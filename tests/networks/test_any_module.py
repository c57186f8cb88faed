"""A module of one's own to condense with: hooks give what its layers compute one by one, and its gradients."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torchvision
from torch import nn

from clreplay import condense
from clreplay.condensation.configured import ConfiguredMethod
from clreplay.networks import FlatParameters, build_network, register_module, table
from clreplay.recipes import load_recipe


@pytest.fixture(autouse=True)
def table_as_it_was(monkeypatch):
    monkeypatch.setattr(table, "NETWORKS", dict(table.NETWORKS))


def resnet(classes, channels, size):
    network = torchvision.models.resnet18(num_classes=classes)
    network.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    return network


class Small(nn.Module):
    """Modules, one of them used twice, with a head of two layers."""

    def __init__(self, classes, channels, size):
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.act = nn.GroupNorm(6, 6), nn.ReLU(inplace=True)
        self.head = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, classes))

    def forward(self, images):
        maps = self.act(self.norm(self.second(self.act(self.first(images)))))
        return self.head(maps.mean((2, 3)))


def by_hand(network, images):
    """Embedding and maps of torchvision's ResNet-18, layer by layer."""
    maps = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    first = network.layer1(maps)
    second = network.layer2(first)
    return network.avgpool(network.layer4(network.layer3(second))).flatten(1), [first, second]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("embedding", ["avgpool", None], ids=["named", "found"])
def test_a_hooked_resnet_gives_what_its_layers_compute_and_their_gradients(training, embedding):
    register_module("tv-resnet18", resnet, embedding=embedding, style=["layer1", "layer2"])
    hooked = build_network("TV ResNet18", 10, 3, 32).train(training)
    plain = copy.deepcopy(hooked.module)
    images = torch.randn(3, 3, 32, 32)
    results = []
    for features in (hooked.features, lambda x: by_hand(plain, x)):
        shown = images.clone().requires_grad_()
        embedding_, maps = features(shown)
        loss = embedding_.square().sum() + sum((one.mean((2, 3)) ** 3).sum() for one in maps)
        loss.backward()
        results.append([embedding_, *maps, shown.grad])
    assert len(results[0]) == 4
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert hooked.embedding_size == 512
    torch.testing.assert_close(hooked.eval()(images), plain.eval()(images))
    torch.testing.assert_close(hooked.classifier(hooked.embedding(images)), hooked(images))


def test_maps_are_found_at_activations_whatever_is_done_in_place():
    register_module("small", Small)
    network = build_network("small", 4, 3, 8)
    embedding, maps = network.features(torch.randn(2, 3, 8, 8))
    assert embedding.shape == (2, 5)  # what the last linear layer reads
    assert [tuple(one.shape) for one in maps] == [(2, 6, 8, 8)] * 2
    assert not torch.equal(*maps) and all(float(one.min()) == 0 for one in maps)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels_and_any_method_that_names_a_network(pixels, channels):
    register_module("small", Small, images=(channels, 8))
    images, labels = pixels(2, 8, channels=channels)
    settings = {"network": "small", "device": "cpu", "iterations": 2, "real_batch": 4}
    for method, more in (("dm", {"width": 128}), ("ddm", {"width": 128})):
        memory = condense(images, labels, method, 2, preset="smoke", **{**settings, **more})
        assert torch.isfinite(memory.images).all() and memory.images.shape == (4, channels, 8, 8)
        assert not torch.equal(memory.images, condense(images, labels, "random", 2, device="cpu").images)


def test_a_module_of_ours_condenses_as_the_original(pixels):
    class Copied(nn.Module):
        def __init__(self, classes, channels, size):
            super().__init__()
            self.inner = build_network("convnet", classes, channels, size, width=4, depth=2)

        def forward(self, images):
            return self.inner(images)

    register_module("copied", Copied)
    images, labels = pixels(3)
    settings = {"preset": "smoke", "device": "cpu", "iterations": 3, "real_batch": 6, "kernels": "eager"}
    ours = condense(images, labels, "ddm", 2, width=4, depth=2, **settings)
    hooked = condense(images, labels, "ddm", 2, network="copied", width=128, **settings, **depth_of("ddm"))
    torch.testing.assert_close(hooked.images, ours.images, rtol=1e-4, atol=1e-4)


def depth_of(method):
    """What the preset of a memory says of ConvNet's depth is left at its default for other networks."""
    return {"depth": None} if load_recipe(method).configured("smoke", {}).settings.depth is not None else {}


def test_threads_do_not_catch_one_another_s_maps():
    register_module("small", Small)
    network = build_network("small", 4, 3, 8)
    images = [torch.full((2, 3, 8, 8), float(level)) for level in range(40)]
    alone = [network.features(one) for one in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(network.features, images))
    for (embedding, maps), (other, others) in zip(alone, together):
        assert torch.equal(embedding, other) and all(map(torch.equal, maps, others))


def test_a_copy_and_a_pickle_catch_their_own_maps():
    register_module("small", Small)
    network = build_network("small", 4, 3, 8)
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.module.first.weight.zero_()
    images = torch.randn(2, 3, 8, 8)
    before = network.features(images)[1][0]
    assert not torch.equal(other.features(images)[1][0], before)
    assert torch.equal(network.features(images)[1][0], before)
    hooks = pickle.loads(pickle.dumps(network.module))
    assert torch.equal(hooks(images), network(images))


def test_batch_norm_is_told_to_all_that_must_know_of_it():
    register_module("tv-resnet18", resnet)
    register_module("small", Small)
    assert load_recipe("dm").configured("paper", {"network": "tv-resnet18"}).settings.norm == "batch"
    mixing, apart = (load_recipe("dm").configured("paper", {"network": name}) for name in ("tv-resnet18", "small"))
    assert not mixing.separable() and apart.separable()
    assert not apart.cacheable()  # a change of the user's code would go unseen
    assert isinstance(apart, ConfiguredMethod) and load_recipe("dm").configured("paper", {}).cacheable()
    FlatParameters(build_network("tv-resnet18", 1)).redraw(torch.Generator().manual_seed(0))


class NoLinear(nn.Module):
    def __init__(self, classes, channels, size):
        super().__init__()
        self.conv = nn.Conv2d(channels, classes, 3)

    def forward(self, images):
        return self.conv(images).relu().mean((2, 3))


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        (NoLinear, {}, "NoLinear has no linear layer that would read an embedding; name the module .* one of conv"),
        (
            resnet,
            {"embedding": "avgpol"},
            "embedding names 'avgpol', which is no part of ResNet; did you mean 'avgpool'",
        ),
        (resnet, {"style": ["layer9"]}, "style names 'layer9', which is no part of ResNet"),
        (resnet, {"style": "layer1"}, "style must be a list of paths, or None to find maps, got 'layer1'"),
        (resnet, {"style": ["fc"]}, r"style must name modules that give \(n, c, h, w\), got \(2, 2\)"),
        (resnet, {"embedding": "layer1.0.relu"}, "'layer1.0.relu' gave 2 embeddings of 2 images in one forward"),
        (lambda *images: "net", {}, "the factory must give a module, got str"),
        (
            lambda classes, channels, size: Small(classes, 4, size),
            {},
            r"Small cannot take images of shape \(3, 32, 32\)",
        ),
    ],
)
def test_what_cannot_be_found_is_one_error_with_the_cure(factory, options, message):
    with pytest.raises(ValueError, match=message):
        register_module("mine", factory, **options)


def test_maps_that_are_not_there_are_missed_only_where_they_are_read(pixels):
    register_module("mine", NoLinear, embedding="conv", images=(3, 8))
    images, labels = pixels(2)
    settings = {"network": "mine", "width": 128, "preset": "smoke", "device": "cpu", "iterations": 1}
    assert len(condense(images, labels, "dm", 2, **settings)) == 4
    with pytest.raises(
        ValueError, match="this network gives no maps for a term to read; name the modules that give them"
    ):
        condense(images, labels, "ddm", 2, **settings)
    register_module("other", Small)
    with pytest.raises(ValueError, match="gives the maps that style names, not those at .* of every block"):
        condense(images, labels, "ddm-second", 2, **{**settings, "network": "other"})


def test_a_factory_is_given_height_and_width_where_they_differ():
    given = []

    def factory(classes, channels, size):
        given.append(size)
        return Small(classes, channels, size)

    register_module("pairs", factory)
    network = build_network("pairs", 3, 2, (24, 40))
    assert given == [32, (24, 40)] and network.embedding_size == 5
    assert network(torch.randn(2, 2, 24, 40)).shape == (2, 3)
    images, labels = torch.randint(0, 256, (8, 2, 24, 40), dtype=torch.uint8), torch.arange(2).repeat(4)
    memory = condense(images, labels, "dm", images_per_class=1, network="pairs", iterations=1, preset="smoke",
                      real_batch=2, progress=False, device="cpu")  # fmt: skip
    assert memory.images.shape == (2, 2, 24, 40)
