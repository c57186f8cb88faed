"""Small networks and settings that the tests of training share."""

from dataclasses import dataclass

import torch

from clreplay.data import Normalization
from clreplay.networks import ConvNet, reinitialize
from clreplay.training.settings import TrainingSettings

NORMALIZATION = Normalization((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
CPU = torch.device("cpu")
TINY = TrainingSettings(width=4, depth=2, updates=6, batch_size=16, lr=0.05)


@dataclass(frozen=True)
class AllSettings(TrainingSettings):
    """The settings of training, with what only some trainings make a setting."""

    nesterov: bool = False
    drop_resets_momentum: bool = True


def network_of(seed=0, classes=3, dtype=torch.float32, **options):
    with torch.random.fork_rng():
        network = ConvNet(classes, image_size=8, **{"width": 4, "depth": 2, **options})
    reinitialize(network, seed)
    return network.to(dtype)


def networks_of(count=3, dtype=torch.float32, **options):
    return [network_of(seed, dtype=dtype, **options) for seed in range(count)]


def keys_of(count=3):
    """What the trainings of :func:`networks_of` are keyed by."""
    return [(seed, "train", 0) for seed in range(count)]


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def states(networks):
    return [state(network) for network in networks]


def assert_same(found, expected, tolerance=0.0):
    """Tensors, or lists and dictionaries of them, within an absolute tolerance."""
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
