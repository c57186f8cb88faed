"""The settings that name a network and its options; recipes and ``condense`` take them."""

from dataclasses import asdict, fields, replace

import pytest
import torch
from torch import nn

from clreplay import condense
from clreplay.condensation import METHODS
from clreplay.condensation.matching.settings import MatchingSettings
from clreplay.networks import ConvNet, build_network, network_names
from clreplay.networks.redraw import parameter_count
from clreplay.networks.settings import NetworkSettings
from clreplay.recipes.recipe import RecipeError, load_recipe, training_settings
from clreplay.training.settings import TrainingSettings


def test_settings_build_their_network_and_leave_the_global_chance_alone(global_chance_untouched):
    settings = NetworkSettings(width=4, depth=2, norm="batch", activation="swish", pooling="max")
    with global_chance_untouched():
        network = settings.build(5, 1, 16)
    assert (network.num_classes, network.channels, network.image_size) == (5, 1, 16)
    assert (network.width, network.depth, network.norm) == (4, 2, "batch")
    assert isinstance(network.blocks[0].activation, nn.SiLU) and isinstance(network.blocks[0].pool, nn.MaxPool2d)
    assert NetworkSettings(width=4).build(5, 3, 64).depth == 4


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


def test_recipes_take_a_network_and_leave_out_a_small_preset_s_width_where_it_has_none():
    assert training_settings("paper", {"network": "ResNet18"}).network == "resnet18"
    assert load_recipe("ddm").settings("paper", {"network": "vgg-11"}).network == "vgg11"
    small = training_settings("cpu", {"network": "resnet18"})
    assert (small.width, small.updates) == (128, training_settings("cpu").updates)
    assert training_settings("cpu", {"network": "convnetbn"}).width == training_settings("cpu").width == 32
    assert (
        load_recipe("dm").settings("cpu", {"network": "vgg11"}).iterations
        == load_recipe("dm").settings("cpu").iterations
    )
    with pytest.raises(RecipeError, match="training.yaml: width must stay at 128 with network ResNet18.* got 64"):
        training_settings("cpu", {"network": "resnet18", "width": 64})
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
