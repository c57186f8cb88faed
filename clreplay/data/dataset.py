"""Labelled images as two plain tensors, and a data set as two such sets."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from clreplay.data.normalization import Normalization


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images and their labels, row by row.

    Args:
        images: pixel codes, uint8 (n, c, h, w).
        labels: class numbers from 0, int64 (n,), on the same device.

    Raises:
        ValueError: another dtype or shape, different lengths or devices, a negative label.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(
                f"images must be uint8 (n, c, h, w), got {_describe(images)}; "
                "store pixel codes 0..255 and normalise where they are used"
            )
        if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
            raise ValueError(f"labels must be int64 (n,), got {_describe(labels)}; convert with labels.long()")
        if len(images) != len(labels):
            raise ValueError(f"labels must be one an image, got {len(labels)} labels for {len(images)} images")
        if images.device != labels.device:
            raise ValueError(f"labels must be on the images' device {images.device}, got {labels.device}")
        if len(labels) and int(labels.min()) < 0:
            raise ValueError(f"labels must be class numbers from 0, got {int(labels.min())}")

    def __len__(self) -> int:
        return len(self.labels)

    def of_classes(self, classes: Iterable[int]) -> "ImageSet":
        """The rows of the given classes, in this set's order and with their labels unchanged.

        Raises:
            ValueError: a class has no image here.
        """
        wanted = torch.as_tensor([int(label) for label in classes], dtype=torch.int64, device=self.labels.device)
        absent = wanted[~torch.isin(wanted, self.labels)]
        if len(absent):
            raise ValueError(f"classes must have images in this set, got {absent.tolist()}; {self._contents()}")
        rows = torch.isin(self.labels, wanted)
        return ImageSet(self.images[rows], self.labels[rows])

    def class_images(self, label: int) -> Tensor:
        """The images of one class, uint8 (k, c, h, w), in this set's order.

        Raises:
            ValueError: the class has no image here.
        """
        rows = self.labels == int(label)
        if not rows.any():
            raise ValueError(f"label must have images in this set, got {label}; {self._contents()}")
        return self.images[rows]

    def _contents(self) -> str:
        present = self.labels.unique().tolist()
        return f"its {len(present)} labels are {present if len(present) <= 10 else f'{present[0]}..{present[-1]}'}"


HASHED_WHOLE = 1 << 28
"""Bytes of images up to which a fingerprint is of all of them (CIFAR's are 154 MB)."""
_SAMPLED = 1 << 25  # bytes of a larger set's images that are hashed


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set.

    Args:
        name: as in `DATASETS`.
        train: training images.
        test: test images, of the same channels and size.
        class_names: one name a label, in label order.
        normalization: the constants its images are normalised with.
        source: a sentence that says where the data came from.
        held_out: training images that are kept apart, for choices that must not be made on the test images.

    Raises:
        ValueError: the parts do not fit each other.
    """

    name: str
    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    normalization: Normalization
    source: str
    held_out: ImageSet | None = None

    def __post_init__(self) -> None:
        shape = self.train.images.shape[1:]
        if self.test.images.shape[1:] != shape:
            raise ValueError(f"test images must be {tuple(shape)} like train, got {tuple(self.test.images.shape[1:])}")
        if len(self.normalization.mean) != shape[0]:
            raise ValueError(f"normalization must have {shape[0]} channels, got {len(self.normalization.mean)}")
        for part, images in (("train", self.train), ("test", self.test), ("held-out", self.held_out)):
            if images is not None and len(images) and int(images.labels.max()) >= self.num_classes:
                raise ValueError(
                    f"class_names must name every label, got {self.num_classes} names but {part} label "
                    f"{int(images.labels.max())}"
                )

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of training and test images, labels and normalisation: 32 hex digits.

        Of sets whose images take more than :data:`HASHED_WHOLE` bytes, which may be mapped from a file larger than
        memory, only images at even distances are read (32 MB of them), beside all labels and the shape: a single
        image that changed may go unnoticed there, another set does not.
        """
        digest = hashlib.blake2b(str(self.normalization).encode(), digest_size=16)
        for part in (self.train, self.test):
            images = evenly(part.images)
            digest.update(str((tuple(part.images.shape), len(images))).encode())
            for tensor in (images, part.labels):
                digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()


def evenly(images: Tensor) -> Tensor:
    """All images, or of many bytes some at even distances, the first and the last among them."""
    if images.numel() <= HASHED_WHOLE:
        return images
    count = max(2, _SAMPLED // images[0].numel())
    rows = torch.arange(count, dtype=torch.int64) * (len(images) - 1) // (count - 1)
    return images[rows.unique().to(images.device)]


def _describe(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
