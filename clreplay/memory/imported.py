"""Pictures that were exported, or that others made, as the classes of a memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from clreplay.data import NORMALIZATIONS, Normalization, measured_normalization
from clreplay.memory.formats.eight_bits import channel_ranges
from clreplay.memory.formats.pictures import Pictures
from clreplay.memory.slot import SharedSlot, Slot
from clreplay.memory.stores import find_store


@dataclass(frozen=True)
class Imported:
    """What a memory is made of.

    Attributes:
        store: name of the store.
        slots: by label.
        normalization: of pixel codes.
        most: images of the largest class.
        info, record: of the memory that was exported.
    """

    store: str
    slots: dict[int, Slot | SharedSlot]
    normalization: Normalization | None
    most: int
    info: dict[str, Any]
    record: list[dict[str, Any]]


def import_pictures(
    pictures: Pictures, where: str, foreign: bool = False, normalization: Normalization | str | None = None
) -> Imported:
    """Classes of pictures: floats as they are, pixel codes with the scale and offset that their images have, if any.

    Args:
        where: messages call them so.
        foreign: whether others made them, so that they bring no normalisation.
        normalization: of foreign ones; None measures it on pixel codes.

    Raises:
        ValueError: they bring a normalisation and another is given; images are not finite, or classes do not fit them.
    """
    images, channels = pictures.images, pictures.shape[0]
    held = _normalization(pictures, normalization, foreign, where)
    if held is not None and len(held.mean) != channels:
        raise ValueError(f"{where} has images of {channels} channels and a normalization of {len(held.mean)}")
    labels = [one.label for one in pictures.classes]
    counts = [one.count for one in pictures.classes]
    if len(set(labels)) != len(labels) or min(counts, default=0) < 1 or sum(counts) != len(images):
        raise ValueError(f"{where} says classes {labels} of {counts} images and has {len(images)}; it is damaged")
    if images.is_floating_point() and not torch.isfinite(images).all():
        raise ValueError(f"images of {where} hold NaN or infinity")
    name = "float32" if images.is_floating_point() else "uint8"
    store = find_store(name)
    ranges = None if images.is_floating_point() else channel_ranges(pictures)
    slots: dict[int, Slot | SharedSlot] = {}
    start = 0
    for one in pictures.classes:
        rows = slice(start, start + one.count)
        parts = {"codes": images[rows].clone()}
        if ranges is not None and (held is None or _ranged(pictures, rows)):
            parts.update(scale=ranges[0][rows].clone(), offset=ranges[1][rows].clone())
        slots[one.label] = Slot(store, parts, one.count, pictures.shape, one.task_label, one.key)
        start += one.count
    return Imported(name, slots, held, max(counts), dict(pictures.info), list(pictures.record))


def _ranged(pictures: Pictures, rows: slice) -> bool:
    if pictures.scale is None or pictures.offset is None:
        return False
    return bool((pictures.scale[rows] != 1).any() or (pictures.offset[rows] != 0).any())


def _normalization(
    pictures: Pictures, wanted: Normalization | str | None, foreign: bool, where: str
) -> Normalization | None:
    if isinstance(wanted, str):
        if wanted not in NORMALIZATIONS:
            raise ValueError(f"normalization must be one of {', '.join(NORMALIZATIONS)}, got {wanted!r}")
        wanted = NORMALIZATIONS[wanted].expand(pictures.shape[0])
    if not foreign:
        if wanted not in (None, pictures.normalization):
            raise ValueError(f"{where} was exported with normalization {pictures.normalization}; leave it out")
        return pictures.normalization
    if wanted is None and pictures.images.dtype == torch.uint8:
        return measured_normalization(pictures.images)
    return wanted
