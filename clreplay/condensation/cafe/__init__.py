"""CAFE: feature alignment at every layer, with a discrimination term."""

from clreplay.condensation.cafe.engine import CafeEngine

__all__ = [
    "CafeEngine",
]
