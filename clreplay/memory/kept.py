"""How a memory keeps its pictures, in one word."""

from __future__ import annotations

from dataclasses import dataclass

from clreplay.memory.stores import AUTO, find_store


@dataclass(frozen=True)
class Kept:
    """How a memory keeps its pictures: ``uint8``, ``avif``, ``avif:30``, ``avif:auto:16px``.

    Attributes:
        store, quality, pixels: as of :class:`clreplay.ReplayMemory`.
    """

    store: str
    quality: int | str | None = None
    pixels: int | None = None

    @classmethod
    def parse(cls, text: str) -> Kept:
        """Read a text.

        Raises:
            ValueError: it is not of that form, or as :func:`clreplay.memory.stores.find_store`.
        """
        store, *more = text.split(":")
        quality: int | str | None = None
        pixels: int | None = None
        for part in more:
            if part == AUTO or part.isdigit():
                quality = part if part == AUTO else int(part)
            elif part.endswith("px") and part[:-2].isdigit():
                pixels = int(part[:-2])
            else:
                raise ValueError(f"store must be like avif, avif:30 or avif:auto:16px, got {text!r}")
        find_store(store, quality, pixels)
        return cls(store, quality, pixels)

    def __str__(self) -> str:
        quality = [] if self.quality is None else [str(self.quality)]
        return ":".join([self.store, *quality, *([] if self.pixels is None else [f"{self.pixels}px"])])
