"""The handwritten digits shipped with scikit-learn: real images that need no download."""

from pathlib import Path

import numpy as np
import torch

from clreplay.data.dataset import Dataset, ImageSet
from clreplay.data.normalization import NORMALIZATIONS
from clreplay.data.registry import check_channels, register_dataset

_CLASSES = 10
_SIZE = 32


def load_digits(channels: int | None = None) -> Dataset:
    """1,797 digits (UCI Optical Recognition of Handwritten Digits), enlarged from 8x8 to 32x32.

    The 17 grey levels become codes `round(v * 255 / 16)`. Bilinear enlarging by four weights them with eighths in each
    direction, which floats hold exactly, so the rounded result is the same on every machine. Of each class the first
    two thirds (rounded) of NumPy's legacy permutation with seed 0 are for training, 1,198 images, the other 599 for
    testing; rows keep scikit-learn's order.

    Args:
        channels: 1 (default) or 3, the grey image repeated.

    Raises:
        ValueError: another number of channels.
        ImportError: scikit-learn is not installed.
    """
    channels = check_channels("digits", channels, (1, 3))
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError("the digits need scikit-learn: pip install scikit-learn") from error
    digits = datasets.load_digits()
    images = _enlarge(digits.images).repeat(1, channels, 1, 1)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    train = _training_rows(digits.target)
    return Dataset(
        name="digits",
        train=ImageSet(images[train], labels[train]),
        test=ImageSet(images[~train], labels[~train]),
        class_names=tuple(str(label) for label in range(_CLASSES)),
        normalization=NORMALIZATIONS["digits"].expand(channels),
        source="The handwritten digits shipped with scikit-learn, enlarged from 8x8 to 32x32.",
    )


@register_dataset("digits")
def _load(name: str, root: Path, *, download: bool, channels: int | None) -> Dataset:
    return load_digits(channels)  # scikit-learn contains them, so the root is not looked at


def _enlarge(grey: np.ndarray) -> torch.Tensor:
    codes = torch.from_numpy(np.rint(grey * 255 / 16)).float().unsqueeze(1)  # n, 1, 8, 8
    enlarged = torch.nn.functional.interpolate(codes, size=(_SIZE, _SIZE), mode="bilinear", align_corners=False)
    return enlarged.round().to(torch.uint8)


def _training_rows(labels: np.ndarray) -> torch.Tensor:
    chosen = np.zeros(len(labels), dtype=bool)
    for label in range(_CLASSES):
        rows = np.flatnonzero(labels == label)
        # A new generator for each class: the split of one class does not depend on the sizes of the others.
        order = np.random.RandomState(0).permutation(len(rows))
        chosen[rows[order[: round(len(rows) * 2 / 3)]]] = True
    return torch.from_numpy(chosen)
