"""Texture of images by their grey-level co-occurrence (DDM paper, supplement D, equations 15 and 16; Fig. 5d)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from clreplay.data import Normalization

if TYPE_CHECKING:
    import pandas as pd

    from clreplay.analysis.embedding import Sets

DISTANCES = (1, 2)
"""Pixels between two that are compared: the half-widths of the paper's 3x3 and 5x5 kernels."""
ANGLES = (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)


def co_occurrence(sets: Sets, normalization: Normalization, levels: int = 256) -> pd.DataFrame:
    """Dissimilarity and entropy of the co-occurrence of grey levels, mean over images, distances and directions.

    Images become pictures first: to the pixel range, clipped, grey by the weights of ITU-R 601. The paper does not
    give the number of grey levels, nor how its two kernels are to be read; both readings here are this library's.

    Args:
        sets: images by class, (n, c, h, w) normalised, of every memory by its name.
        normalization: of the images.
        levels: grey levels, at most 256.

    Returns:
        a row a set and class: ``set``, ``label``, ``images``, ``dissimilarity`` (grey levels of ``levels``),
        ``entropy`` (nats), ``clipped``: share of pixel values outside the range.

    Raises:
        ValueError: levels are not within 2 and 256.
        ImportError: scikit-image is missing; the extra ``analysis`` brings it.
    """
    import pandas as pd

    if not 2 <= levels <= 256:
        raise ValueError(f"levels must be within 2 and 256, got {levels}")
    rows = []
    for name, images in sets.items():
        for label, some in images.items():
            grey, clipped = grey_levels(some, normalization, levels)
            found = np.array([_of_picture(picture, levels) for picture in grey])
            dissimilarity, entropy = found.mean(0)
            row = {"set": name, "label": label, "images": len(some), "dissimilarity": dissimilarity}
            rows.append({**row, "entropy": entropy, "clipped": clipped})
    return pd.DataFrame(rows)


def grey_levels(images: Tensor, normalization: Normalization, levels: int = 256) -> tuple[np.ndarray, float]:
    """Grey pictures, uint8 (n, h, w) below ``levels``, and the share of pixel values that had to be clipped."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (normalization.mean, normalization.std))
    pixels = images.cpu() * std + mean
    half = 0.5 / 255  # real pictures come back to their codes but for rounding
    clipped = ((pixels < -half) | (pixels > 1 + half)).double().mean().item()
    pixels = (pixels.clamp(0, 1) * 255).round()
    if pixels.shape[1] == 3:
        pixels = (pixels * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1).round()
    else:
        pixels = pixels.mean(1).round()
    return (pixels * levels / 256).floor().to(torch.uint8).numpy(), clipped


def _of_picture(picture: np.ndarray, levels: int) -> tuple[float, float]:
    try:
        from skimage.feature import graycomatrix, graycoprops
    except ImportError as error:
        raise ImportError("texture needs scikit-image: pip install 'clreplay[analysis]'") from error
    matrix = graycomatrix(picture, DISTANCES, ANGLES, levels, symmetric=True, normed=True)
    return float(graycoprops(matrix, "dissimilarity").mean()), _entropy(matrix)


def _entropy(matrix: np.ndarray) -> float:
    """Of every co-occurrence, mean; 0 ln 0 is 0."""
    logarithms = np.log(matrix, out=np.zeros_like(matrix), where=matrix > 0)
    return float(-(matrix * logarithms).sum((0, 1)).mean())


def nearer_to_real(rows: pd.DataFrame, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """How far the texture of every set is from that of the set ``real``, in percent of it; mean over classes.

    Args:
        rows: of :func:`co_occurrence`; a set is called ``real``.
        columns: names in the result by column; dissimilarity and entropy by default.

    Raises:
        ValueError: there is no set ``real``.
    """
    columns = columns or {"dissimilarity": "dissimilarity, %", "entropy": "entropy, %"}
    means = rows.groupby("set", sort=False)[list(columns)].mean()
    if "real" not in means.index:
        raise ValueError("one of the sets must be called real")
    return ((means / means.loc["real"] - 1) * 100).drop(index="real").rename(columns=columns)
