"""What the readers of torchvision's own files share: its classes, data sets made of arrays, and downloaded folders."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clreplay.data.dataset import Dataset, ImageSet
from clreplay.data.errors import InvalidDataError
from clreplay.data.readers.counts import check_counts
from clreplay.data.readers.spec import ImageSpec


def torchvision_class(spec: ImageSpec, name: str) -> Any:
    """The class `name` of `torchvision.datasets`.

    Raises:
        ImportError: torchvision is not installed.
    """
    try:
        from torchvision import datasets
    except ImportError as error:
        raise ImportError(f"{spec.title} in torchvision's format needs torchvision: pip install torchvision") from error
    return getattr(datasets, name)


def dataset_of_arrays(
    spec: ImageSpec, folder: Path, arrays: Mapping[str, tuple[np.ndarray, np.ndarray]], class_names: tuple[str, ...]
) -> Dataset:
    """The data set whose files in `folder` were read into memory.

    Args:
        arrays: pixel codes, uint8 (n, c, h, w), and labels, int64 (n,), of `train` and `test`.
        class_names: in label order.

    Raises:
        InvalidDataError: images have another shape, or there is another number of them than the official one.
    """
    sets, where = {}, str(folder.absolute())
    for split, (pixels, labels) in arrays.items():
        if len(pixels) != len(labels):
            raise InvalidDataError(f"{where} has {len(pixels)} images but {len(labels)} labels of {split}")
        if pixels.shape[1:] != spec.target.shape:
            raise InvalidDataError(
                f"{where} is not {spec.title}: images must be {spec.target.shape}, got {pixels.shape}"
            )
        check_counts(spec.title, split, labels, spec.counts[split], where, [f"class {name}" for name in class_names])
        # Copied only where torch could not use the array as it is: it wants memory in order that can be written to.
        images = np.require(pixels, requirements=["C", "W"])
        sets[split] = ImageSet(torch.from_numpy(images), torch.from_numpy(labels))
    assert spec.normalization is not None
    source = f"{spec.title} in torchvision's files in {where}."
    return Dataset(spec.name, sets["train"], sets["test"], class_names, spec.normalization, source)


def move_folder(folder: Path, target: Path) -> None:
    """Give a downloaded folder its final name in one step, so that nobody ever finds half of it.

    Raises:
        OSError: it cannot be moved, and no other process has put the same folder there in the meantime.
    """
    try:
        os.replace(folder, target)
    except OSError:
        if not target.is_dir():
            raise
