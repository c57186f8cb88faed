"""Compiled kernels for the work between two convolutions on a CPU."""

from clreplay.native.block import Block, norm_relu_pool, suits, suits_network
from clreplay.native.build import BuildError, failure, processor

__all__ = ["Block", "BuildError", "failure", "norm_relu_pool", "processor", "suits", "suits_network"]
