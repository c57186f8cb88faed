"""How stored images become the images one trains on: a table of named decoders.

Most memories store the very images that a learner sees. Some store something else, such as four small pictures
in one image; they name the decoder that gives the images back. A memory counts and saves what is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

Decode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Decoder:
    """A registered decoder; call it with stored images.

    Attributes:
        name: what a memory's file says.
        images_each: images that one stored image gives.
        decode: the function registered.
    """

    name: str
    images_each: int
    decode: Decode

    def __call__(self, stored: Tensor) -> Tensor:
        """Images from stored ones, differentiable: (n, c, h, w) float to (n * images_each, c, h, w).

        The images of a stored image stand together, in the order of the stored ones, so fewer stored images give
        a prefix of what more give.

        Raises:
            ValueError: the decoder does not suit such images, or gives another shape than it must.
        """
        images = self.decode(stored)
        expected = (len(stored) * self.images_each, *stored.shape[1:])
        if tuple(images.shape) != expected:
            raise ValueError(
                f"decoder {self.name!r} must give {self.images_each} image(s) of the stored shape for each, so "
                f"{expected} here, got {tuple(images.shape)}"
            )
        return images


DECODERS: dict[str, Decoder] = {}


def register_decoder(name: str, images_each: int = 1) -> Callable[[Decode], Decode]:
    """Enter a decoder in the table, so that :class:`clreplay.condensation.Condensed` can name it.

    Args:
        name: what ``Condensed.decoding`` and memory files say; it must stay the same for files to be readable.
        images_each: images that one stored image gives.

    Raises:
        ValueError: another decoder has the name, or ``images_each`` is below 1.
    """
    if images_each < 1:
        raise ValueError(f"images_each must be at least 1, got {images_each}")

    def enter(decode: Decode) -> Decode:
        registered = DECODERS.get(name)
        # A file may be imported twice, under a name of its own and by a recipe: its decoder is the same one.
        if registered is not None and _origin(registered.decode) != _origin(decode):
            raise ValueError(f"decoder {name!r} is registered already; choose another name")
        DECODERS[name] = Decoder(name, images_each, decode)
        return decode

    return enter


def decoder(name: str) -> Decoder:
    """The decoder of a name.

    Raises:
        ValueError: it is unknown.
    """
    if name not in DECODERS:
        raise ValueError(
            f"unknown decoding {name!r}; known: {', '.join(sorted(DECODERS))}. A decoder of your own must be "
            "registered first: import the file, or load the recipe, that registers it"
        )
    return DECODERS[name]


@register_decoder("none")
def as_stored(stored: Tensor) -> Tensor:
    """The stored images themselves."""
    return stored


def tiles(stored: Tensor, factor: int) -> Tensor:
    """Partition and expansion of IDC and IDM (Zhao et al., CVPR 2023): every tile becomes an image of full size.

    Tiles are enlarged bilinearly (``align_corners`` False), each by itself: nothing of a neighbour leaks in.

    Args:
        stored: (n, c, h, w) float.
        factor: tiles in a row and in a column; it divides h and w.

    Returns:
        (n * factor * factor, c, h, w): the tiles of each stored image row by row.

    Raises:
        ValueError: another height or width.
    """
    n, c, h, w = stored.shape
    if h % factor or w % factor:
        raise ValueError(
            f"tiles{factor} needs images whose height and width are multiples of {factor}, got {h} x {w}; resize them"
        )
    cells = stored.reshape(n, c, factor, h // factor, factor, w // factor).permute(0, 2, 4, 1, 3, 5)
    small = cells.reshape(n * factor * factor, c, h // factor, w // factor)
    return F.interpolate(small, size=(h, w), mode="bilinear", align_corners=False)


def joined(small: Tensor, factor: int) -> Tensor:
    """The reverse of cutting an image into tiles: every ``factor * factor`` small images in one, row by row.

    Args:
        small: (n * factor * factor, c, h, w).

    Returns:
        (n, c, h * factor, w * factor).
    """
    _, c, h, w = small.shape
    cells = small.view(-1, factor, factor, c, h, w).permute(0, 3, 1, 4, 2, 5)
    return cells.reshape(-1, c, h * factor, w * factor)


@register_decoder("tiles2", images_each=4)
def tiles2(stored: Tensor) -> Tensor:
    """Four images in one, see :func:`tiles`."""
    return tiles(stored, 2)


@register_decoder("tiles3", images_each=9)
def tiles3(stored: Tensor) -> Tensor:
    """Nine images in one, see :func:`tiles`."""
    return tiles(stored, 3)


@register_decoder("tiles4", images_each=16)
def tiles4(stored: Tensor) -> Tensor:
    """Sixteen images in one, see :func:`tiles`."""
    return tiles(stored, 4)


def _origin(decode: Decode) -> tuple[str | None, str | None]:
    """The file and the name under which a function was defined."""
    code = getattr(decode, "__code__", None)
    return getattr(code, "co_filename", None), getattr(decode, "__qualname__", None)
