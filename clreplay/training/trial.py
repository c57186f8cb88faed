"""How long training takes here, from a few updates."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clreplay.runtime.allocator import keep_freed_memory


def seconds_per_image(
    network: nn.Module, images: Tensor, labels: Tensor, batch_size: int, device: torch.device
) -> float:
    """Seconds that an update takes, over the images of its batch.

    Args:
        network: is moved to the device; its weights stay.
        images: (n, c, h, w) normalised real pictures, not zeros: those end in denormal gradients, which a CPU takes
            five times longer over.
        labels: (n,) integers.
        batch_size: of the training; 128 images are tried at most.
        device: where.
    """
    network = network.to(device)
    if device.type == "cpu":
        keep_freed_memory()  # as training will: without it an update takes about twice as long
    batch = min(batch_size, 128, len(images))
    images, labels = images[:batch].to(device), labels[:batch].to(device)

    def update() -> None:
        F.cross_entropy(network(images), labels).backward()

    return _timed(device, update) / batch


def _timed(device: torch.device, work: Callable[[], None], repeats: int = 3) -> float:
    """Seconds of one call: the best of a few, after two to warm up (the first compiles its kernels)."""
    best = math.inf
    for trial in range(2 + repeats):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        if trial >= 2:
            best = min(best, time.perf_counter() - start)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
