"""One class of a memory as it is stored; its bytes are counted."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from clreplay.data import Normalization
from clreplay.memory.decoders import decoder
from clreplay.memory.stores import Parts, Shape, Store, bytes_of


@dataclass(frozen=True)
class Slot:
    """One class of the memory.

    Attributes:
        store: how its images are kept.
        parts: what is kept, by name; with ``uint8`` and ``float32`` the ``codes`` (k, c, h, w).
        count: stored images.
        shape: (c, h, w) of one.
        task_label: the task label the class came with.
        key: hash of the class's real images.
        decoding: name of the decoder that makes images to train on of the stored ones (:mod:`.decoders`).
    """

    store: Store
    parts: Parts
    count: int
    shape: Shape
    task_label: int = 0
    key: str = ""
    decoding: str = "none"

    def __len__(self) -> int:
        return self.count

    @property
    def decoded(self) -> int:
        """Images that the stored ones decode to."""
        return len(self) * decoder(self.decoding).images_each

    @property
    def codes(self) -> Tensor:
        """Codes as they are kept, (k, c, h, w) uint8 or float32.

        Raises:
            KeyError: the store keeps none.
        """
        return self.parts["codes"]

    @property
    def scale(self) -> Tensor | None:
        """Of condensed images: step of a code, (k, c) float32, or (c,) where a class has one; None for real ones."""
        return self.parts.get("scale")

    @property
    def offset(self) -> Tensor | None:
        """The same of the value of code 0."""
        return self.parts.get("offset")

    def images(self, normalization: Normalization | None) -> Tensor:
        """The stored images as network input, before decoding, float32 (k, c, h, w)."""
        return self.store.decode(self.parts, self.count, self.shape, normalization)

    def first(self, count: int) -> Slot:
        """The first ``count`` stored images; what is dropped is freed, nothing is coded anew."""
        if count >= len(self):
            return self
        return replace(self, parts=self.store.first(self.parts, count), count=count)

    def within(self, size: int) -> Slot:
        """The first stored images that take at most ``size`` bytes as they are coded; maybe none."""
        return self.first(self.store.count_within(self.parts, self.count, size))

    @property
    def bytes(self) -> int:
        """Bytes of all that is kept."""
        return bytes_of(self.parts)
