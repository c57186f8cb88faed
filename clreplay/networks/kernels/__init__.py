"""Compiled kernels for the work between two convolutions on a CPU."""

from clreplay.networks.kernels.block import Block, norm_relu_pool
from clreplay.networks.kernels.build import BuildError, failure

__all__ = [
    "Block",
    "BuildError",
    "failure",
    "norm_relu_pool",
]
