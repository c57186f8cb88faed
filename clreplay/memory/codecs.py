"""Image codecs for the pictures of a memory: many small pictures in one coded image, so that its header is shared.

A 32-pixel picture by itself costs AVIF 480 bytes, most of them header; in a mosaic of 8 x 8 it costs 140 (quality 50,
CIFAR-100). Pictures of a class lie in mosaics of up to :data:`SIDE` x :data:`SIDE`, in their order, row by row. Nothing
but Pillow is needed to read one.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError, features
from torch import Tensor

SIDE = 8
"""Pictures in a row of a mosaic. Bytes a picture with AVIF at quality 50, CIFAR-100: 488, 219, 161, 144 and 142 in
mosaics of 1, 2, 4, 8 and 16 pictures a side; a larger mosaic is a larger piece to drop."""
GREY, COLOUR = 1, 3


@dataclass(frozen=True)
class Codec:
    """How one codec is called.

    Attributes:
        format: Pillow's name.
        feature: Pillow's name of what it must have been built with; None for what is always there.
        qualities: the range of ``quality``; None where the codec loses nothing and takes none.
        quality: the default.
        options: of Pillow's ``save``, measured on CIFAR-100: AVIF's colours at full resolution are worth 0.7 dB for
            4 % of the bytes.
    """

    format: str
    feature: str | None
    qualities: tuple[int, int] | None
    quality: int | None
    options: dict[str, Any] = field(default_factory=dict)


CODECS = {
    "png": Codec("PNG", "zlib", None, None, {"optimize": True}),
    "jpeg": Codec("JPEG", "jpg", (1, 95), 75, {"optimize": True}),
    "webp": Codec("WEBP", "webp", (0, 100), 75, {"method": 6}),
    "avif": Codec("AVIF", "avif", (0, 100), 50, {"subsampling": "4:4:4", "speed": 6}),
}


@cache
def available(name: str) -> bool:
    """Whether this machine's Pillow has the codec."""
    feature = CODECS[name].feature
    return feature is None or bool(features.check(feature))


def qualities_of(name: str) -> tuple[int, tuple[int, int]]:
    """The default quality of a codec that has qualities, and their range."""
    codec = CODECS[name]
    assert codec.quality is not None and codec.qualities is not None, f"{name} loses nothing"
    return codec.quality, codec.qualities


def check_codec(name: str, quality: int | None) -> int | None:
    """The quality that a codec is used with: the given one, or its default.

    Raises:
        ValueError: Pillow lacks the codec, or the quality is out of its range, or it takes none.
    """
    codec = CODECS[name]
    if not available(name):
        raise ValueError(f"store {name!r} needs a Pillow with {codec.format}, which this one lacks; upgrade Pillow")
    if quality is None:
        return codec.quality
    if codec.qualities is None:
        raise ValueError(f"store {name!r} loses nothing and takes no quality, got {quality!r}; leave it out")
    low, high = codec.qualities
    if not isinstance(quality, int) or isinstance(quality, bool) or not low <= quality <= high:
        raise ValueError(f"quality of store {name!r} must be an integer within {low} and {high}, got {quality!r}")
    return quality


def encode_mosaics(pictures: Tensor, name: str, quality: int | None, side: int = SIDE) -> list[bytes]:
    """Code pictures, ``side * side`` of them in an image; the last may hold fewer.

    Args:
        pictures: uint8 (k, c, h, w), c 1 or 3.
        name: of the codec.
        quality: see :func:`check_codec`.
        side: pictures in a row.

    Raises:
        ValueError: another number of channels, or as :func:`check_codec`.
    """
    check_channels(pictures.shape[1], name)
    quality = check_codec(name, quality)
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as threads:
        return list(threads.map(lambda part: _encode(part, name, quality, side), pictures.split(side * side)))


def check_channels(channels: int, name: str) -> None:
    """Codecs know grey and colour pictures.

    Raises:
        ValueError: any other number of channels.
    """
    if channels not in (GREY, COLOUR):
        raise ValueError(
            f"store {name!r} codes pictures of {GREY} or {COLOUR} channels, got {channels}; use uint8 or float32"
        )


def decode_mosaics(
    mosaics: Sequence[bytes], counts: Sequence[int], name: str, shape: tuple[int, int, int], side: int = SIDE
) -> Tensor:
    """The pictures of mosaics, uint8 (sum of counts, c, h, w).

    What is to come out is known before anything is allocated: a mosaic of another size or format is refused by its
    header.

    Args:
        mosaics: as :func:`encode_mosaics` gives them.
        counts: pictures in each.
        name: of the codec.
        shape: (c, h, w) of a picture.
        side: pictures in a row.

    Raises:
        ValueError: a mosaic is damaged, of another format, or of another size.
    """
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as threads:
        parts = list(threads.map(lambda blob, n: _decode(blob, n, name, shape, side), mosaics, counts))
    return torch.cat(parts) if parts else torch.empty(0, *shape, dtype=torch.uint8)


def grid(count: int, side: int) -> tuple[int, int]:
    """Rows and columns of a mosaic of ``count`` pictures."""
    return math.ceil(count / side), min(count, side)


def _encode(pictures: Tensor, name: str, quality: int | None, side: int) -> bytes:
    count, channels, height, width = pictures.shape
    rows, columns = grid(count, side)
    # Cells that are left over repeat the last picture: an empty cell would cost the codec an edge.
    filled = torch.cat([pictures, pictures[-1:].expand(rows * columns - count, -1, -1, -1)])
    cells = filled.view(rows, columns, channels, height, width)
    pixels = cells.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels).numpy()
    picture = Image.fromarray(pixels[:, :, 0] if channels == GREY else pixels)
    out, codec = io.BytesIO(), CODECS[name]
    picture.save(out, codec.format, **codec.options, **({} if quality is None else {"quality": quality}))
    return out.getvalue()


def _decode(mosaic: bytes, count: int, name: str, shape: tuple[int, int, int], side: int) -> Tensor:
    channels, height, width = shape
    rows, columns = grid(count, side)
    try:
        with Image.open(io.BytesIO(mosaic), formats=[CODECS[name].format]) as image:
            if image.size != (columns * width, rows * height):
                raise ValueError(
                    f"a coded image must be {columns * width} x {rows * height} pixels for {count} pictures of "
                    f"{width} x {height}, its header says {image.size[0]} x {image.size[1]}; the memory is damaged"
                )
            pixels = np.array(image.convert("L" if channels == GREY else "RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"a coded image is no {CODECS[name].format} that can be read ({error})") from error
    cells = torch.from_numpy(pixels).view(rows, height, columns, width, channels)
    return cells.permute(0, 2, 4, 1, 3).reshape(rows * columns, channels, height, width)[:count].contiguous()


def split_bytes(joined: Tensor, lengths: Sequence[int]) -> Iterator[bytes]:
    """The parts of bytes that lie one after another, uint8 (sum of lengths,)."""
    data, start = joined.numpy(), 0
    for length in lengths:
        yield data[start : start + length].tobytes()
        start += length
