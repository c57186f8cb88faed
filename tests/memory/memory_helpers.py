"""Images, pixel codes and small memories that the tests of the memory share."""

import torch

from clreplay.data import NORMALIZATIONS
from clreplay.memory.replay_memory import ReplayMemory

NORMALIZATION = NORMALIZATIONS["cifar10"]
CPU = torch.device("cpu")


def floats(n, channels=3, size=4, seed=0, spread=3.0, dtype=torch.float32):
    chance = torch.Generator().manual_seed(seed)
    return spread * torch.randn(n, channels, size, size, generator=chance, dtype=dtype)


def codes(n, channels=3, size=4, seed=0):
    chance = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, size, size), generator=chance, dtype=torch.uint8)


def arriving(memory, classes):
    """Images of new classes, as many as their quotas."""
    quotas = memory.quotas_with(classes)
    return {label: floats(quotas[label], seed=label) for label in classes}


def full_memory():
    """Two classes of three images: there is no room for an image more."""
    memory = ReplayMemory(mem_size=6)
    memory.add(arriving(memory, [0, 1]))
    return memory
