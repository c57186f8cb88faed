"""Data sets as units see them, and condensed sets as bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch

from clreplay.condensation import RealImages
from clreplay.data import Dataset, load_dataset


@dataclass(frozen=True, eq=False)
class Loaded:
    """A data set and the hash of all of it."""

    set: Dataset
    fingerprint: str

    @cached_property
    def real(self) -> RealImages:
        """The training images class by class; made when a set is condensed, for it hashes every class."""
        return RealImages(self.set.train.images, self.set.train.labels, self.set.normalization)

    def shard(self, number: int, of: int) -> RealImages | None:
        """One of ``of`` nearly equal parts of the classes, copied and hashed alone; None if it has no class."""
        train = self.set.train
        classes = torch.tensor_split(torch.unique(train.labels), of)[number]
        if not len(classes):
            return None
        rows = torch.isin(train.labels, classes).nonzero().squeeze(1)
        return RealImages(train.images[rows], train.labels[rows], self.set.normalization)


@lru_cache(maxsize=1)
def load_cached(name: str, root: str | None) -> Loaded:
    """A data set by name; the last one is kept, since the units that use it come together.

    Raises:
        as :func:`clreplay.data.load_dataset`.
    """
    data = load_dataset(name, root)
    digest = hashlib.blake2b(str(data.normalization).encode(), digest_size=16)
    for part in (data.train, data.test):
        for tensor in (part.images, part.labels):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().numpy().data)
    return Loaded(data, digest.hexdigest())
