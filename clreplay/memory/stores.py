"""Stores: how a memory keeps the pictures of a class, and what each of them costs.

A store takes pixel codes of real images, or condensed images, which are floats beyond the pixel range, and gives named
tensors: all that is kept, saved and counted. It gives back what one trains on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    qualities_of,
    split_bytes,
)
from clreplay.memory.packed import pack, unpack
from clreplay.memory.quantization import decode, encode
from clreplay.memory.smaller import SmallerStore

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

    def count_for(self, size: int, sample: Tensor, condensed: bool, normalization: Normalization | None) -> int:
        """How many images such as these fit into so many bytes, to the best of what can be told before coding them.

        Args:
            size: bytes.
            sample: uint8 pixel codes or normalised floats of real images, (k, c, h, w).
            condensed: whether it is not these but condensed images that will be kept.
            normalization: of pixel codes.
        """
        ...

    def encode_within(
        self, images: Tensor, sizes: Sequence[int], normalization: Normalization | None
    ) -> tuple[dict[str, Tensor], int]:
        """What is kept of the first images that fit into a number of bytes, and how many they are.

        Args:
            images: as of :meth:`encode`.
            sizes: bytes; the largest is what may be used now, to the smaller ones the class will have to shrink.
            normalization: of pixel codes.
        """
        ...

    def count_within(self, parts: Parts, count: int, size: int) -> int:
        """How many of the first images can stay if no more than ``size`` bytes may be kept, coded as they are."""
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


def _known(normalization: Normalization | None) -> Normalization:
    """Pixel codes always have one: memories check that where they are filled and read."""
    assert normalization is not None, "pixel codes need a normalization"
    return normalization


class _EqualImages:
    """What stores have in common in which every image takes the same bytes."""

    def encode(self, images: Tensor, normalization: Normalization | None) -> dict[str, Tensor]:
        """See :class:`Store`."""
        raise NotImplementedError

    def count_for(self, size: int, sample: Tensor, condensed: bool, normalization: Normalization | None) -> int:
        """See :class:`Store`; exact."""
        one = sample[:1].float() if condensed else sample[:1]
        return size // bytes_of(self.encode(one, normalization))

    def encode_within(
        self, images: Tensor, sizes: Sequence[int], normalization: Normalization | None
    ) -> tuple[dict[str, Tensor], int]:
        """See :class:`Store`."""
        count = min(len(images), max(sizes) // bytes_of(self.encode(images[:1], normalization)))
        return self.encode(images[:count], normalization), count

    def count_within(self, parts: Parts, count: int, size: int) -> int:
        """See :class:`Store`."""
        return min(count, size // (bytes_of(parts) // count))

    def check_channels(self, channels: int) -> None:
        """See :class:`Store`; any number."""

    def first(self, parts: Parts, count: int) -> dict[str, Tensor]:
        """See :class:`Store`; cloned, so that what is dropped is freed."""
        return {name: tensor[:count].clone() for name, tensor in parts.items()}


@dataclass(frozen=True)
class PlainStore(_EqualImages):
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
        return codes if codes.dtype == torch.float32 else _known(normalization).apply(codes)

    def names(self) -> tuple[tuple[str, ...], ...]:
        """See :class:`Store`."""
        return ("codes",), ("codes", "scale", "offset")

    def check(self, parts: Parts, count: int, shape: Shape, what: str) -> None:
        """See :class:`Store`."""
        kinds = (torch.uint8,) if "scale" in parts or not self.floats else (torch.uint8, torch.float32)
        _check_part(parts, "codes", (count, *shape), kinds, what)
        _check_ranges(parts, (count, shape[0]), what)


@dataclass(frozen=True)
class PackedStore(_EqualImages):
    """Codes of 4 or 2 bits with a scale and offset an image and channel, real images as well.

    Attributes:
        bits: of a code.
    """

    bits: int

    def encode(self, images: Tensor, normalization: Normalization | None) -> dict[str, Tensor]:
        """See :class:`Store`."""
        floats = _known(normalization).apply(images) if images.dtype == torch.uint8 else images
        codes, scale, offset = encode(floats, 2**self.bits)
        return {"packed": pack(codes.flatten(2), self.bits), "scale": scale, "offset": offset}

    def count_for(self, size: int, sample: Tensor, condensed: bool, normalization: Normalization | None) -> int:
        """See :class:`Store`; real images are packed as condensed ones are."""
        return super().count_for(size, sample, True, normalization)

    def decode(self, parts: Parts, count: int, shape: Shape, normalization: Normalization | None) -> Tensor:
        """See :class:`Store`."""
        codes = unpack(parts["packed"], self.bits, shape[1] * shape[2]).unflatten(2, shape[1:])
        return decode(codes, parts["scale"], parts["offset"])

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
        codes, ranges = _pictures(images)
        mosaics = encode_mosaics(codes, self.codec, self.quality)
        return _coded(mosaics, [len(part) for part in codes.split(SIDE**2)], ranges)

    def count_for(self, size: int, sample: Tensor, condensed: bool, normalization: Normalization | None) -> int:
        """See :class:`Store`; an estimate from one mosaic of the sample, and from real images for condensed ones."""
        codes, _ = _pictures(sample[: SIDE**2])
        whole = len(encode_mosaics(codes, self.codec, self.quality)[0]) + _BYTES_A_MOSAIC
        free = size - (2 * 4 * sample.shape[1] if condensed else 0)
        if free >= whole:
            return free * len(codes) // whole
        return self._largest(codes, free - _BYTES_A_MOSAIC)[0]  # a header weighs more in less than a mosaic

    def encode_within(
        self, images: Tensor, sizes: Sequence[int], normalization: Normalization | None
    ) -> tuple[dict[str, Tensor], int]:
        """See :class:`Store`. For every size, from the smallest, the mosaics so far fill it as well as they can."""
        codes, ranges = _pictures(images)
        used, start = bytes_of(ranges), 0
        mosaics: list[bytes] = []
        counts: list[int] = []
        for size in sorted(sizes):
            while start < len(codes):
                rest = codes[start : start + SIDE**2]
                count, mosaic = self._largest(rest, size - used - _BYTES_A_MOSAIC)
                if count:
                    mosaics.append(mosaic)
                    counts.append(count)
                    used, start = used + len(mosaic) + _BYTES_A_MOSAIC, start + count
                if count < len(rest):
                    break
        return _coded(mosaics, counts, ranges), start

    def _largest(self, pictures: Tensor, size: int) -> tuple[int, bytes]:
        """The mosaic of the most first pictures that takes at most ``size`` bytes, and their number; 0 if none does.

        The bytes of a mosaic grow with its pictures but for a little noise, so what does not fit is not tried larger.
        """
        best, mosaic, too_many = 0, b"", len(pictures) + 1
        count = len(pictures)
        while best < count < too_many and size > 0:
            (tried,) = encode_mosaics(pictures[:count], self.codec, self.quality)
            if len(tried) <= size:
                best, mosaic = count, tried
            else:
                too_many = count
            guess = count * size // len(tried)
            count = min(max(guess, best + 1), too_many - 1)
        return best, mosaic

    def count_within(self, parts: Parts, count: int, size: int) -> int:
        """See :class:`Store`; whole mosaics."""
        ranges = bytes_of({name: parts[name] for name in ("scale", "offset") if name in parts})
        bytes_with = (parts["lengths"] + _BYTES_A_MOSAIC).cumsum(0) + ranges
        kept = int((bytes_with <= size).sum())
        return min(count, int(parts["pictures"][:kept].sum()))

    def decode(self, parts: Parts, count: int, shape: Shape, normalization: Normalization | None) -> Tensor:
        """See :class:`Store`."""
        lengths, counts = parts["lengths"].tolist(), parts["pictures"].tolist()
        blobs = list(split_bytes(parts["mosaics"], lengths))
        codes = decode_mosaics(blobs, counts, self.codec, shape)[:count]
        if "scale" not in parts:
            return _known(normalization).apply(codes)
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


_BYTES_A_MOSAIC = 4 + 2
"""Of its length and its number of pictures."""


def _pictures(images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Pixel codes of images, and the range of every channel where they are condensed ones."""
    if images.dtype == torch.uint8:
        return images, {}
    count, channels, *sides = images.shape
    joined, scale, offset = encode(images.transpose(0, 1).reshape(1, channels, -1, 1))
    return joined.view(channels, count, *sides).transpose(0, 1), {"scale": scale[0], "offset": offset[0]}


