"""Decoding images to pixel codes: which formats are accepted, and how colours and sizes are converted."""

from __future__ import annotations

import io
import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from clreplay.data.errors import BadImages, InvalidDataError
from clreplay.data.readers.bounds import check_size, read_small

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF")
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")


@dataclass(frozen=True)
class Target:
    """The size and colours that every image of a set is converted to.

    Args:
        size: height and width in pixels, one number where they are alike; 0 means the size of the first training image.
        channels: 3 for colour, 1 for grey.
        resize: whether images of other sizes are resized, both sides to `size` without keeping the aspect ratio, as
            torchvision's `Resize((height, width))` does. Otherwise they are refused.
        hint: end of the message for images of another size: what the user can do.
    """

    size: int | tuple[int, int]
    channels: int = 3
    resize: bool = False
    hint: str = field(default="", compare=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, *self.sides

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def text(self) -> str:
        """`64`, or `48x64` where height and width differ."""
        return sides_text(self.sides)


def sides_text(sides: tuple[int, int]) -> str:
    """Height and width as names have them: `64`, or `48x64` where they differ."""
    height, width = sides
    return str(height) if height == width else f"{height}x{width}"


class UnfitImageError(ValueError):
    """An intact image that does not fit the data set."""


def decode_image(encoded: bytes | None, target: Target) -> np.ndarray:
    """Pixel codes of one encoded image, uint8 (c, height, width).

    Colours are converted before the size, as in torchvision's image folders: grey, palette and CMYK images
    become RGB, transparency is dropped, an orientation in the EXIF data is not applied. With one channel colours
    become grey by ITU-R 601. Resizing is Pillow's antialiased bilinear filter.

    Raises:
        UnfitImageError: another size than `target` asks for, or a grey image with more than eight bits a channel.
        Exception: any error of Pillow, for bytes that are no image or end too early.
    """
    from PIL import Image

    if encoded is None:
        raise ValueError("no image bytes, only a path")
    with _opened(encoded) as image:
        height, width = target.sides
        wanted = (width, height)
        if image.size != wanted and not target.resize:
            raise UnfitImageError(
                f"image must be {height}x{width}, got {image.height}x{image.width} (height x width){target.hint}"
            )
        image = _with_colours(image, target.channels)
        if image.size != wanted:
            image = image.resize(wanted, Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
    return pixels[None] if target.channels == 1 else pixels.transpose(2, 0, 1)


def image_side(encoded: bytes | None) -> tuple[int, int]:
    """Width and height of an encoded image; its pixels are not decoded."""
    if encoded is None:
        raise ValueError("no image bytes, only a path")
    with _opened(encoded) as image:
        width, height = image.size
        return width, height


def _opened(encoded: bytes) -> Any:
    """The image without its pixels, unless they would be too many.

    Raises:
        UnfitImageError: it says that it has more pixels than Pillow's bound, which is for people to raise.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # an error comes instead
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and image.width * image.height > most:
        raise UnfitImageError(
            f"image of {image.height}x{image.width} (height x width) must have at most {most:,} pixels; shrink it"
        )
    return image


def _with_colours(image: Any, channels: int) -> Any:
    if image.mode.startswith(("I", "F")):  # Pillow would cut every value above 255 without a warning
        raise UnfitImageError(f"image has more than 8 bits a channel (mode {image.mode}); convert it to 8 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours, without Pillow's warning
    mode = "RGB" if channels == 3 else "L"
    return image if image.mode == mode else image.convert(mode)


def in_words(error: Exception) -> str:
    """What an error of Pillow says, without the object that it was given instead of a file's name."""
    return re.sub(r" <_io\.BytesIO object at \w+>", "", str(error))


# --- batches: the work of a decoding process ----------------------------------------------------------------------


class Batch(Protocol):
    """Some images of a split, small enough to be sent to another process."""

    @property
    def rows(self) -> tuple[int, ...]: ...

    def images(self) -> Iterator[tuple[str, bytes | None]]:
        """The name of each image in error messages, and its encoded bytes, in the order of `rows`."""
        ...


class FileBatch(NamedTuple):
    """Files, by their paths relative to a folder."""

    rows: tuple[int, ...]
    folder: str
    names: tuple[str, ...]

    def images(self) -> Iterator[tuple[str, bytes]]:
        for name in self.names:
            path = Path(self.folder, name)
            try:
                yield str(path), read_small(path)
            except (OSError, ValueError) as error:
                raise InvalidDataError(f"{path} cannot be read: {error}; copy it again") from error


class ZipBatch(NamedTuple):
    """Members of a zip archive."""

    rows: tuple[int, ...]
    archive: str
    names: tuple[str, ...]

    def images(self) -> Iterator[tuple[str, bytes]]:
        # By process: forked children share a file's position with the parent that opened it. By time of change:
        # a new archive may have taken the name.
        try:
            archive = _open_zip(self.archive, os.getpid(), os.stat(self.archive).st_mtime_ns)
        except Exception as error:
            raise InvalidDataError(f"{self.archive} cannot be read: {error}; fetch it again") from error
        for name in self.names:
            try:
                check_size(archive.getinfo(name).file_size)  # no more than that is unpacked
                yield f"{self.archive}: {name}", archive.read(name)
            except Exception as error:  # zlib and zipfile each have their own kinds
                message = f"{self.archive}: {name} cannot be unpacked: {error}; fetch the archive again"
                raise InvalidDataError(message) from error


class BytesBatch(NamedTuple):
    """Encoded images that are already in memory, from a stream or a Parquet file."""

    rows: tuple[int, ...]
    names: tuple[str, ...]
    data: tuple[bytes | None, ...]

    def images(self) -> Iterator[tuple[str, bytes | None]]:
        return zip(self.names, self.data, strict=True)


def decode_batch(batch: Batch, target: Target) -> tuple[tuple[int, ...], np.ndarray]:
    """A batch's rows and their pixel codes, uint8 (n, c, height, width).

    Raises:
        BadImages: some cannot be used; their files (and rows or members) are named.
        MemoryError: there was too little memory for one.
    """
    pixels = np.empty((len(batch.rows), *target.shape), dtype=np.uint8)
    bad: list[str] = []
    reason = ""
    for out, (name, encoded) in zip(pixels, batch.images(), strict=True):
        try:
            out[...] = decode_image(encoded, target)
        except UnfitImageError as error:
            reason = reason or f"{name}: {error}"
            bad.append(name)
        except MemoryError:
            raise
        except Exception as error:  # Pillow's plugins raise nearly anything on damaged bytes
            reason = reason or f"{name}: {in_words(error)}; fetch the file again"
            bad.append(name)
    if bad:
        raise BadImages(reason, tuple(bad))
    return batch.rows, pixels


@lru_cache(maxsize=1)
def _open_zip(path: str, process: int, changed: int) -> zipfile.ZipFile:
    # Kept open from batch to batch: reading the table of 100,000 members takes longer than decoding a batch.
    return zipfile.ZipFile(path)
