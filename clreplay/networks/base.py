"""What every network of this library gives: an embedding, style taps, both in one pass, and logits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

TAP_POINTS = ("conv", "norm", "act", "pool")
"""Where in a block style terms may read maps: after its convolution, its norm, its activation, its pooling. Where a
network has no such layer, the map before it stands for it."""


class Tap(Protocol):
    """Called with every map that style terms may read, in the order of the blocks, during the forward pass."""

    def __call__(self, maps: Tensor, point: str = "act") -> None:
        """Take (n, channels, h, w) maps at one of :data:`TAP_POINTS`; ``act`` is what style terms read by default."""


class _Taps:
    """Keeps the maps at some points."""

    def __init__(self, points: Collection[str]) -> None:
        self.at: dict[str, list[Tensor]] = {point: [] for point in points}

    def __call__(self, maps: Tensor, point: str = "act") -> None:
        if point in self.at:
            self.at[point].append(maps)


ImageSize = int | tuple[int, int]
"""Pixels a side of square images, or height and width."""


class Network(nn.Module):
    """A classifier whose last layer is linear in the embedding.

    A subclass sets ``embedding_size`` and ``classifier`` and says in ``_embed`` how images become the
    embedding, handing the maps that style terms read to ``tap`` on the way, equally many at each of
    :data:`TAP_POINTS`. Activations are never in place: a tap must not be written over by what follows it.

    Args:
        num_classes: outputs of the classifier.
        channels: channels of the images.
        image_size: height and width of the images in pixels; one number where they are alike.

    Attributes:
        image_size: as it was given, one number of square images.
        sides: height and width.

    Raises:
        ValueError: one of them is less than 1.
    """

    TRACED = True
    """Whether a change of its code would be noticed, so that what it makes may be kept for other runs."""
    NORMS: tuple[str, ...] = ()
    """What the option ``norm`` may be; empty for networks that have no such option."""
    embedding_size: int
    classifier: nn.Linear

    def __init__(self, num_classes: int, channels: int, image_size: ImageSize) -> None:
        super().__init__()
        self.sides = sides_of(image_size)
        for name, value in {"num_classes": num_classes, "channels": channels, "image_size": min(self.sides)}.items():
            if value < 1:
                got = image_size if name == "image_size" else value
                raise ValueError(f"{name} must be at least 1, got {got}")
        self.num_classes, self.channels, self.image_size = num_classes, channels, size_of(self.sides)

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> None:
        """What can be said about options before the images are known.

        Raises:
            ValueError: naming the option, its value and what is allowed.
        """
        if "norm" in options and options["norm"] not in cls.NORMS:
            raise ValueError(f"norm of {cls.__name__} must be one of {', '.join(cls.NORMS)}, got {options['norm']!r}")

    def _embed(self, images: Tensor, tap: Tap) -> Tensor:
        raise NotImplementedError

    def features(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Embedding (n, embedding_size) and the taps after activations, of one forward pass."""
        embedding, taps = self.features_at(images, ("act",))
        return embedding, taps["act"]

    def features_at(self, images: Tensor, points: Collection[str]) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """Embedding (n, embedding_size) and, for some of :data:`TAP_POINTS`, the taps, of one forward pass.

        Raises:
            ValueError: a network of the user's own does not say what its maps at a point are.
        """
        taps = _Taps(points)
        embedding = self._embed(images, taps)
        counts = {point: len(maps) for point, maps in taps.at.items()}
        if len({*counts.values()}) > 1:
            raise ValueError(f"{type(self).__name__} gives different numbers of maps at tap points: {counts}")
        return embedding, taps.at

    def embedding(self, images: Tensor) -> Tensor:
        """What the classifier reads: (n, embedding_size)."""
        return self._embed(images, _forget)

    def taps(self, images: Tensor) -> list[Tensor]:
        """The maps after activations, (n, channels, h, w) each."""
        return self.features(images)[1]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, num_classes) of images (n, channels, h, w)."""
        return self.classifier(self.embedding(images))


def _forget(maps: Tensor, point: str = "act") -> None:
    pass


def sides_of(image_size: ImageSize) -> tuple[int, int]:
    """Height and width, of one number or of both."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return int(height), int(width)


def size_of(sides: Sequence[int]) -> ImageSize:
    """One number where height and width are alike, as networks of one's own know it, else both."""
    height, width = sides
    return int(height) if height == width else (int(height), int(width))


def in_pixels(sides: Sequence[int]) -> str:
    """Height and width for a message."""
    height, width = sides
    return str(height) if height == width else f"{height} x {width} (height x width)"


def digits_padding(image_size: ImageSize) -> int:
    """Pixels a side that the first convolution adds: 28-pixel digits become 32, as in DC's networks."""
    return 2 if sides_of(image_size) == (28, 28) else 0


def norm_layer(norm: str, width: int, size: ImageSize = 0) -> nn.Module:
    """The norm layer of ``width`` channels; ``instance`` is a group norm with one group a channel, affine.

    Args:
        norm: ``instance``, ``group`` (4 groups), ``batch``, ``layer`` or ``none``.
        width: channels of the maps.
        size: height and width of the maps; only ``layer`` needs it.
    """
    if norm == "instance":
        return nn.GroupNorm(width, width, affine=True)
    if norm == "group":
        return nn.GroupNorm(4, width, affine=True)
    if norm == "batch":
        return nn.BatchNorm2d(width)
    if norm == "layer":
        return nn.LayerNorm([width, *sides_of(size)])
    return nn.Identity()
