"""Gradient matching: DC and DSA."""

from clreplay.condensation.gradient_matching.engine import condense_by_gradients

__all__ = [
    "condense_by_gradients",
]
