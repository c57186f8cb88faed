"""Networks by name: the table, the settings that name one, and the space of 720 ConvNets."""

from dataclasses import asdict, fields, replace
from itertools import product

import pytest
import torch
from torch import nn

from clreplay import condense
from clreplay.condensation import METHODS
from clreplay.condensation.matching.settings import MatchingSettings
from clreplay.networks import ConvNet, ResNet18, build_network, network_names, register_network, search_space, table
from clreplay.networks.base import TAP_POINTS, Network
from clreplay.networks.redraw import parameter_count
from clreplay.networks.settings import NetworkSettings
from clreplay.recipes.recipe import RecipeError, load_recipe, training_settings
from clreplay.training.settings import TrainingSettings

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


@pytest.mark.parametrize("name", network_names())
def test_every_network_gives_as_many_maps_at_every_point_of_its_blocks_in_one_pass(name):
    network = build_network(name, 4).eval()
    images = torch.randn(2, 3, 32, 32)
    embedding, at = network.features_at(images, TAP_POINTS)
    plain, taps = network.features(images)
    assert torch.equal(embedding, plain) and [*at] == [*TAP_POINTS]
    assert len({len(maps) for maps in at.values()}) == 1
    for conv, norm, act, pool, tap in zip(*at.values(), taps):
        assert torch.equal(act, tap) and conv.shape == norm.shape
        assert conv.shape[:2] == act.shape[:2] == pool.shape[:2]
        assert conv.shape[2] >= act.shape[2] >= pool.shape[2]
    if "NN" not in name and name.startswith("ConvNet") and "BN" not in name and "LN" not in name and "GN" not in name:
        for maps in at["norm"]:  # instance norm: every image's channels have mean 0 and variance 1
            torch.testing.assert_close(maps.mean((2, 3)), torch.zeros(maps.shape[:2]), atol=1e-4, rtol=0)
    assert network.features_at(images, ())[1] == {}


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


def test_a_network_of_one_s_own_that_taps_activations_only_cannot_be_read_elsewhere():
    class Own(Network):
        def __init__(self):
            super().__init__(2, 3, 8)
            self.conv, self.classifier = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def _embed(self, images, tap):
            maps = self.conv(images).relu()
            tap(maps)
            return maps.mean((2, 3))

    images = torch.randn(2, 3, 8, 8)
    assert len(Own().features(images)[1]) == 1
    with pytest.raises(ValueError, match="Own gives different numbers of maps at tap points: .*'conv': 0"):
        Own().features_at(images, ("act", "conv"))


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


# ---------------------------------------------------------------- settings


def test_the_defaults_of_the_settings_are_those_of_the_convnet():
    """An option at its default is left to the network: here both must mean the same."""
    settings = NetworkSettings()
    assert str(settings.build(4, 3, 32)) == str(ConvNet(4))
    assert [field.name for field in fields(NetworkSettings)][0] == "network"
    assert settings.network == "convnet"


@pytest.mark.parametrize("name", network_names())
def test_every_name_is_a_setting(name):
    settings = TrainingSettings(network=name)
    assert settings.network == name.lower()
    network, expected = settings.build(4, 3, 32), build_network(name, 4)
    assert str(network) == str(expected) and parameter_count(network) == parameter_count(expected)
    assert TrainingSettings(**asdict(settings)) == settings == replace(settings)


@pytest.mark.parametrize(
    "name", ["ConvNetBN", "AlexNetBN", "VGG11BN", "ResNet18BN", "ResNet18BN_AP", "ConvNetASwishBN"]
)
def test_batch_norm_in_the_name_is_batch_norm_in_the_settings(name):
    """The engine and the cache ask ``norm`` whether the images of a batch see each other."""
    settings = MatchingSettings(network=name)
    assert settings.norm == "batch"
    assert not METHODS["matching"].separable(settings)


@pytest.mark.parametrize("name", ["AlexNet", "VGG11", "ResNet18", "MLP", "LeNet", "AlexCifarNet"])
def test_without_batch_norm_classes_stay_apart(name):
    settings = MatchingSettings(network=name)
    assert METHODS["matching"].separable(settings)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in settings.build(2, 3, 32).modules())


