"""Stores: how a memory keeps the pictures of a class, and what each of them costs.

A store takes pixel codes of real images, or condensed images, which are floats beyond the pixel range, and gives named
tensors: all that is kept, saved and counted. It gives back what one trains on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from clreplay.data import Normalization
from clreplay.memory.codecs import (
    CODECS,
    SIDE,
    check_channels,
    check_codec,
    decode_mosaics,
    encode_mosaics,
    split_bytes,
)
from clreplay.memory.packed import pack, unpack
from clreplay.memory.quantization import decode, encode

Parts = Mapping[str, Tensor]
"""What is kept of a class, by name; a memory's file has the same tensors."""
Shape = tuple[int, int, int]
"""Channels, height, width of one image."""


class Store(Protocol):
    """A way of keeping the images of a class."""

    def encode(self, images: Tensor, normalization: Normalization | None) -> dict[str, Tensor]:
        """What is kept of images: uint8 pixel codes, or normalised floats, (k, c, h, w), on the CPU."""
        ...

    def decode(self, parts: Parts, count: int, shape: Shape, normalization: Normalization | None) -> Tensor:
        """The first ``count`` images as network input, float32 (count, c, h, w).

        Raises:
            ValueError: the parts do not fit together, or are damaged.
        """
        ...

    def check_channels(self, channels: int) -> None:
        """Whether images of so many channels can be kept.

        Raises:
            ValueError: they cannot.
        """
        ...

    def first(self, parts: Parts, count: int) -> dict[str, Tensor]:
        """What is kept of the first ``count`` images, without coding anything anew; it may hold a few more."""
        ...

    def names(self) -> tuple[tuple[str, ...], ...]:
        """The sets of names that parts may have."""
        ...

    def check(self, parts: Parts, count: int, shape: Shape, what: str) -> None:
        """Parts that were read from a file fit one another, before anything is made of them.

        Args:
            parts: with one of the sets of :meth:`names`.
            count, shape: of the images that they should hold.
            what: the messages call it so.

        Raises:
            ValueError: they do not.
        """
        ...


@dataclass(frozen=True)
class PlainStore:
    """Pixel codes as they are; condensed images in uint8 with a scale and offset an image and channel, or as floats.

    Attributes:
        floats: keep condensed images as floats.
    """

    floats: bool = False

    def encode(self, images: Tensor, normalization: Normalization | None) -> dict[str, Tensor]:
        """See :class:`Store`."""
        if images.dtype == torch.uint8 or self.floats:
            return {"codes": images.clone()}
        return dict(zip(("codes", "scale", "offset"), encode(images)))

    def decode(self, parts: Parts, count: int, shape: Shape, normalization: Normalization | None) -> Tensor:
        """See :class:`Store`."""
        codes = parts["codes"]
        if "scale" in parts:
            return decode(codes, parts["scale"], parts["offset"])
        return codes if codes.dtype == torch.float32 else normalization.apply(codes)

    def check_channels(self, channels: int) -> None:
        """See :class:`Store`; any number."""

    def first(self, parts: Parts, count: int) -> dict[str, Tensor]:
        """See :class:`Store`; cloned, so that what is dropped is freed."""
        return {name: tensor[:count].clone() for name, tensor in parts.items()}

    def names(self) -> tuple[tuple[str, ...], ...]:
        """See :class:`Store`."""
        return ("codes",), ("codes", "scale", "offset")

    def check(self, parts: Parts, count: int, shape: Shape, what: str) -> None:
        """See :class:`Store`."""
        kinds = (torch.uint8,) if "scale" in parts or not self.floats else (torch.uint8, torch.float32)
        _check_part(parts, "codes", (count, *shape), kinds, what)
        _check_ranges(parts, (count, shape[0]), what)


