"""Networks of the condensation literature, by class and by name; each gives an embedding and style taps."""

from clreplay.networks.alexcifarnet import AlexCifarNet
from clreplay.networks.alexnet import AlexNet
from clreplay.networks.any_module import register_module
from clreplay.networks.base import Network
from clreplay.networks.convnet import ConvNet
from clreplay.networks.lenet import LeNet
from clreplay.networks.mlp import MLP
from clreplay.networks.redraw import FlatParameters, reinitialize
from clreplay.networks.resnet import ResNet18
from clreplay.networks.search_space import search_space
from clreplay.networks.table import build_network, network_names, register_network
from clreplay.networks.vgg import VGG11

__all__ = [
    "MLP",
    "AlexCifarNet",
    "AlexNet",
    "ConvNet",
    "FlatParameters",
    "LeNet",
    "Network",
    "ResNet18",
    "VGG11",
    "build_network",
    "network_names",
    "register_module",
    "register_network",
    "reinitialize",
    "search_space",
]
