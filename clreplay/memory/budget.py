"""Budgets of a memory, in images or in bytes, a class or in all, and how classes share them."""

from __future__ import annotations

import numbers
from dataclasses import asdict, dataclass


class TooFewBytes(ValueError):
    """A budget in bytes leaves a class less than an image."""


@dataclass(frozen=True)
class Budget:
    """One of four limits of what a memory stores.

    Attributes:
        images_per_class: images of every class.
        mem_size: images in all; the share of a class shrinks as classes arrive.
        bytes_per_class: bytes of every class.
        mem_bytes: bytes in all; the share of a class shrinks as classes arrive.

    Raises:
        ValueError: not exactly one is given, or it is no integer of at least 1.
    """

    images_per_class: int | None = None
    mem_size: int | None = None
    bytes_per_class: int | None = None
    mem_bytes: int | None = None

    def __post_init__(self) -> None:
        names = [name for name, value in asdict(self).items() if value is not None]
        if len(names) != 1:
            raise ValueError(
                f"give either {' or '.join(asdict(self))}, one of them; got {', '.join(names) if names else 'none'}"
            )
        name, value = self.given
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        object.__setattr__(self, name, int(value))  # of NumPy's kind it could not be written to a file

    @property
    def given(self) -> tuple[str, int]:
        """The one limit that is given: its name and its value."""
        return next((name, value) for name, value in asdict(self).items() if value is not None)

    @property
    def in_bytes(self) -> bool:
        """Whether it counts bytes."""
        return self.bytes_per_class is not None or self.mem_bytes is not None

    def __str__(self) -> str:
        name, value = self.given
        texts = {"images_per_class": "images a class", "mem_size": "images in all"}
        texts.update(bytes_per_class="bytes a class", mem_bytes="bytes in all")
        return f"{value:,} {texts[name]}" if self.in_bytes else f"{value} {texts[name]}"

    def quotas(self, classes: int) -> list[int]:
        """Images of every class, in order of arrival, when ``classes`` are in memory; for a budget in images.

        A total is shared so that classes differ by at most one image; the earlier ones get the remainder, so that no
        quota ever grows as classes arrive.

        Raises:
            ValueError: the budget is smaller than the number of classes.
        """
        if self.images_per_class is not None:
            return [self.images_per_class] * classes
        assert self.mem_size is not None, "this is for a budget in images"
        if self.mem_size < classes:
            raise ValueError(
                f"mem_size must be at least the number of classes seen ({classes}), got {self.mem_size}; raise it"
            )
        return [(self.mem_size - position + classes - 1) // classes for position in range(classes)]

    def share(self, classes: int) -> int:
        """Bytes of every class when ``classes`` are in memory; for a budget in bytes."""
        if self.bytes_per_class is not None:
            return self.bytes_per_class
        assert self.mem_bytes is not None, "this is for a budget in bytes"
        return self.mem_bytes // classes

    def shares_ahead(self, classes: int, arriving: int, total: int | None = None) -> list[int]:
        """The share of a class now and at every later arrival, falling; for a budget in bytes.

        What is coded together can only be dropped together, so the steps in which a class will shrink decide what is
        coded together.

        Args:
            classes: in memory, those that arrive now among them.
            arriving: how many arrive now; as many are expected each time.
            total: how many will come in all; None where nobody knows, and shares are halved again and again.
        """
        if self.bytes_per_class is not None:
            return [self.bytes_per_class]
        if total is not None:
            seen = sorted({*range(classes, max(total, classes) + 1, max(1, arriving)), max(total, classes)})
            return [self.share(count) for count in seen]
        shares = [self.share(classes)]
        while shares[-1] > 1:
            shares.append(shares[-1] // 2)
        return shares
