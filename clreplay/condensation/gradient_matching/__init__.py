"""Gradient matching: DC and DSA."""

from clreplay.condensation.gradient_matching.engine import GradientMatchingEngine

__all__ = [
    "GradientMatchingEngine",
]