def _coded(mosaics: Sequence[bytes], counts: Sequence[int], ranges: Mapping[str, Tensor]) -> dict[str, Tensor]:
    joined = bytearray(b"".join(mosaics))
    return {
        "mosaics": torch.frombuffer(joined, dtype=torch.uint8) if joined else torch.empty(0, dtype=torch.uint8),
        "lengths": torch.tensor([len(one) for one in mosaics], dtype=torch.int32),
        "pictures": torch.tensor(counts, dtype=torch.int16),
        **ranges,
    }


def bytes_of(parts: Parts) -> int:
    """Bytes of all parts."""
    return sum(part.numel() * part.element_size() for part in parts.values())


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


AUTO = "auto"
"""The ``quality`` that is chosen by the images and the budget, see :func:`best_quality`."""


def find_store(name: str, quality: int | str | None = None, pixels: int | None = None) -> Store:
    """The store of a name.

    Args:
        name: one of :data:`STORES`.
        quality: of a codec that loses something; None takes its default, and so does ``auto`` until it is chosen.
        pixels: height and width of what is kept of every image; None keeps them as they are.

    Raises:
        ValueError: there is no such store, this Pillow lacks its codec, or it takes no such quality; or images cannot
            be so small.
    """
    if pixels is not None:
        if not isinstance(pixels, int) or isinstance(pixels, bool) or pixels < 1:
            raise ValueError(f"pixels must be an integer of at least 1, got {pixels!r}")
        return SmallerStore(find_store(name, quality), pixels)
    if quality == AUTO:
        if name not in CODECS or CODECS[name].qualities is None:
            lossy = [codec for codec, about in CODECS.items() if about.qualities is not None]
            raise ValueError(
                f"quality auto belongs to the stores {', '.join(lossy)}, got it for {name!r}; leave it out"
            )
        quality = None
    if name in CODECS:
        if isinstance(quality, str):
            raise ValueError(f"quality must be a whole number or auto, got {quality!r}")
        return CodedStore(name, check_codec(name, quality))
    if name not in STORES:
        raise ValueError(f"store must be one of {', '.join(STORES)}, got {name!r}")
    if quality is not None:
        raise ValueError(f"quality belongs to the stores {', '.join(CODECS)}, got it for {name!r}; leave it out")
    return PackedStore(int(name[0])) if name.endswith("bit") else PlainStore(floats=name == "float32")


