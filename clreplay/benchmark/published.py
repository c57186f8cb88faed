"""The numbers that the DDM paper prints, as rows of text: digits as they are printed, an empty cell for a dash."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

TITLES = {
    "1": "Table 1: ConvNet, accuracy of the methods",
    "2": "Table 2: ResNet18",
    "3": "Table 3: 128 x 128 pixels",
    "4": "Table 4: condensed with one network, tested on others",
    "5": "Table 5: style matching added to other methods",
    "6": "Table 6: neighbours of the diversity term",
    "7": "Table 7: architecture search",
    "8": "Table 8: blocks that style matching reads",
    "fig3a": "Figure 3a: terms of the loss",
    "fig5": "Figure 5b and 5c: alpha, weight of moments beside correlation",
    "fig6": "Figure 6: beta, weight of diversity, and lambda, weight of style",
}
"""Every table, by the name that ``--table`` takes."""

NOTES = {
    "1": (
        "The paper's Random, Herding and Forgetting rows stem from an evaluation without augmentation, its CAFE rows "
        "are CAFE+DSA. The common protocol evaluates all methods alike, --protocol authors each as its authors do.",
    ),
    "3": (
        "The data are ten classes of ImageNet-1K each: ImageNette and ImageWoof, to clreplay imagenette1k and "
        "imagewoof1k. --dataset imagenette imagewoof, in small letters, takes fast.ai's release of the same classes, "
        "split otherwise: no published number stands beside it.",
    ),
    "5": ("How style matching enters DataDAM and IDM (layers, weight) is not given in the paper: see the recipes.",),
    "6": ("With the image itself left out, 0.9 and 1.0 of 10 images are both nine neighbours: one setting, twice.",),
    "7": (
        "Architectures are ranked by their accuracy after training on the condensed images. The paper does not say "
        "over how many of the first ones it takes Spearman's correlation: the same number stands beside all of ours.",
        "Minutes are the sum over all architectures of the training time on the device named.",
    ),
    "fig3a": ("Bars that no text or table gives in digits were not read off the figure.",),
    "fig5": ("The curves were not read off the figure; the points are ours.",),
    "fig6": ("The curves were not read off the figure; the points are ours. One weight is changed at a time.",),
}
"""What a reader must know beside the numbers, by table."""


@cache
def published_rows(table: str) -> tuple[dict[str, str], ...]:
    """The rows of one table as printed, in the paper's columns, each with its ``source``.

    Args:
        table: a key of :data:`TITLES`.

    Raises:
        ValueError: there is no such table.
    """
    if table not in TITLES:
        raise ValueError(f"table must be one of {', '.join(TITLES)}, got {table!r}")
    name = f"table{table}.csv" if table.isdigit() else f"{table}.csv"
    text = (files("clreplay.benchmark") / "published" / name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))
