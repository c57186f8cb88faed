"""The real images of one experience, class by class, as every condenser receives them."""

from __future__ import annotations

import copy
import reprlib

import numpy as np
import torch
from torch import Tensor

from clreplay.data import Normalization
from clreplay.runtime.seeding import class_key


class RealImages:
    """Images and labels of the classes to condense; pixel codes where they are known, floats otherwise.

    Args:
        images: (n, c, h, w); uint8 pixel codes, or float images, normalised already.
        labels: (n,) integers.
        normalization: how uint8 codes become network input. Required with uint8 images.

    Attributes:
        classes: the labels present, ascending.
        keys: the hash of every class's normalised images (see :func:`clreplay.runtime.seeding.class_key`).

    Raises:
        ValueError: shapes or types do not fit, images are empty or not finite.
    """

    def __init__(self, images: Tensor, labels: Tensor, normalization: Normalization | None = None) -> None:
        images, labels = check_images(images), check_labels(labels, len(images))
        if images.dtype == torch.uint8 and normalization is None:
            raise ValueError("normalization is required with uint8 images; pass a Normalization or float images")
        if normalization is not None and len(normalization.mean) != images.shape[1]:
            raise ValueError(
                f"normalization has {len(normalization.mean)} channels and the images {images.shape[1]}; "
                "they must agree"
            )
        self.normalization = normalization
        self.images = images
        self.classes: list[int] = torch.unique(labels).tolist()
        self._rows = {label: (labels == label).nonzero().squeeze(1) for label in self.classes}
        self.keys = {label: class_key(self.normalised(label)) for label in self.classes}

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width of one image."""
        return tuple(self.images.shape[1:])

    def raw(self, label: int) -> Tensor:
        """One class as it was given: uint8 codes or normalised floats, (n, c, h, w); a copy."""
        return self.images[self._rows[label]]

    def rows(self, label: int) -> Tensor:
        """Positions of one class's images in the experience, (n,)."""
        return self._rows[label]

    def count(self, label: int) -> int:
        """Number of real images of a class."""
        return len(self._rows[label])

    def normalised(self, label: int) -> Tensor:
        """One class as network input, float32 (n, c, h, w)."""
        return self.normalise(self.raw(label))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Held images (codes or floats, any device) as network input: the same arithmetic everywhere."""
        return self.normalization.apply(pixels) if pixels.dtype == torch.uint8 else pixels

    def subset(self, labels: list[int]) -> RealImages:
        """The same images of some classes only; nothing is copied or hashed again."""
        part = copy.copy(self)
        part.classes = [label for label in self.classes if label in labels]
        return part

    def check_counts(self, counts: dict[int, int]) -> None:
        """Every class must have at least as many real images as images are to be made of it.

        Raises:
            ValueError: naming the class, what it has and the cure.
        """
        for label in self.classes:
            if self.count(label) < counts[label]:
                raise ValueError(
                    f"class {label} has {self.count(label)} images, fewer than the {counts[label]} asked; "
                    f"lower images_per_class (or mem_size) so that no class needs more than {self.count(label)}"
                )


def check_images(images: Tensor) -> Tensor:
    """uint8 as it is, floats as float32; (n, c, h, w), finite, not empty.

    Raises:
        ValueError: naming what was got and the cure.
    """
    if not isinstance(images, Tensor):
        raise ValueError(f"images must be a tensor (n, c, h, w), got {type(images).__name__}; torch.as_tensor it")
    if images.ndim != 4:
        raise ValueError(f"images must have shape (n, c, h, w), got {tuple(images.shape)}; add the missing axis")
    if len(images) == 0:
        raise ValueError("images must not be empty, got 0 images; an experience needs at least one")
    channels, height, width = images.shape[1:]
    if width in (1, 3, 4) and min(channels, height) > 4:
        raise ValueError(
            f"images must be (n, c, h, w), got {tuple(images.shape)}, which look like (n, h, w, c); "
            "permute them: images.permute(0, 3, 1, 2)"
        )
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise ValueError(f"images must be uint8 or floating point, got {images.dtype}; convert them")
    images = images.detach().to(torch.float32)  # first: what is finite in float64 need not be in float32
    bad = (~torch.isfinite(images)).flatten(1).any(1).nonzero()
    if len(bad):
        raise ValueError(f"images must be finite, image {int(bad[0])} holds NaN or infinity; clean the data")
    return images


def check_labels(labels: Tensor, count: int) -> Tensor:
    """Integer labels, one an image.

    Raises:
        ValueError: naming what was got and the cure.
    """
    if not isinstance(labels, Tensor):
        try:
            labels = np.asarray(labels)  # a list, or a table's column, whatever its index
        except ValueError as error:
            raise ValueError(f"labels must be {count} integers, one an image, got rows of different lengths") from error
        if labels.dtype.kind not in "biufc":
            raise ValueError(
                f"labels must be {count} integers, one an image, got {_example(labels)}; number the classes, such as "
                "with numpy.unique(names, return_inverse=True)[1]"
            )
        labels = torch.tensor(labels)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool or labels.ndim != 1:
        cure = "pass class numbers, not one-hot rows"
    elif len(labels) != count:
        cure = "pass a label for every image"
    else:
        labels = labels.to("cpu", torch.int64)
        if count and int(labels.min()) < 0:
            raise ValueError(
                f"labels must be at least 0, got {int(labels.min())}, of which no loss can be taken; number the "
                "classes from 0, and leave out images without a label"
            )
        return labels
    raise ValueError(f"labels must be {count} integers, one an image, got {labels.dtype} {tuple(labels.shape)}; {cure}")


def _example(labels: np.ndarray) -> str:
    """The first of them, shortly."""
    one = labels.reshape(-1)[:1].tolist()[0] if labels.size else None
    return f"{type(one).__name__} {reprlib.repr(one)}"