MORE_IMAGES = 7 / 4
"""Condensed images that are made where the quality is left open, to each that is expected to fit at the default."""
LOWEST = 0.6
"""Part of the default quality below which condensed images are not coded. Both as measured for AVIF, see
``results/rate_accuracy.md``: more condensed images, coded a little coarser, are worth more than fewer finer ones."""


def encode_finest(
    name: str,
    images: Tensor,
    sizes: Sequence[int],
    normalization: Normalization | None,
    pixels: int | None = None,
) -> tuple[Store, dict[str, Tensor], int]:
    """Condensed images of a class at the highest quality at which all of them fit, and at the lowest what fits of them.

    How many bytes condensed images take is known only when they are there, and is another for every method.

    Args:
        name: a codec with qualities.
        images: normalised floats, (k, c, h, w).
        sizes, normalization: see :meth:`Store.encode_within`.
        pixels: see :func:`find_store`.

    Returns:
        the store at that quality, what it keeps, and of how many images.
    """
    usual, (_, finest) = qualities_of(name)
    ladder = range(int(usual * LOWEST), finest + 1, 5)
    store = find_store(name, ladder[0], pixels)
    best = (store, *store.encode_within(images, sizes, normalization))
    low, high = 1, len(ladder) if best[2] == len(images) else 1
    while low < high:
        middle = (low + high) // 2
        store = find_store(name, ladder[middle], pixels)
        parts, count = store.encode_within(images, sizes, normalization)
        if count == len(images):
            best, low = (store, parts, count), middle + 1
        else:
            high = middle
    return best


def best_quality(name: str, size: int, images: Tensor, count: int, pixels: int | None = None) -> int:
    """The highest quality at which all images of a class fit into its bytes; the default where they do not.

    More pictures are worth more than finer ones down to the codec's default quality, which is chosen so; below it the
    pictures suffer more than their number gives (``results/README.md``). Once all of them are kept, bytes that are left
    make them finer.

    Args:
        name: a codec with qualities.
        size: bytes of the class.
        images: uint8 (k, c, h, w), some images of the class: a mosaic of them is coded at every quality that is tried.
        count: images of the class.
        pixels: see :func:`find_store`.
    """
    (usual, (_, finest)), sample = qualities_of(name), images[: SIDE**2]
    ladder = [quality for quality in range(finest // 5 * 5, usual, -5)]
    for quality in ladder:
        if find_store(name, quality, pixels).count_for(size, sample, False, None) >= count:
            return quality
    return usual
