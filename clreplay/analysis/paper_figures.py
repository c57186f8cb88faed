"""Which figures of the DDM paper can be drawn for any memories; no PyTorch is needed to ask."""

from __future__ import annotations

SHOWS = {
    "1a": "style of real and condensed images, by t-SNE",
    "1b": "embedding of real and condensed images, by t-SNE",
    "1c": "accuracy when the style drifts",
    "4": "the images themselves",
    "5d": "texture by grey-level co-occurrence",
}
"""What each of them shows."""
SAME = {"9": "1a", "4a": "1b", "4b": "1b", "4c": "4", "4d": "4", "4e": "4", "7": "4", "8": "4", "1d": "1c"}
"""Figures that show the same for other memories or data."""


def known() -> list[str]:
    """All figures that can be drawn."""
    return sorted({*SHOWS, *SAME})
