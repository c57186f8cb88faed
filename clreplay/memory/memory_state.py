"""The state of a memory as it was written, read with suspicion: nothing is believed that can be checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from clreplay.data import Normalization
from clreplay.memory.budget import Budget
from clreplay.memory.class_names import check_class_names
from clreplay.memory.decoders import decoder
from clreplay.memory.record_columns import column_names, to_rows
from clreplay.memory.slot import SharedSlot, Slot, sources_of
from clreplay.memory.stores import Store, find_store

FORMAT_VERSION = 6
"""1: without decodings, 2: uint8 and float32 only, 3: pictures as large as they are trained on, 4: the record as text,
5: every class of one experience; all are read. The lowest that says all there is to say is written
(:func:`format_of`), so that older versions read it.
"""


def format_of(smaller_pictures: bool, columns: bool, shared: bool = False) -> int:
    """The format of a memory whose pictures are kept smaller, whose record has columns, or whose classes are shared."""
    return 6 if shared else 5 if columns else 4 if smaller_pictures else 3


def named_parts(label: int, slot: Slot | SharedSlot) -> dict[str, Tensor]:
    """What is kept of a class under the names that a file has; of later experiences these are ``LABEL/N.NAME``."""
    return {
        f"{place}.{name}": part
        for place, source in zip(_places([label] * len(sources_of(slot))), sources_of(slot))
        for name, part in source.parts.items()
    }


def _places(labels: Sequence[int]) -> list[str]:
    """What the parts of classes are called, one after another: a class that comes again gets a number."""
    met: dict[int, int] = {}
    found = []
    for label in labels:
        met[label] = met.get(label, -1) + 1
        found.append(str(label) if not met[label] else f"{label}/{met[label]}")
    return found


@dataclass(frozen=True)
class Content:
    """All that a state says; names are those of :class:`clreplay.memory.replay_memory.ReplayMemory`."""

    budget: Budget
    total_classes: int | None
    total_sources: int | None
    store_name: str
    quality: int | None
    pixels: int | None
    store: Store
    normalization: Normalization | None
    slots: dict[int, Slot | SharedSlot]
    record: list[dict[str, Any]]
    info: dict[str, Any]


def read_state(state: Mapping[str, Any]) -> Content:
    """The content of a state.

    Raises:
        ValueError: it is of a later format, names an unknown store or decoder, does not keep to its own budget, or its
            tensors are missing, misshapen, not finite or of no class.
    """
    try:
        return _read(state, json.loads(state["settings"]))
    except (LookupError, TypeError, AttributeError, RecursionError, json.JSONDecodeError) as error:
        raise ValueError(
            f"the settings are not those of a memory ({type(error).__name__}: {error}); the file is damaged"
        ) from error


def _read(state: Mapping[str, Any], settings: Mapping[str, Any]) -> Content:
    if not 1 <= settings["format"] <= FORMAT_VERSION:
        raise ValueError(f"memory format {settings['format']} is not one of 1 to {FORMAT_VERSION}; update clreplay")
    store = find_store(settings["store"], settings.get("quality"), settings.get("pixels"))
    budget = Budget(**{one.name: settings.get(one.name) for one in fields(Budget)})
    labels = [entry[0] for entry in settings["classes"]]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice and settings["format"] < 6:
        raise ValueError(f"classes {twice} are in the memory twice; it is damaged")
    if twice and labels != sorted(labels, key=labels.index):
        raise ValueError(f"classes {twice} of the memory are in pieces; it is damaged")
    slots: dict[int, Slot | SharedSlot] = {}
    for entry, place in zip(settings["classes"], _places(labels)):
        source = _read_slot(store, entry, state, place)
        slots[entry[0]] = slots[entry[0]].with_source(source) if entry[0] in slots else source
    for label in twice:
        if len({(source.shape, source.task_label) for source in sources_of(slots[label])}) > 1:
            raise ValueError(f"class {label} of the memory has images of several shapes or tasks; it is damaged")
    record = settings["record"]
    if not isinstance(record, list) or not all(isinstance(row, dict) for row in record):
        raise ValueError("the record or the info of the memory is something else; it is damaged")
    columns = column_names(record) if settings["format"] >= 5 else set()
    if missing := sorted(columns - set(state)):
        raise ValueError(f"the memory lacks {', '.join(missing)}; it is incomplete")
    known = {"settings", *columns, *(name for label, slot in slots.items() for name in named_parts(label, slot))}
    foreign = sorted(set(state) - known)
    if foreign:
        raise ValueError(f"the memory has {', '.join(foreign)}, of no class that it names; it is damaged")
    _check_budget(budget, slots)
    mean_and_std = settings["normalization"]
    normalization = mean_and_std and Normalization(*(tuple(values) for values in mean_and_std))
    for label, slot in ((label, source) for label, kept in slots.items() for source in sources_of(kept)):
        codes = "scale" not in slot.parts and not any(part.is_floating_point() for part in slot.parts.values())
        if codes and normalization is None:
            raise ValueError(f"class {label} of the memory has pixel codes, and no normalization says what they mean")
    info = settings["info"]
    if not isinstance(info, dict):
        raise ValueError("the record or the info of the memory is something else; it is damaged")
    if "class_names" in info:
        check_class_names(info["class_names"])
    return Content(
        budget=budget,
        total_classes=settings.get("total_classes"),
        total_sources=settings.get("total_sources"),
        store_name=settings["store"],
        quality=settings.get("quality"),
        pixels=settings.get("pixels"),
        store=store,
        normalization=normalization,
        slots=slots,
        record=to_rows(record, state) if settings["format"] >= 5 else record,
        info=info,
    )


def _check_budget(budget: Budget, slots: Mapping[int, Slot | SharedSlot]) -> None:
    """What is stored must keep to the budget that it is shown with."""
    if budget.in_bytes:
        share = budget.share(max(1, len(slots)))
        over = {label: f"{slot.bytes:,} bytes" for label, slot in slots.items() if slot.bytes > share}
        least = f"{share:,}"
    else:
        quotas = dict(zip(slots, budget.quotas(len(slots))))
        over = {label: f"{len(slot)} images" for label, slot in slots.items() if len(slot) > quotas[label]}
        least = "/".join(str(quotas[label]) for label in over)
    if over:
        label, has = next(iter(over.items()))
        raise ValueError(
            f"class {label} of the memory has {has}, its budget of {budget} gives it {least}; it is damaged"
        )


def _read_slot(store: Store, entry: list[Any], state: Mapping[str, Any], place: str) -> Slot:
    """A class of a memory's state, from its line in the settings.

    Raises:
        ValueError: a tensor is missing, does not fit the others, or holds NaN or infinity.
    """
    label, task_label, key, count, names, *more = entry
    if not all(isinstance(one, int) and not isinstance(one, bool) for one in (label, task_label, count)) or count < 1:
        raise ValueError(f"class {label} of the memory, task {task_label}, must have 1 image or more, got {count}")
    if isinstance(names, bool):  # formats 1 and 2
        names = ["codes", "scale", "offset"] if names else ["codes"]
    if sorted(names) not in map(sorted, store.names()):
        raise ValueError(f"class {label} of the memory has {', '.join(names)}, which its store does not keep")
    missing = [f"{place}.{name}" for name in names if f"{place}.{name}" not in state]
    if missing:
        raise ValueError(f"the memory lacks {', '.join(missing)}; it is incomplete")
    parts = {name: state[f"{place}.{name}"].clone() for name in names}
    decoding = decoder(more[0] if more else "none").name  # it may be unknown
    shape = tuple(more[1] if len(more) > 1 else parts["codes"].shape[1:])
    store.check(parts, count, shape, f"class {label} of the memory")
    for name, part in parts.items():
        if part.is_floating_point() and not torch.isfinite(part).all():
            raise ValueError(f"{place}.{name} of the memory holds NaN or infinity; it is damaged")
    return Slot(store, parts, count, shape, task_label, key, decoding)
