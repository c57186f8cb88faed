"""Data sets as units of work use them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch

from clreplay.benchmark.rows import Finished
from clreplay.condensation import RealImages
from clreplay.data import Dataset, load_dataset


@dataclass(frozen=True, eq=False)
class Loaded:
    """A data set, the name that it was loaded by, and the hash of all its images and labels."""

    name: str
    set: Dataset
    fingerprint: str

    @cached_property
    def real(self) -> RealImages:
        """The training images by class; created on first use, because every class is hashed."""
        return RealImages(self.set.train.images, self.set.train.labels, self.set.normalization)

    def finished(self, **results: Any) -> Finished:
        """Results on this data set; arguments are those of :class:`clreplay.benchmark.rows.Finished`."""
        return Finished(self.name, self.fingerprint, len(self.classes), **results)

    @cached_property
    def classes(self) -> list[int]:
        """Labels of the training images, sorted."""
        labels: list[int] = torch.unique(self.set.train.labels).tolist()
        return labels

    def of_classes(self, labels: Collection[int]) -> RealImages:
        """The training images of some classes; if not of all, they are copied and hashed alone."""
        if len(labels) == len(self.classes):
            return self.real
        train = self.set.train
        rows = torch.isin(train.labels, torch.tensor(sorted(labels))).nonzero().squeeze(1)
        return RealImages(train.images[rows], train.labels[rows], self.set.normalization)


@lru_cache(maxsize=1)
def load_cached(name: str, root: str | None) -> Loaded:
    """A data set by name; the last one is cached, since consecutive units use the same.

    Raises:
        as :func:`clreplay.data.load_dataset`.
    """
    data = load_dataset(name, root)
    digest = hashlib.blake2b(str(data.normalization).encode(), digest_size=16)
    for part in (data.train, data.test):
        for tensor in (part.images, part.labels):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().numpy().data)
    return Loaded(name, data, digest.hexdigest())
