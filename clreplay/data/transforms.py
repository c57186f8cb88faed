"""Transforms that make a new domain of a data set: the same classes, seen otherwise."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as pictures

from clreplay.runtime.seeding import generator

Apply = Callable[[Tensor, float, str], Tensor]
_AT_ONCE = 4096


@dataclass(frozen=True)
class DomainTransform:
    """One of :data:`TRANSFORMS`.

    Attributes:
        name: what it is called.
        unit: of its number, for messages; empty where it takes none.
        apply: given uint8 images (n, c, h, w), the number and a text that keys all chance, the same in another domain.
        within: what the number may be.
        usual: the number where none is given; None where it must be given.
    """

    name: str
    unit: str
    apply: Apply
    within: tuple[float, float] = (-math.inf, math.inf)
    usual: float | None = None

    @property
    def written(self) -> str:
        """How a person writes it."""
        if not self.unit:
            return self.name
        return f"{self.name}:{self.unit}" if self.usual is None else f"{self.name}[:{self.unit}]"


TRANSFORMS: dict[str, DomainTransform] = {}
"""By name."""


def register_transform(
    name: str, unit: str = "", within: tuple[float, float] = (-math.inf, math.inf), usual: float | None = None
) -> Callable[[Apply], Apply]:
    """Enter a transform in the table; used as a decorator of its function, see :class:`DomainTransform`.

    Raises:
        ValueError: the name is taken.
    """
    if name in TRANSFORMS:
        raise ValueError(f"transform {name!r} is there already; choose another name")

    def register(apply: Apply) -> Apply:
        TRANSFORMS[name] = DomainTransform(name, unit, apply, within, usual)
        return apply

    return register


@register_transform("none")
def _as_they_are(images: Tensor, number: float, key: str) -> Tensor:
    return images


@register_transform("rotate", "DEGREES")
def _rotate(images: Tensor, degrees: float, key: str) -> Tensor:
    """Counter-clockwise about the centre, bilinear; what comes in at the corners is black."""
    if degrees % 360 == 0:
        return images
    turned: Tensor = pictures.rotate(images, degrees, InterpolationMode.BILINEAR)
    return turned


@register_transform("invert")
def _invert(images: Tensor, number: float, key: str) -> Tensor:
    return 255 - images


@register_transform("blur", "PIXELS", within=(0.1, 64.0), usual=1.0)
def _blur(images: Tensor, sigma: float, key: str) -> Tensor:
    """A Gaussian of so many pixels' deviation, three deviations wide to each side or as wide as the image allows."""
    width = min(math.ceil(3 * sigma), min(images.shape[2:]) - 1)
    blurred: Tensor = pictures.gaussian_blur(images, [2 * width + 1] * 2, [sigma, sigma]) if width else images
    return blurred


@register_transform("background", "BRIGHTNESS", within=(0.01, 1.0), usual=0.6)
def _background(images: Tensor, brightness: float, key: str) -> Tensor:
    """A smooth random pattern of at most this brightness, another for every image, behind whatever is brighter."""
    _, channels, height, width = images.shape
    chance, parts = generator("background", key), []
    for part in images.split(_AT_ONCE):
        coarse = torch.rand(len(part), channels, 5, 5, generator=chance)
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
        pattern = (smooth.clamp(0, 1) * 255 * brightness).round().to(torch.uint8)
        parts.append(torch.maximum(part, pattern.to(part.device)))
    return torch.cat(parts)


def known_transforms() -> str:
    """All of them as a person writes them, for messages."""
    return ", ".join(one.written for one in TRANSFORMS.values())


@dataclass(frozen=True)
class DomainView:
    """One or several transforms after one another.

    Attributes:
        text: how it is written: ``rotate:30``, ``rotate:30+blur``.
        steps: transforms with their numbers.
    """

    text: str
    steps: tuple[tuple[DomainTransform, float], ...]

    @classmethod
    def parse(cls, text: str) -> DomainView:
        """Read a text.

        Raises:
            ValueError: a transform is unknown, or its number missing, out of range or none.
        """
        return cls(text, tuple(_parse_one(part, text) for part in text.split("+")))

    def __call__(self, images: Tensor, part: str) -> Tensor:
        """Images as this domain has them, uint8 of the same shape.

        Args:
            images: uint8 (n, c, h, w).
            part: ``train`` or ``test``: patterns are drawn by it and by the place of an image.
        """
        for number, (transform, value) in enumerate(self.steps):
            images = transform.apply(images, value, f"{self.text} {number} {part}")
        return images


def _parse_one(part: str, text: str) -> tuple[DomainTransform, float]:
    name, colon, number = part.partition(":")
    if name not in TRANSFORMS:
        raise ValueError(f"there is no transform {name!r} (in {text!r}){nearest(name, TRANSFORMS)}")
    transform = TRANSFORMS[name]
    if not transform.unit:
        if colon:
            raise ValueError(f"transform {name} takes no number, got {part!r}; write {name}")
        return transform, 0.0
    if not colon and transform.usual is not None:
        return transform, transform.usual
    low, high = transform.within
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and low <= value <= high):
        limits = f" within {low:g} and {high:g}" if math.isfinite(high) else ""
        raise ValueError(f"transform {name} takes a number{limits}, {transform.written}, got {part!r}")
    return transform, value


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'rotate'?`` if a known name is similar, else an empty text."""
    close = difflib.get_close_matches(name, list(known), n=2)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