@pytest.mark.parametrize("name", ["AlexNet", "VGG11", "ResNet18"])
def test_norm_chooses_the_batch_norm_version_too(name):
    chosen = NetworkSettings(network=name, norm="batch").build(2, 3, 32)
    assert str(chosen) == str(build_network(f"{name}BN", 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "resnet"}, "unknown network 'resnet'; did you mean 'ResNet18'"),
        (
            {"network": "alexnet", "width": 64},
            "width must stay at 128 with network AlexNet, which has no width; got 64",
        ),
        ({"network": "resnet18", "depth": 3}, "depth must stay at None with network ResNet18"),
        ({"network": "vgg11", "pooling": "max"}, "pooling must stay at 'avg' with network VGG11"),
        ({"network": "resnet18", "activation": "swish"}, "activation must stay at 'relu' with network ResNet18"),
        ({"network": "mlp", "norm": "batch"}, "norm must stay at 'instance' with network MLP"),
        ({"network": "vgg11", "norm": "none"}, "norm of VGG11 must be one of instance, batch, got 'none'"),
        ({"network": "convnetd4", "depth": 3}, "ConvNetD4 stands for depth 4, got 3"),
        ({"network": "convnetw64", "width": 32}, "ConvNetW64 stands for width 64, got 32"),
    ],
)
def test_a_setting_that_the_network_does_not_have_is_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        NetworkSettings(**options)


def test_settings_say_in_words_what_they_build():
    assert NetworkSettings(width=32).summary() == "ConvNet of width 32"
    assert NetworkSettings(network="convnetw64").summary() == "ConvNetW64 of width 64"
    assert NetworkSettings(network="resnet18bn").summary() == "ResNet18BN"


def test_building_leaves_the_global_chance_alone(global_chance_untouched):
    with global_chance_untouched():
        NetworkSettings(network="alexnet").build(3, 3, 16)


def test_recipes_take_a_network_and_say_what_a_small_preset_asks_of_it():
    assert training_settings("paper", {"network": "ResNet18"}).network == "resnet18"
    assert load_recipe("ddm").settings("paper", {"network": "vgg-11"}).network == "vgg11"
    with pytest.raises(RecipeError, match="training.yaml: width must stay at 128 with network ResNet18.* got 32"):
        training_settings("cpu", {"network": "resnet18"})
    assert training_settings("cpu", {"network": "resnet18", "width": 128}).updates == training_settings("cpu").updates
    with pytest.raises(RecipeError, match="dm.yaml: unknown network 'vg11'; did you mean 'VGG11'"):
        load_recipe("dm").settings("paper", {"network": "vg11"})


def test_condense_takes_a_network(pixels):
    images, labels = pixels(2, 6, size=16)
    kwargs = {"images_per_class": 2, "preset": "smoke", "iterations": 2, "width": 128}
    memory = condense(images, labels, method="dm", network="LeNet", **kwargs)
    other = condense(images, labels, method="dm", network="AlexCifarNet", **kwargs)
    assert memory.images.shape == (4, 3, 16, 16)
    assert not torch.equal(memory.images, other.images)
    herded = condense(images, labels, "herding", 2, preset="smoke", network="mlp", width=128, updates=2)
    assert len(herded.images) == 4


# ---------------------------------------------------------------- the space of 720


def test_the_search_space_is_the_grid_of_720():
    members = list(search_space())
    assert len(members) == 720
    assert {tuple(member.items()) for member in members} == {
        (("width", w), ("depth", d), ("norm", n), ("activation", a), ("pooling", p))
        for w, d, n, a, p in product(
            (32, 64, 128, 256),
            (1, 2, 3, 4),
            ("none", "batch", "layer", "instance", "group"),
            ("sigmoid", "relu", "leakyrelu"),
            ("none", "max", "avg"),
        )
    }
    assert list(search_space()) == members


def test_every_member_of_the_search_space_is_a_network_of_its_own():
    with torch.device("meta"):
        built = {str(build_network("ConvNet", 10, **options)) for options in search_space()}
    assert len(built) == 720
    assert len({TrainingSettings(**options) for options in search_space()}) == 720
