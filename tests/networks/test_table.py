"""Networks by name: the table, the settings that name one, and the space of 720 ConvNets."""

import pytest
import torch
from torch import nn

from clreplay.networks import ConvNet, ResNet18, build_network, network_names, register_network, table
from clreplay.networks.base import Network
from clreplay.networks.settings import NetworkSettings

# ---------------------------------------------------------------- names


@pytest.mark.parametrize("name", network_names())
def test_every_name_builds_a_network_that_says_what_it_stands_for(name):
    network = build_network(name, 4)
    images = torch.randn(2, 3, 32, 32)
    embedding, taps = network.features(images)
    assert embedding.shape == (2, network.embedding_size) and taps
    assert network.classifier(embedding).shape == (2, 4)
    kinds = {type(module) for module in network.modules()}
    assert ("BN" in name) == (nn.BatchNorm2d in kinds)
    if name.startswith("ConvNetW"):
        assert network.width == int(name[8:])
    if name.startswith("ConvNetD"):
        assert network.depth == len(taps) == int(name[8:])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ConvNetAS", nn.Sigmoid),
        ("ConvNetAR", nn.ReLU),
        ("ConvNetAL", nn.LeakyReLU),
        ("ConvNetASwish", nn.SiLU),
        ("ConvNetASwishBN", nn.SiLU),
        ("ConvNetLN", nn.LayerNorm),
        ("ConvNetMP", nn.MaxPool2d),
    ],
)
def test_variants_of_the_convnet_have_their_layer(name, kind):
    assert any(isinstance(module, kind) for module in build_network(name, 2).modules())


def test_variants_by_norm_and_pooling_are_the_convnet_with_that_option():
    options = {"NN": {"norm": "none"}, "IN": {}, "GN": {"norm": "group"}, "AP": {}, "NP": {"pooling": "none"}}
    for suffix, chosen in options.items():
        network, expected = build_network(f"ConvNet{suffix}", 2, width=8), ConvNet(2, width=8, **chosen)
        assert str(network) == str(expected)


@pytest.mark.parametrize("name", ["ResNet18_AP", "resnet18ap", "RESNET-18-AP", "ResNet18 AP"])
def test_case_hyphens_and_underscores_do_not_matter(name):
    network = build_network(name, 5, 1, 16)
    assert isinstance(network, ResNet18) and network.embedding_size == 2048


def test_options_beside_the_name_s_own_reach_the_network():
    assert build_network("ConvNetBN", 2, width=8, depth=1).width == 8
    assert build_network("ConvNetBN", 2, width=8, norm="batch").norm == "batch"
    assert len(build_network("ResNet18BN", 2, tapped_stages=3).stages) == 4


def test_the_pools_across_architectures_are_in_the_table_and_of_one_kind_of_norm():
    assert {name for pool in table.POOLS.values() for name in pool} <= set(network_names())
    for kind, names in table.POOLS.items():
        for name in names:
            has = any(isinstance(module, nn.BatchNorm2d) for module in build_network(name, 2).modules())
            assert has == (kind == "batch")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnt18", {}, r"unknown network 'resnt18'; did you mean 'ResNet18'\? Known: .*AlexNetBN"),
        ("transformer", {}, r"unknown network 'transformer'\. Known: .*VGG11BN"),
        ("", {}, "unknown network ''"),
        ("AlexNet", {"width": 64}, r"AlexNet has no option 'width' \(got 64\); it has norm"),
        ("MLP", {"norm": "batch"}, "MLP has no option 'norm' .*; it has no options"),
        ("ConvNet", {"widht": 64}, "ConvNet has no option 'widht' .*; it has width, depth, norm, activation, pooling"),
        ("ConvNetBN", {"norm": "none"}, "ConvNetBN stands for norm 'batch', got 'none'; leave norm out"),
        ("ConvNetD4", {"depth": None}, "ConvNetD4 stands for depth 4, got None"),
        ("ResNet18_AP", {"average_pooling": False}, "stands for average_pooling True, got False"),
        ("VGG11", {"norm": "layer"}, "norm of VGG11 must be one of instance, batch"),
        ("ConvNetGN", {"width": 6}, "width must be a multiple of 4"),
        ("AlexNet", {"image_size": 4}, "AlexNet needs images of at least 8 pixels, got 4"),
    ],
)
def test_a_wrong_name_or_option_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_network(name, 2, **options)


class Mean(Network):
    """The mean colour."""

    def __init__(self, num_classes, channels=3, image_size=32, scale=1.0):
        super().__init__(num_classes, channels, image_size)
        self.scale, self.embedding_size = scale, channels
        self.classifier = nn.Linear(channels, num_classes)

    def _embed(self, images, tap):
        tap(images.relu())
        return self.scale * images.mean((2, 3))


@pytest.fixture
def a_table_of_its_own(monkeypatch):
    monkeypatch.setattr(table, "_TABLE", dict(table._TABLE))


def test_a_network_of_one_s_own_is_found_by_its_names(a_table_of_its_own):
    assert register_network("Mean_Colour")(Mean) is Mean
    register_network("MeanColour2", scale=2.0)(Mean)
    assert network_names()[-2:] == ["Mean_Colour", "MeanColour2"]
    images = torch.randn(2, 3, 4, 4)
    one, two = (build_network(name, 3).embedding(images) for name in ("meancolour", "MeanColour2"))
    assert torch.equal(two, 2 * one)
    assert isinstance(NetworkSettings(network="mean-colour").build(3, 3, 4), Mean)


def test_a_name_that_is_taken_and_an_option_that_is_not_there_are_refused(a_table_of_its_own):
    for taken in ("ConvNet", "conv-net", "resnet18_bn"):
        with pytest.raises(ValueError, match=f"network '{taken}' is registered already"):
            register_network(taken)(Mean)
    with pytest.raises(ValueError, match="Mean has no option 'width'"):
        register_network("Mean", width=3)(Mean)
    assert "Mean" not in network_names()