@dataclass(frozen=True)
class PackedStore:
    """Codes of 4 or 2 bits with a scale and offset an image and channel, real images as well.

    Attributes:
        bits: of a code.
    """

    bits: int

    def encode(self, images: Tensor, normalization: Normalization | None) -> dict[str, Tensor]:
        """See :class:`Store`."""
        floats = normalization.apply(images) if images.dtype == torch.uint8 else images
        codes, scale, offset = encode(floats, 2**self.bits)
        return {"packed": pack(codes.flatten(2), self.bits), "scale": scale, "offset": offset}

    def decode(self, parts: Parts, count: int, shape: Shape, normalization: Normalization | None) -> Tensor:
        """See :class:`Store`."""
        codes = unpack(parts["packed"], self.bits, shape[1] * shape[2]).unflatten(2, shape[1:])
        return decode(codes, parts["scale"], parts["offset"])

    def check_channels(self, channels: int) -> None:
        """See :class:`Store`; any number."""

    def first(self, parts: Parts, count: int) -> dict[str, Tensor]:
        """See :class:`Store`."""
        return {name: tensor[:count].clone() for name, tensor in parts.items()}

    def names(self) -> tuple[tuple[str, ...], ...]:
        """See :class:`Store`."""
        return (("packed", "scale", "offset"),)

    def check(self, parts: Parts, count: int, shape: Shape, what: str) -> None:
        """See :class:`Store`."""
        size = -(-shape[1] * shape[2] * self.bits // 8)
        _check_part(parts, "packed", (count, shape[0], size), (torch.uint8,), what)
        _check_ranges(parts, (count, shape[0]), what)


@dataclass(frozen=True)
class CodedStore:
    """Mosaics of pictures in an image codec; condensed ones are brought into the pixel range first.

    The range is that of the class and channel, so that pictures of a mosaic keep their contrast beside one another,
    and costs 24 bytes a class.

    Attributes:
        codec: a key of :data:`clreplay.memory.codecs.CODECS`.
        quality: of the codec.
    """

    codec: str
    quality: int | None

    def encode(self, images: Tensor, normalization: Normalization | None) -> dict[str, Tensor]:
        """See :class:`Store`."""
        ranges = {}
        if images.dtype != torch.uint8:
            joined, scale, offset = encode(images.transpose(0, 1).flatten(1).view(1, images.shape[1], -1, 1))
            images = joined.view(images.shape[1], len(images), *images.shape[2:]).transpose(0, 1)
            ranges = {"scale": scale[0], "offset": offset[0]}
        mosaics = encode_mosaics(images, self.codec, self.quality)
        counts = [len(part) for part in images.split(SIDE**2)]
        return {
            "mosaics": torch.frombuffer(bytearray(b"".join(mosaics)), dtype=torch.uint8),
            "lengths": torch.tensor([len(one) for one in mosaics], dtype=torch.int32),
            "pictures": torch.tensor(counts, dtype=torch.int16),
            **ranges,
        }

    def decode(self, parts: Parts, count: int, shape: Shape, normalization: Normalization | None) -> Tensor:
        """See :class:`Store`."""
        lengths, counts = parts["lengths"].tolist(), parts["pictures"].tolist()
        blobs = list(split_bytes(parts["mosaics"], lengths))
        codes = decode_mosaics(blobs, counts, self.codec, shape)[:count]
        if "scale" not in parts:
            return normalization.apply(codes)
        scale, offset = (parts[name].expand(count, -1) for name in ("scale", "offset"))
        return decode(codes, scale, offset)

    def check_channels(self, channels: int) -> None:
        """See :class:`Store`; 1 or 3."""
        check_channels(channels, self.codec)

    def first(self, parts: Parts, count: int) -> dict[str, Tensor]:
        """See :class:`Store`: whole mosaics, as many as hold the images."""
        before = parts["pictures"].cumsum(0) - parts["pictures"]
        kept = int((before < count).sum())
        size = int(parts["lengths"][:kept].sum())
        cut = {"mosaics": parts["mosaics"][:size].clone()}
        cut.update({name: parts[name][:kept].clone() for name in ("lengths", "pictures")})
        return {**parts, **cut}

    def names(self) -> tuple[tuple[str, ...], ...]:
        """See :class:`Store`."""
        return ("mosaics", "lengths", "pictures"), ("mosaics", "lengths", "pictures", "scale", "offset")

    def check(self, parts: Parts, count: int, shape: Shape, what: str) -> None:
        """See :class:`Store`."""
        mosaics = parts["pictures"].shape
        _check_part(parts, "pictures", (mosaics.numel(),), (torch.int16,), what)
        _check_part(parts, "lengths", (mosaics.numel(),), (torch.int32,), what)
        _check_ranges(parts, (shape[0],), what)
        lengths, counts = parts["lengths"].tolist(), parts["pictures"].tolist()
        _check_part(parts, "mosaics", (sum(lengths),), (torch.uint8,), what)
        before = sum(counts[:-1])
        if not all(0 < some <= SIDE**2 for some in counts) or min(lengths) < 1 or not before < count <= sum(counts):
            raise ValueError(f"{what} must have {count} images, its mosaics say {sum(counts)}; it is damaged")


def _check_part(parts: Parts, name: str, shape: tuple[int, ...], kinds: tuple[torch.dtype, ...], what: str) -> None:
    found = parts[name]
    if len(found.shape) == len(shape) > 1 and len(found) != shape[0]:
        raise ValueError(f"{what} must have {shape[0]} images, got {len(found)}")
    if tuple(found.shape) != shape or found.dtype not in kinds:
        kind = " or ".join(str(one).removeprefix("torch.") for one in kinds)
        raise ValueError(
            f"{what} must have a {name} of {shape} {kind}, got {tuple(found.shape)} "
            f"{str(found.dtype).removeprefix('torch.')}"
        )


def _check_ranges(parts: Parts, shape: tuple[int, ...], what: str) -> None:
    for name in ("scale", "offset"):
        if name in parts:
            _check_part(parts, name, shape, (torch.float32,), what)


STORES = ("uint8", "float32", "4bit", "2bit", *CODECS)
"""What ``store`` may be."""


def find_store(name: str, quality: int | None = None) -> Store:
    """The store of a name.

    Args:
        name: one of :data:`STORES`.
        quality: of a codec that loses something; None takes its default.

    Raises:
        ValueError: there is no such store, this Pillow lacks its codec, or it takes no such quality.
    """
    if name in CODECS:
        return CodedStore(name, check_codec(name, quality))
    if name not in STORES:
        raise ValueError(f"store must be one of {', '.join(STORES)}, got {name!r}")
    if quality is not None:
        raise ValueError(f"quality belongs to the stores {', '.join(CODECS)}, got it for {name!r}; leave it out")
    return PackedStore(int(name[0])) if name.endswith("bit") else PlainStore(floats=name == "float32")
