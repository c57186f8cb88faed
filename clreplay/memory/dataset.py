"""A memory as a data set of PyTorch: the images that one trains on, with their labels."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from clreplay.memory.formats.eight_bits import SLACK, to_pixels
from clreplay.memory.formats.pictures import Pictures

logger = logging.getLogger(__name__)
VALUES = ("network", "pixels", "uint8")
"""What values of an image may be: network input, as one trains on it; pixels on the scale from 0 to 1; pixel codes."""


class MemoryDataset(Dataset[tuple[Any, Any]]):
    """The training images of a memory as items ``(image, label)``, in the memory's order; a copy of its own.

    Args:
        pictures: of the memory.
        transform: called with every image, a tensor (c, h, w).
        target_transform: called with every label, an int.
        values: ``network``: float32 as a network takes it; ``pixels``: float32 in [0, 1]; ``uint8``: codes 0 to 255.
            The last two cut what lies outside the range of a picture, which is said in a line.

    Attributes:
        images: (n, c, h, w), before the transform.
        targets: labels, a list of ints.
        classes: names of classes; of label i it is ``classes[i]`` where the labels allow that (0 to n - 1).
        class_to_idx: label by name; it is always right.

    Raises:
        ValueError: there are no such values, or no normalisation says which pixels network input came from.
    """

    def __init__(
        self,
        pictures: Pictures,
        transform: Callable[[Tensor], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        values: str = "network",
    ) -> None:
        if values not in VALUES:
            raise ValueError(f"values must be one of {', '.join(VALUES)}, got {values!r}")
        for name, given in (("transform", transform), ("target_transform", target_transform)):
            if given is not None and not callable(given):
                raise ValueError(f"{name} must be a function, got {given!r}")
        self.images = _values(pictures, values)
        self.transform, self.target_transform = transform, target_transform
        self.targets: list[int] = pictures.labels.tolist()
        labels, self.classes = pictures.table()
        self.class_to_idx = dict(zip(self.classes, labels))

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, label = self.images[index], self.targets[index]
        if self.transform is not None:
            image = self.transform(image)
        return image, label if self.target_transform is None else self.target_transform(label)


def _values(pictures: Pictures, values: str) -> Tensor:
    images, normalization = pictures.images, pictures.normalization
    if values == "network":
        if images.dtype == torch.uint8 and normalization is not None:
            return normalization.apply(images)
        return images.clone()
    if images.dtype == torch.uint8:
        return images.clone() if values == "uint8" else images.to(torch.float32) / 255
    if normalization is None:
        raise ValueError(
            f"values={values!r} needs pixels, and the memory has no normalization that says how they became network "
            "input; leave values out"
        )
    pixels = to_pixels(images, normalization)
    cut = int(((pixels < -SLACK) | (pixels > 1 + SLACK)).sum())
    if cut:
        logger.warning(
            "%s of %s pixel values (%.3g %%) lie outside [0, 1] and are cut to it; values='network' keeps them",
            f"{cut:,}", f"{pixels.numel():,}", 100 * cut / pixels.numel(),
        )  # fmt: skip
    pixels = pixels.clamp(0, 1)
    return pixels if values == "pixels" else (pixels * 255).round().to(torch.uint8)
