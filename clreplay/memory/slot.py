"""One class of a memory as it is stored; its bytes are counted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
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

    def trained_on(self, normalization: Normalization | None) -> Tensor:
        """The images that the stored ones decode to, float32 (n, c, h, w)."""
        return decoder(self.decoding)(self.images(normalization))

    def with_source(self, source: Slot) -> SharedSlot:
        """The class with the images of one more experience."""
        return SharedSlot((self, source))

    @property
    def keys(self) -> tuple[str, ...]:
        """As of :class:`SharedSlot`."""
        return (self.key,)

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


@dataclass(frozen=True)
class SharedSlot:
    """One class whose images came in several experiences, which share what its budget gives it.

    Each experience's images are coded by themselves and never again. The images of all stand in turn, one of each, so
    that the first so many of them are of all experiences alike.

    Attributes:
        sources: what is kept of the images of each experience, in order of arrival.
    """

    sources: tuple[Slot, ...]

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    @property
    def shape(self) -> Shape:
        """(c, h, w) of an image."""
        return self.sources[0].shape

    @property
    def task_label(self) -> int:
        """The task label the class came with."""
        return self.sources[0].task_label

    @property
    def key(self) -> str:
        """Hash of the class's real images, those of all experiences."""
        return hashlib.blake2b("".join(source.key for source in self.sources).encode(), digest_size=16).hexdigest()

    @property
    def keys(self) -> tuple[str, ...]:
        """Hashes of the real images of each experience."""
        return tuple(source.key for source in self.sources)

    @property
    def decoded(self) -> int:
        """Images that the stored ones decode to."""
        return sum(source.decoded for source in self.sources)

    @property
    def parts(self) -> Parts:
        """What is kept, by the number of the source and its name there."""
        return {f"{n}.{name}": part for n, source in enumerate(self.sources) for name, part in source.parts.items()}

    @property
    def bytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(source.bytes for source in self.sources)

    def images(self, normalization: Normalization | None) -> Tensor:
        """The stored images as network input, before decoding, in turn, float32 (k, c, h, w)."""
        return in_turn([source.images(normalization) for source in self.sources])

    def trained_on(self, normalization: Normalization | None) -> Tensor:
        """The images that the stored ones decode to, in turn, float32 (n, c, h, w)."""
        each = [decoder(source.decoding).images_each for source in self.sources]
        return in_turn([source.trained_on(normalization) for source in self.sources], each)

    def first(self, count: int) -> SharedSlot:
        """The first ``count`` images, in turn; of sources that are used up the others take the turns.

        Raises:
            ValueError: nothing would be left of a source.
        """
        if count >= len(self):
            return self
        if count < len(self.sources):
            raise ValueError(
                f"{count} images of a class cannot be of the {len(self.sources)} experiences in which it came; raise "
                "the budget to at least one image of each"
            )
        kept, left = [0] * len(self.sources), count
        while left:
            for number, source in enumerate(self.sources):
                if left and kept[number] < len(source):
                    kept[number], left = kept[number] + 1, left - 1
        return SharedSlot(tuple(source.first(n) for source, n in zip(self.sources, kept)))

    def within(self, size: int) -> SharedSlot:
        """Images that take at most ``size`` bytes as they are coded, as equally as their sizes allow; maybe none."""
        kept, left = {}, size
        smallest = sorted(range(len(self.sources)), key=lambda number: self.sources[number].bytes)
        for behind, number in enumerate(smallest):
            kept[number] = self.sources[number].within(left // (len(smallest) - behind))
            left -= kept[number].bytes if len(kept[number]) else 0
        return SharedSlot(tuple(kept[number] for number in range(len(self.sources))))

    def with_source(self, source: Slot) -> SharedSlot:
        """The same with the images of one more experience."""
        return SharedSlot((*self.sources, source))


def sources_of(slot: Slot | SharedSlot) -> tuple[Slot, ...]:
    """What is kept of a class by the experience it came in."""
    return slot.sources if isinstance(slot, SharedSlot) else (slot,)


def in_turn(parts: Sequence[Tensor], each: Sequence[int] | None = None) -> Tensor:
    """Rows of several tensors in turn: the first of each, the second of each, and so on.

    Args:
        parts: (n, ...) of one shape but for n.
        each: of every tensor, rows that stay together.
    """
    turns = [torch.arange(len(part)) // step for part, step in zip(parts, each or [1] * len(parts))]
    return torch.cat(list(parts))[torch.cat(turns).argsort(stable=True).to(parts[0].device)]
