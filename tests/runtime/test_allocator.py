"""Tuning the allocator may change who holds memory, never a result."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from clreplay.runtime import allocator

SCRIPT = """
import hashlib, resource, sys
import torch
from clreplay.training import loop as training
from clreplay.training.settings import TrainingSettings
from clreplay.networks import reinitialize
if sys.argv[1] == "plain":
    training.keep_freed_memory = lambda: False
torch.set_num_threads(1)
settings = TrainingSettings(width=32, updates=4, batch_size=128, lr=0.05)
network = settings.build(4, 3, 32)
reinitialize(network, 5)
images = torch.rand(128, 3, 32, 32, generator=torch.Generator().manual_seed(0))
training.train(network, images, torch.arange(128) % 4, settings, (0, "warm up"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
training.train(network, images, torch.arange(128) % 4, settings, (0, "train"))
weights = torch.cat([p.detach().flatten() for p in network.parameters()])
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(hashlib.sha256(weights.numpy().tobytes()).hexdigest(), faults)
"""


def trained(how: str) -> tuple[str, int]:
    ran = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True)
    digest, faults = ran.stdout.split()
    return digest, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back after every layer")
def test_training_gives_the_same_bytes_with_far_fewer_page_faults():
    (plain, many), (tuned, few) = trained("plain"), trained("tuned")
    assert plain == tuned
    assert few < many / 2


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    allocator.keep_freed_memory.cache_clear()
    try:
        assert allocator.keep_freed_memory() is False
    finally:
        allocator.keep_freed_memory.cache_clear()
