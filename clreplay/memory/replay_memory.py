"""ReplayMemory: class-balanced slots under a budget, in a store of one's choice, with all bytes counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clreplay.data import Normalization
from clreplay.memory.budget import class_quotas
from clreplay.memory.decoders import decoder
from clreplay.memory.slot import Slot
from clreplay.memory.stores import Store, find_store
from clreplay.runtime.files import replacing

FORMAT_VERSION = 3
"""1: without decodings, 2: uint8 and float32 only; both are still read."""


class ReplayMemory:
    """A class-balanced set of images to train on, under a fixed quota or a total budget.

    How pictures are kept is a choice of its own (:mod:`clreplay.memory.stores`). ``uint8``: condensed images live in
    normalised space beyond the pixel range, so each has a float32 scale and offset an image and channel (24 bytes
    beside 3,072, counted) and is never clipped; real images keep their pixel code and cost nothing extra. ``4bit`` and
    ``2bit`` do the same with fewer codes, to real images as well. ``png``, ``jpeg``, ``webp`` and ``avif`` code
    pictures of a class in mosaics. Labels follow from the slots and are not counted.

    A budget is about storage: quotas, ``len(memory)`` and ``memory_bytes`` count what is stored. Where a class
    names a decoding (:mod:`clreplay.memory.decoders`), ``images``, ``labels`` and ``task_labels`` are longer: they are
    what one trains on.

    Args:
        images_per_class: fixed quota (the paper's protocol: 20); old classes are never touched.
        mem_size: total budget in stored images instead; quotas shrink as classes arrive.
        normalization: how real pixel codes become network input.
        store: one of :data:`clreplay.memory.stores.STORES`; ``float32`` is for condensed images.
        quality: of a codec, within its range; None takes its default.

    Raises:
        ValueError: not exactly one budget is given, or it is below 1; the store is unknown, or cannot be had here, or
            takes no such quality.
    """

    def __init__(
        self,
        images_per_class: int | None = None,
        mem_size: int | None = None,
        normalization: Normalization | None = None,
        store: str = "uint8",
        quality: int | None = None,
    ) -> None:
        if (images_per_class is None) == (mem_size is None):
            raise ValueError("give either images_per_class or mem_size, not both and not neither")
        for name, value in {"images_per_class": images_per_class, "mem_size": mem_size}.items():
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        self._store = find_store(store, quality)
        self.images_per_class, self.mem_size = images_per_class, mem_size
        self.normalization, self.store, self.quality = normalization, store, quality
        self.slots: dict[int, Slot] = {}
        self.record: list[dict[str, Any]] = []
        self.info: dict[str, Any] = {}
        self._decoded: Tensor | None = None

    # ------------------------------------------------------------------ content

    @property
    def classes(self) -> list[int]:
        """Labels in order of arrival."""
        return list(self.slots)

    @property
    def images(self) -> Tensor:
        """All images as network input, decoded, float32 (n, c, h, w), in order of arrival."""
        if self._decoded is None:
            if not self.slots:
                raise ValueError("the memory is empty; add a class first")
            self._decoded = torch.cat([self.class_images(label) for label in self.slots])
        return self._decoded

    @property
    def labels(self) -> Tensor:
        """(n,) int64."""
        return self._repeat({label: label for label in self.slots})

    @property
    def task_labels(self) -> Tensor:
        """(n,) int64, the task label every class came with."""
        return self._repeat({label: slot.task_label for label, slot in self.slots.items()})

    @property
    def memory_bytes(self) -> int:
        """Bytes of everything stored."""
        return sum(slot.bytes for slot in self.slots.values())

    def __len__(self) -> int:
        return sum(len(slot) for slot in self.slots.values())

    def __repr__(self) -> str:
        budget = f"images_per_class={self.images_per_class}" if self.images_per_class else f"mem_size={self.mem_size}"
        decoded = sum(slot.decoded for slot in self.slots.values())
        images = f"{len(self)} images" + (f" ({decoded} when decoded)" if decoded != len(self) else "")
        return f"ReplayMemory({budget}: {images} of {len(self.slots)} classes, {self.memory_bytes} bytes)"

    def class_images(self, label: int) -> Tensor:
        """One class as network input, decoded, float32 (k, c, h, w)."""
        return decoder(self.slots[label].decoding)(self.stored_images(label))

    def stored_images(self, label: int) -> Tensor:
        """One class as it is stored, before decoding, in normalised space, float32 (k, c, h, w)."""
        return self.slots[label].images(self.normalization)

    def of_classes(self, labels: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Decoded images, labels and task labels of some classes, in the order of arrival."""
        chosen = set(labels)
        rows = torch.tensor([int(label) in chosen for label in self.labels.tolist()])
        return self.images[rows], self.labels[rows], self.task_labels[rows]

    def pixels(self, label: int) -> Tensor:
        """One class as pictures of what is stored: float (k, c, h, w) in [0, 1], clipped for display only."""
        images = self.stored_images(label)
        if self.normalization is None:
            low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
            return (images - low) / (high - low).clamp_min(1e-8)
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.normalization.mean, self.normalization.std))
        return (images * std + mean).clamp(0, 1)

    def check_channels(self, channels: int) -> None:
        """Whether the store can keep images of so many channels.

        Raises:
            ValueError: it cannot.
        """
        self._store.check_channels(channels)

    # ------------------------------------------------------------------ adding classes

    def quotas_with(self, new_classes: Sequence[int]) -> dict[int, int]:
        """The quota of every class, old and new, once ``new_classes`` are in.

        Raises:
            ValueError: a new class is in memory already, or the budget is too small.
        """
        for label in new_classes:
            if label in self.slots:
                raise ValueError(
                    f"class {label} is in memory already; a class may arrive in one experience only: "
                    "merge the experiences, or start a new memory"
                )
        labels = [*self.slots, *new_classes]
        return dict(zip(labels, class_quotas(len(labels), self.images_per_class, self.mem_size)))

    def add(
        self,
        images: dict[int, Tensor],
        task_labels: dict[int, int] | None = None,
        keys: dict[int, str] | None = None,
        record: Sequence[dict[str, Any]] = (),
        decoding: str = "none",
    ) -> None:
        """Add new classes; shrink the old ones to their quota (their first stored images stay).

        Args:
            images: images of every new class to store, exactly its quota: uint8 pixel codes of real images, or
                float images, normalised, which are coded here.
            task_labels: task label of every class, 0 where absent.
            keys: hash of every class's real images.
            record: rows of the condenser's record.
            decoding: name of the decoder that makes images to train on of these (:mod:`clreplay.memory.decoders`).

        Raises:
            ValueError: a number of images is not the quota, images are not finite, of another shape than
                those in memory, or cannot be decoded, or as :meth:`quotas_with`; then nothing is changed.
        """
        quotas = self.quotas_with(list(images))
        shapes = [slot.shape for slot in self.slots.values()] or [tuple(next(iter(images.values())).shape[1:])]
        for label, new in images.items():
            if tuple(new.shape[1:]) != shapes[0]:
                raise ValueError(
                    f"class {label} brings images of shape {tuple(new.shape[1:])}, the memory holds "
                    f"{shapes[0]}; use another memory"
                )
            if len(new) != quotas[label]:
                raise ValueError(f"class {label} must bring exactly {quotas[label]} images, got {len(new)}")
            if new.dtype != torch.uint8 and not torch.isfinite(new).all():
                raise ValueError(f"class {label} brings images with NaN or infinity; lower lr_img")
            decoder(decoding)(new[:1].to(torch.float32))  # an unknown or unsuitable decoder must fail before any change
        arriving = {
            label: self._slot(new, (task_labels or {}).get(label, 0), (keys or {}).get(label, ""), decoding)
            for label, new in images.items()
        }
        shrunk = {label: slot.first(quotas[label]) for label, slot in self.slots.items()}
        self.slots = {**shrunk, **arriving}
        self.record.extend(record)
        self._decoded = None

    def _slot(self, images: Tensor, task_label: int, key: str, decoding: str) -> Slot:
        if images.dtype == torch.uint8 and self.normalization is None:
            raise ValueError("a memory of uint8 pixel codes needs its normalization")
        images = images.cpu() if images.dtype == torch.uint8 else images.detach().to("cpu", torch.float32)
        parts = self._store.encode(images, self.normalization)
        return Slot(self._store, parts, len(images), tuple(images.shape[1:]), task_label, key, decoding)

    def _repeat(self, value: dict[int, int]) -> Tensor:
        counts = torch.tensor([slot.decoded for slot in self.slots.values()], dtype=torch.int64)
        return torch.tensor([value[label] for label in self.slots], dtype=torch.int64).repeat_interleave(counts)

    # ------------------------------------------------------------------ states and files

    def state_dict(self) -> dict[str, Any]:
        """Tensors under plain names, and ``settings`` (JSON text): all that the memory is."""
        settings = {
            "format": FORMAT_VERSION,
            "images_per_class": self.images_per_class,
            "mem_size": self.mem_size,
            "store": self.store,
            "quality": self.quality,
            "normalization": None
            if self.normalization is None
            else [list(self.normalization.mean), list(self.normalization.std)],
            "classes": [
                [label, slot.task_label, slot.key, len(slot), sorted(slot.parts), slot.decoding, list(slot.shape)]
                for label, slot in self.slots.items()
            ],
            "record": self.record,
            "info": self.info,
        }
        tensors: dict[str, Any] = {"settings": json.dumps(settings)}
        for label, slot in self.slots.items():
            tensors.update({f"{label}.{name}": part for name, part in slot.parts.items()})
        return tensors

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the content that :meth:`state_dict` described; nothing changes if that fails.

        Raises:
            ValueError: the state is of a later format, names an unknown decoder, or tensors are missing or
                misshapen.
        """
        settings = json.loads(state["settings"])
        if not 1 <= settings["format"] <= FORMAT_VERSION:
            raise ValueError(f"memory format {settings['format']} is not one of 1 to {FORMAT_VERSION}; update clreplay")
        store = find_store(settings["store"], settings.get("quality"))
        slots = {entry[0]: _read_slot(store, entry, state) for entry in settings["classes"]}
        normalization = settings["normalization"]
        self.images_per_class, self.mem_size = settings["images_per_class"], settings["mem_size"]
        self.store, self.quality, self._store = settings["store"], settings.get("quality"), store
        self.normalization = normalization and Normalization(*(tuple(v) for v in normalization))
        self.slots, self.record, self.info = slots, settings["record"], settings["info"]
        self._decoded = None

    def save(self, path: str | Path) -> None:
        """Write a safetensors file; a file that was there is replaced only once the new one is whole."""
        from safetensors.torch import save_file

        path = Path(path)
        state = self.state_dict()
        settings = state.pop("settings")
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            save_file({k: v.contiguous() for k, v in state.items()}, partial, metadata={"clreplay": settings})

    @classmethod
    def load(cls, path: str | Path, dataset: str | None = None) -> ReplayMemory:
        """Read a file written by :meth:`save`.

        Args:
            path: a ``.safetensors`` file.
            dataset: if given, the file must be of this data set.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is truncated, not a memory, or of another data set.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no memory at {path}")
        try:
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata() or {}
                state: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}
        except SafetensorError as error:
            raise ValueError(
                f"{path} is truncated or not a safetensors file ({error}); delete it and run again"
            ) from error
        if "clreplay" not in metadata:
            raise ValueError(f"{path} is a safetensors file but not a replay memory")
        memory = cls(images_per_class=1)
        memory.load_state_dict({"settings": metadata["clreplay"], **state})
        found = memory.info.get("dataset")
        if dataset is not None and found != dataset:
            raise ValueError(f"{path} is a memory of {found!r}, not of {dataset!r}; pass the file of that data set")
        return memory


def _read_slot(store: Store, entry: list[Any], state: dict[str, Any]) -> Slot:
    """A class of a memory's state, from its line in the settings.

    Raises:
        ValueError: a tensor is missing or does not fit the others.
    """
    label, task_label, key, count, names, *more = entry
    if isinstance(names, bool):  # formats 1 and 2
        names = ["codes", "scale", "offset"] if names else ["codes"]
    if sorted(names) not in map(sorted, store.names()):
        raise ValueError(f"class {label} of the memory has {', '.join(names)}, which its store does not keep")
    missing = [f"{label}.{name}" for name in names if f"{label}.{name}" not in state]
    if missing:
        raise ValueError(f"the memory lacks {', '.join(missing)}; it is incomplete")
    parts = {name: state[f"{label}.{name}"].clone() for name in names}
    decoding = decoder(more[0] if more else "none").name  # it may be unknown
    shape = tuple(more[1] if len(more) > 1 else parts["codes"].shape[1:])
    store.check(parts, count, shape, f"class {label} of the memory")
    return Slot(store, parts, count, shape, task_label, key, decoding)
