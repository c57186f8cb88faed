"""CAFE: feature alignment at every layer, with a discrimination term."""

from clreplay.condensation.cafe.engine import condense_by_alignment

__all__ = [
    "condense_by_alignment",
]
