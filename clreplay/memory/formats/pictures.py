"""What goes out of a memory and comes back: the images one trains on, with all that is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from clreplay.data import Normalization
from clreplay.memory.class_names import as_plain, check_class_names, label_table
from clreplay.memory.slot import SharedSlot, Slot, in_turn, sources_of
from clreplay.runtime.provenance import made_with

LAYOUT = 1
"""Of what an export says of itself, in ``about``."""


class Exportable(Protocol):
    """What is asked of a memory: attributes of :class:`clreplay.ReplayMemory`."""

    @property
    def images(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor: ...
    @property
    def class_names(self) -> dict[int, str]: ...

    slots: dict[int, Any]
    normalization: Normalization | None
    info: dict[str, Any]
    record: list[dict[str, Any]]


@dataclass(frozen=True)
class ExportedClass:
    """One class.

    Attributes:
        label: of the memory.
        count: images of it.
        task_label: it came with.
        key: hash of its real images.
    """

    label: int
    count: int
    task_label: int = 0
    key: str = ""


@dataclass(frozen=True)
class Pictures:
    """The training images of a memory, class by class in the memory's order.

    Attributes:
        images: uint8 pixel codes (n, c, h, w); or float32, as network input.
        classes: of the images, one after another.
        class_names: those that are known, by label.
        normalization: how pixel codes become network input; None where nobody knows.
        info, record: of the memory.
        scale, offset: with uint8 images, None or float32 (n,): pixels, on the scale from 0 to 1, are
            ``code / 255 * scale + offset``.
    """

    images: Tensor
    classes: Sequence[ExportedClass]
    class_names: dict[int, str]
    normalization: Normalization | None
    info: dict[str, Any] = field(default_factory=dict)
    record: list[dict[str, Any]] = field(default_factory=list)
    scale: Tensor | None = None
    offset: Tensor | None = None

    @classmethod
    def of(cls, memory: Exportable) -> Pictures:
        """Those of a memory: pixel codes where all its classes have nothing else, and one trains on them as they are.

        Raises:
            ValueError: the memory is empty.
        """
        images, slots = memory.images, memory.slots
        codes = [_pixel_codes(slot) for slot in slots.values()]
        classes = [ExportedClass(label, slot.decoded, slot.task_label, slot.key) for label, slot in slots.items()]
        names = {label: name for label, name in memory.class_names.items()}
        whole = images if any(one is None for one in codes) else torch.cat([one for one in codes if one is not None])
        return cls(whole, classes, names, memory.normalization, dict(memory.info), list(memory.record))

    @property
    def labels(self) -> Tensor:
        """(n,) int64."""
        return torch.tensor([one.label for one in self.classes for _ in range(one.count)], dtype=torch.int64)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of an image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def table(self) -> tuple[list[int], list[str]]:
        """Labels and names by place, see :func:`clreplay.memory.class_names.label_table`."""
        return label_table([one.label for one in self.classes], self.class_names)

    def about(self) -> dict[str, Any]:
        """All but the images and the record, as JSON knows it."""
        return {
            "layout": LAYOUT,
            "clreplay": made_with()["clreplay"],
            "images": len(self.images),
            "shape": list(self.shape),
            "normalization": None
            if self.normalization is None
            else [list(self.normalization.mean), list(self.normalization.std)],
            "classes": [
                {
                    "label": one.label,
                    "name": self.class_names.get(one.label, str(one.label)),
                    "images": one.count,
                    "task_label": one.task_label,
                    "key": one.key,
                }
                for one in self.classes
            ],
            "info": {**self.info, **({"class_names": as_plain(self.class_names)} if self.class_names else {})},
        }


def read_about(about: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What :meth:`Pictures.about` wrote, as arguments of :class:`Pictures`.

    Raises:
        ValueError: it is of a later layout, or something else.
    """
    try:
        if not isinstance(about["layout"], int) or not 1 <= about["layout"] <= LAYOUT:
            raise ValueError(f"{where} is of layout {about['layout']}, not of 1 to {LAYOUT}; update clreplay")
        constants = about["normalization"]
        classes = [
            ExportedClass(int(one["label"]), int(one["images"]), int(one["task_label"]), str(one["key"]))
            for one in about["classes"]
        ]
        info = dict(about["info"])
        names = info.get("class_names")
        return {
            "classes": classes,
            "class_names": {} if names is None else check_class_names(names),
            "normalization": constants and Normalization(*(tuple(values) for values in constants)),
            "info": info,
        }
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{where} does not say what an export says ({type(error).__name__}: {error}); it is damaged"
        ) from error


def _pixel_codes(slot: Slot | SharedSlot) -> Tensor | None:
    """Of a class of real pictures that one trains on as they are kept."""
    found = [_codes_of(source) for source in sources_of(slot)]
    known = [one for one in found if one is not None]
    return in_turn(known) if len(known) == len(found) else None


def _codes_of(slot: Slot) -> Tensor | None:
    codes = slot.parts.get("codes")
    if codes is None or codes.dtype != torch.uint8 or "scale" in slot.parts or slot.decoding != "none":
        return None
    return codes if tuple(codes.shape[1:]) == tuple(slot.shape) else None
