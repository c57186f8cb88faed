"""ReplayMemory: class-balanced slots under a budget, in a store of one's choice, with all bytes counted."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clreplay.data import Normalization
from clreplay.memory.budget import Budget, TooFewBytes
from clreplay.memory.class_names import as_plain, check_class_names
from clreplay.memory.codecs import CODECS, SIDE
from clreplay.memory.dataset import MemoryDataset
from clreplay.memory.decoders import decoder
from clreplay.memory.export import Exported, export, read_export
from clreplay.memory.formats.eight_bits import NOTHING
from clreplay.memory.formats.pictures import Pictures
from clreplay.memory.hub import OWN_FILE, SCHEME, Pushed, fetch, push
from clreplay.memory.imported import import_pictures
from clreplay.memory.memory_state import format_of, named_parts, read_state
from clreplay.memory.record_columns import to_columns
from clreplay.memory.slot import SharedSlot, Slot, sources_of
from clreplay.memory.smaller import tile
from clreplay.memory.stores import AUTO, MORE_IMAGES, best_quality, bytes_of, encode_finest, find_store
from clreplay.runtime.checksum import DamagedFile, read_tensors, tensor_bytes, write_bytes
from clreplay.training.batches import BatchLoader, BatchSource

logger = logging.getLogger(__name__)


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
        bytes_per_class, mem_bytes: the same two in bytes of all that is stored (:attr:`memory_bytes`), which are never
            exceeded. How many images come of it depends on the store. Nothing is coded a second time: a class shrinks
            by dropping its last images, coded ones a mosaic at a time.
        total_classes: how many classes will come, if that is known: coded images are then put together as shares will
            shrink. Otherwise they are ready to be halved.
        total_sources: the same of the experiences in which every class will come, where these share its budget.
        normalization: how real pixel codes become network input.
        store: one of :data:`clreplay.memory.stores.STORES`; ``float32`` is for condensed images.
        quality: of a codec, within its range; None takes its default. ``auto`` fills a budget in bytes: real images get
            one quality by the first classes that arrive, the highest at which all their images fit
            (:func:`clreplay.memory.stores.best_quality`); of condensed ones more are made than fit at the default, and
            every class is coded as finely as its bytes allow (:func:`clreplay.memory.stores.encode_finest`).
        pixels: height and width of what is kept of every image, which is enlarged again to be trained on; None keeps
            images as they are.

    Raises:
        ValueError: not exactly one budget is given, or it is no integer of at least 1; the store is unknown, or cannot
            be had here, or takes no such quality; pixels are none.
    """

    def __init__(
        self,
        images_per_class: int | None = None,
        mem_size: int | None = None,
        normalization: Normalization | None = None,
        store: str = "uint8",
        quality: int | str | None = None,
        bytes_per_class: int | None = None,
        mem_bytes: int | None = None,
        total_classes: int | None = None,
        pixels: int | None = None,
        total_sources: int | None = None,
    ) -> None:
        self.total_sources = total_sources
        self.budget, self.total_classes = Budget(images_per_class, mem_size, bytes_per_class, mem_bytes), total_classes
        self._store = find_store(store, quality, pixels)
        self.normalization, self.store, self.quality, self.stored_pixels = normalization, store, quality, pixels
        self.slots: dict[int, Slot | SharedSlot] = {}
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
    def images_per_class(self) -> int | None:
        """The fixed quota, if that is the budget."""
        return self.budget.images_per_class

    @property
    def mem_size(self) -> int | None:
        """The total of images, if that is the budget."""
        return self.budget.mem_size

    @property
    def memory_bytes(self) -> int:
        """Bytes of everything stored."""
        return sum(slot.bytes for slot in self.slots.values())

    def __len__(self) -> int:
        return sum(len(slot) for slot in self.slots.values())

    def __repr__(self) -> str:
        decoded = sum(slot.decoded for slot in self.slots.values())
        images = f"{len(self)} images" + (f" ({decoded} when decoded)" if decoded != len(self) else "")
        return f"ReplayMemory({self.budget}: {images} of {len(self.slots)} classes, {self.memory_bytes} bytes)"

    @property
    def class_names(self) -> dict[int, str]:
        """Names by label, as far as they are known; maybe of classes that are not in the memory (yet)."""
        names = self.info.get("class_names")
        return check_class_names(names) if names else {}

    def name_classes(self, names: Sequence[str] | Mapping[int, str]) -> None:
        """Give classes names, which the memory's file and exports have; those known before stay where none is given.

        Args:
            names: in the order of the labels 0, 1, ..., or by label.

        Raises:
            ValueError: they are no names, or a class in memory has none.
        """
        known = {**self.class_names, **check_class_names(names)}
        self.info["class_names"] = as_plain(check_class_names(known, self.classes))

    def class_images(self, label: int) -> Tensor:
        """One class as network input, decoded, float32 (k, c, h, w)."""
        self._check_held(label)
        return self.slots[label].trained_on(self.normalization)

    def stored_images(self, label: int) -> Tensor:
        """One class as it is stored, before decoding, in normalised space, float32 (k, c, h, w)."""
        self._check_held(label)
        return self.slots[label].images(self.normalization)

    def _check_held(self, label: int) -> None:
        if label not in self.slots:
            raise KeyError(f"class {label} is not in the memory, which has {self.classes}")

    def sources(self, label: int) -> tuple[Slot, ...]:
        """What is stored of one class by the experience it came in, where several share it (``joined``)."""
        self._check_held(label)
        return sources_of(self.slots[label])

    def codes_or_floats(self, label: int, codes: bool) -> Tensor:
        """One class as it is stored, to be stored again beside others.

        Args:
            label: the class.
            codes: as uint8 pixel codes, exactly those that are kept where codes are, the nearest ones otherwise; or as
                normalised floats.
        """
        slot = self.slots[label]
        if not codes or self.normalization is None:
            return self.stored_images(label)
        if (
            isinstance(slot, Slot)
            and set(slot.parts) == {"codes"}
            and slot.codes.shape[1:] == slot.shape
            and slot.codes.dtype == torch.uint8
        ):
            return slot.codes.clone()
        return (self.pixels(label) * 255).round().to(torch.uint8)

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

    # ------------------------------------------------------------------ a data set

    def dataset(
        self,
        transform: Callable[[Tensor], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        values: str = "network",
    ) -> MemoryDataset:
        """The training images as a data set of PyTorch, whose items are ``(image, label)``.

        Args:
            transform: called with every image, a tensor (c, h, w).
            target_transform: called with every label, an int.
            values: ``network``, float32 as a network takes it; ``pixels``, float32 in [0, 1]; or ``uint8``, codes. The
                last two cut what lies outside the range of a picture, which is said in a line.

        Raises:
            ValueError: the memory is empty, there are no such values, or no normalisation says what pixels are.
        """
        return MemoryDataset(Pictures.of(self), transform, target_transform, values)

    def loader(
        self,
        batch_size: int,
        *,
        augment: str | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        device: torch.device | str | None = None,
    ) -> BatchLoader:
        """The training images in mini-batches ``(images, labels)``, augmented on the device; each pass is an epoch.

        Batches are those that a learner of this package is trained on: chance is keyed by the seed and the number of
        the epoch, and the global generator is not touched.

        Args:
            batch_size: images a batch; the last may be smaller.
            augment: operators for whole batches, such as ``color_crop_cutout_flip_scale_rotate`` (one of them a batch)
                or ``crop+flip`` (both), see :func:`clreplay.training.augmentation.parse_strategy`; None for none.
            shuffle: False serves the images in the memory's order.
            seed: of shuffling and augmentation.
            drop_last: leave out a last batch that is smaller than the others.
            device: of the batches; None keeps them on the CPU.

        Raises:
            ValueError: the memory is empty, the batch size is below 1, or an operator is unknown.
        """
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
            raise ValueError(f"batch_size must be an integer of at least 1, got {batch_size!r}")
        images, labels = (tensor.to(device or "cpu") for tensor in (self.images, self.labels))
        return BatchLoader(BatchSource(images, labels, batch_size, augment, (seed, "train")), shuffle, drop_last)

    def export(
        self,
        target: str | os.PathLike[str],
        to: str | None = None,
        *,
        overwrite: bool = False,
        outside: str = "scale",
    ) -> Exported:
        """Write the training images for others: PNG files by class, ``.npz``, or Parquet as the Hugging Face hub has
        it; arguments and errors as of :func:`clreplay.memory.export.export`.
        """
        return export(self, target, to, overwrite=overwrite, outside=outside)

    def push(self, repo: str, *, private: bool = False, token: str | None = None) -> Pushed:
        """Put the memory on the Hugging Face hub; arguments and errors as of :func:`clreplay.memory.hub.push`."""
        return push(self, repo, private=private, token=token)

    # ------------------------------------------------------------------ what fits

    def check_channels(self, channels: int) -> None:
        """Whether the store can keep images of so many channels.

        Raises:
            ValueError: it cannot.
        """
        self._store.check_channels(channels)

    # ------------------------------------------------------------------ adding classes

    def quotas_with(self, new_classes: Sequence[int], replaced: Collection[int] = ()) -> dict[int, int]:
        """The quota of every class, old and new, once ``new_classes`` are in; for a budget in images.

        Args:
            new_classes: those that arrive.
            replaced: those of them that are in memory and will be replaced.

        Raises:
            ValueError: another new class is in memory already, or the budget is too small.
        """
        labels = self._with(new_classes, replaced)
        return dict(zip(labels, self.budget.quotas(len(labels))))

    def counts_for(
        self,
        new_classes: Sequence[int],
        real: Callable[[int], Tensor],
        condensed: bool = True,
        real_images_each: int = 1,
        tiles: int = 1,
        replaced: Collection[int] = (),
        joined: Collection[int] = (),
    ) -> dict[int, int]:
        """How many images to make of every new class.

        A budget in images says so. Of a budget in bytes it is what is expected to fit, and at most all of a class.
        New images of a class that is in memory already, where they join those that are there, get an equal share of
        what the class has, and what the others leave of it.

        Args:
            new_classes: those that arrive.
            real: gives the real images of a class, uint8 pixel codes or normalised floats, (n, c, h, w).
            condensed: whether images will be made, not selected; of images that are selected, a few more than are
                expected to fit into coded mosaics, since those that do not fit cost nothing.
            real_images_each: real images that a stored one is made of.
            tiles: small images in a row and in a column of what will be stored; they code worse than large ones.
            replaced: classes that are in memory and will be replaced.
            joined: classes that are in memory and will share their budget with the new images.

        Raises:
            ValueError: another new class is in memory already, or the budget is smaller than an image a class, or than
                one of each experience that shares it.
        """
        if not self.budget.in_bytes:
            quotas = self.quotas_with(new_classes, [*replaced, *joined])
            self._check_sharing(quotas, joined)
            return {label: self._part(label, quotas[label], joined) for label in new_classes}
        seen = len(self._with(new_classes, [*replaced, *joined]))
        share, counts = self.budget.share(seen), {}
        if self.quality == AUTO and new_classes and not condensed:
            smallest = min((real(label) for label in new_classes), key=len)
            self.settle_quality(_as_stored(smallest, tiles), len(smallest) // real_images_each, seen)
        for label in new_classes:
            images = real(label)
            own = self._byte_part(label, share, joined)
            expected = self.expected_images(own, _as_stored(images, tiles), condensed)
            if self.store in CODECS and not condensed:
                expected = expected * 5 // 4 + 1
            elif self.quality == AUTO:
                expected = int(expected * MORE_IMAGES)
            counts[label] = min(len(images) // real_images_each, expected)
            if expected < 1:
                one = _as_stored(images, tiles)[:1]
                parts = self._store.encode(one.float() if condensed else one, self.normalization)
                least = bytes_of(parts) * (seen if self.budget.mem_bytes else 1)
                what = f"{seen} classes it takes" if self.budget.mem_bytes else "such images it takes"
                self._check_share(own, {label: 0}, f"; for {what} at least {least:,} bytes")
        return counts

    def _part(self, label: int, quota: int, joined: Collection[int]) -> int:
        """Images of a class that arrive."""
        if label not in joined:
            return quota
        return max(quota // (len(self.sources(label)) + 1), quota - len(self.slots[label]))

    def _byte_part(self, label: int, share: int, joined: Collection[int]) -> int:
        """Bytes of what arrives of a class."""
        if label not in joined:
            return share
        return max(share // (len(self.sources(label)) + 1), share - self.slots[label].bytes)

    def _shares_ahead(self, label: int, shares: Sequence[int], joined: Collection[int]) -> list[int]:
        """Bytes of what arrives of a class now and as more experiences come to share them, falling."""
        own = self._byte_part(label, shares[0], joined)
        sources = len(self.sources(label)) + 1 if label in joined else 1
        if self.total_sources is not None:
            return [own, *(share // n for share in shares for n in range(sources, self.total_sources + 1))]
        halves = [own]
        while halves[-1] > 1:
            halves.append(halves[-1] // 2)
        return halves

    def _check_sharing(self, quotas: Mapping[int, int], joined: Collection[int]) -> None:
        """Every experience in which a class came must keep an image."""
        for label in self.slots:
            sources = len(self.sources(label)) + (label in joined)
            if sources > max(1, quotas.get(label, sources)):
                raise ValueError(
                    f"a budget of {self.budget} leaves {quotas[label]} images of class {label} for the {sources} "
                    f"experiences in which it came; raise it to at least {sources} images a class"
                )

    def expected_images(self, size: int, sample: Tensor, condensed: bool = True) -> int:
        """How many images such as real ones are expected to fit into so many bytes, as the store tells it
        (:class:`clreplay.memory.stores.Store`).
        """
        return self._store.count_for(size, sample, condensed, self.normalization)

    def settle_quality(self, images: Tensor, count: int, classes: int) -> None:
        """Choose the quality that was left open, for as many classes as will be in memory in the end.

        Args:
            images: uint8 pixel codes of some images of a class, (k, c, h, w); from floats nothing can be told, so the
                default is taken.
            count: images of the class.
            classes: that are in memory, if nobody knows how many will come.
        """
        if self.quality != AUTO:
            return
        self.quality = None
        if self.budget.in_bytes and images.dtype == torch.uint8:
            share = self.budget.share(max(classes, self.total_classes or 0))
            self.quality = best_quality(self.store, share, images, count, self.stored_pixels)
        self._store = find_store(self.store, self.quality, self.stored_pixels)

    def check_share(self, classes: int, counts: Sequence[int]) -> None:
        """Whether a budget in bytes leaves every class an image.

        Args:
            classes: in memory in the end.
            counts: images of every class that are expected to fit.

        Raises:
            ValueError: it does not.
        """
        self._check_share(self.budget.share(classes), dict(enumerate(counts)))

    def _with(self, new_classes: Sequence[int], replaced: Collection[int]) -> list[int]:
        """All labels in order of arrival once new ones are in."""
        self.check_new([label for label in new_classes if label not in replaced])
        return list(dict.fromkeys([*self.slots, *new_classes]))

    def check_new(self, new_classes: Sequence[int]) -> None:
        """Whether none of these classes is in memory already.

        Raises:
            ValueError: naming the first that is, and the cure.
        """
        for label in new_classes:
            if label in self.slots:
                raise ValueError(
                    f"class {label} is in memory already; a class may arrive in one experience only: "
                    "merge the experiences, start a new memory, or pass returning='condense' or 'keep'"
                )

    def _check_share(self, share: int, counts: Mapping[int, int], least: str = "") -> None:
        """Every class must have an image."""
        for label, count in counts.items():
            if count < 1:
                raise TooFewBytes(
                    f"a budget of {self.budget} leaves {share:,} bytes a class, too few for one image of class "
                    f"{label} in store {self.store!r}{least}; raise it, or choose a store that takes less"
                )

    def add(
        self,
        images: dict[int, Tensor],
        task_labels: dict[int, int] | None = None,
        keys: dict[int, str] | None = None,
        record: Sequence[dict[str, Any]] = (),
        decoding: str | Mapping[int, str] = "none",
        replaced: Collection[int] = (),
        fewer: Collection[int] = (),
        joined: Collection[int] = (),
        sharing: bool = False,
    ) -> None:
        """Add new classes; shrink the old ones to their quota (their first stored images stay).

        New images of a class that is in memory may also join those that are there: each experience in which the class
        came then keeps an equal part of its budget.

        Args:
            images: images of every new class to store: uint8 pixel codes of real images, or float images, normalised,
                which are coded here. Of a budget in images exactly its quota; of a budget in bytes the first ones are
                taken that fit.
            task_labels: task label of every class, 0 where absent.
            keys: hash of every class's real images.
            record: rows of the condenser's record.
            decoding: name of the decoder that makes images to train on of these (:mod:`clreplay.memory.decoders`), of
                all or by class.
            replaced: classes that are in memory and whose images these take the place of.
            fewer: classes that may bring fewer images than their quota.
            joined: classes that are in memory and whose images these join; what :meth:`counts_for` says is to come.
            sharing: others will join these classes: of a budget in bytes they are coded so that they can shrink.

        Raises:
            ValueError: a number of images is not the quota or none fits, images are not finite, of another shape than
                those in memory, or cannot be decoded, or as :meth:`quotas_with`; then nothing is changed.
        """
        labels = self._with(list(images), [*replaced, *joined])
        if self.quality == AUTO and all(new.dtype == torch.uint8 for new in images.values()):
            # Nobody asked how many images: those that are here are all.
            smallest = min(images.values(), key=len)
            self.settle_quality(smallest, len(smallest), len(labels))
        quotas = None if self.budget.in_bytes else self.quotas_with(list(images), [*replaced, *joined])
        if quotas is not None:
            self._check_sharing(quotas, joined)
        decodings = dict.fromkeys(images, decoding) if isinstance(decoding, str) else decoding
        shapes = [slot.shape for slot in self.slots.values()] or [_shape(next(iter(images.values())))]
        for label, new in images.items():
            if tuple(new.shape[1:]) != shapes[0]:
                raise ValueError(
                    f"class {label} brings images of shape {tuple(new.shape[1:])}, the memory holds "
                    f"{shapes[0]}; use another memory"
                )
            most = 0 if quotas is None else self._part(label, quotas[label], joined)
            if quotas is not None and not (1 if label in fewer else most) <= len(new) <= most:
                raise ValueError(f"class {label} must bring exactly {most} images, got {len(new)}")
            if new.dtype != torch.uint8 and not torch.isfinite(new).all():
                raise ValueError(f"class {label} brings images with NaN or infinity; lower lr_img")
            # An unknown or unsuitable decoder must fail before any change.
            decoder(decodings[label])(new[:1].to(torch.float32))
        described = {label: ((task_labels or {}).get(label, 0), (keys or {}).get(label, "")) for label in images}
        if quotas is not None:
            arriving = {label: self._slot(new, *described[label], decodings[label]) for label, new in images.items()}
            shrunk = {
                label: slot.first(quotas[label] - (len(arriving[label]) if label in joined else 0))
                for label, slot in self.slots.items()
                if label not in replaced
            }
        else:
            new_ones = len(labels) - len(self.slots)
            shares = self.budget.shares_ahead(len(labels), max(1, new_ones), self.total_classes)
            arriving = {
                label: self._slot(
                    new,
                    *described[label],
                    decodings[label],
                    self._shares_ahead(label, shares, joined) if sharing or joined else shares,
                )
                for label, new in images.items()
            }
            shrunk = {
                label: slot.within(shares[0] - (arriving[label].bytes if label in joined else 0))
                for label, slot in self.slots.items()
                if label not in replaced
            }
            held = [*shrunk.items(), *arriving.items()]
            self._check_share(shares[0], {label: min(map(len, sources_of(slot))) for label, slot in held})
        together = {label: shrunk[label].with_source(arriving[label]) for label in joined if label in arriving}
        # In order of arrival, which a class that is replaced keeps.
        in_place = {label: arriving[label] if label in replaced else shrunk[label] for label in self.slots}
        self.slots = {**in_place, **arriving, **together}
        self.record.extend(record)
        self._decoded = None

    def _slot(
        self, images: Tensor, task_label: int, key: str, decoding: str, sizes: Sequence[int] | None = None
    ) -> Slot:
        """A class in the store: all its images, or those that fit into so many bytes."""
        if images.dtype == torch.uint8 and self.normalization is None:
            raise ValueError("a memory of uint8 pixel codes needs its normalization")
        images = images.cpu() if images.dtype == torch.uint8 else images.detach().to("cpu", torch.float32)
        store = self._store
        if sizes is None:
            parts, count = store.encode(images, self.normalization), len(images)
        elif self.quality == AUTO:
            store, parts, count = encode_finest(self.store, images, sizes, self.normalization, self.stored_pixels)
        else:
            parts, count = store.encode_within(images, sizes, self.normalization)
        return Slot(store, parts, count, _shape(images), task_label, key, decoding)

    def _repeat(self, value: dict[int, int]) -> Tensor:
        counts = torch.tensor([slot.decoded for slot in self.slots.values()], dtype=torch.int64)
        return torch.tensor([value[label] for label in self.slots], dtype=torch.int64).repeat_interleave(counts)

    # ------------------------------------------------------------------ states and files

    def state_dict(self) -> dict[str, Any]:
        """Tensors under plain names, and ``settings`` (JSON text): all that the memory is."""
        record, columns = to_columns(self.record)
        shared = any(isinstance(slot, SharedSlot) for slot in self.slots.values())
        settings = {
            "format": format_of(self.stored_pixels is not None, bool(columns), shared),
            **asdict(self.budget),
            "total_classes": self.total_classes,
            **({} if self.total_sources is None else {"total_sources": self.total_sources}),
            "store": self.store,
            "quality": self.quality,
            "pixels": self.stored_pixels,
            "normalization": None
            if self.normalization is None
            else [list(self.normalization.mean), list(self.normalization.std)],
            "classes": [
                [label, slot.task_label, slot.key, len(slot), sorted(slot.parts), slot.decoding, list(slot.shape)]
                for label, kept in self.slots.items()
                for slot in sources_of(kept)
            ],
            "record": record if columns else self.record,
            "info": self.info,
        }
        tensors: dict[str, Any] = {"settings": json.dumps(settings), **columns}
        for label, slot in self.slots.items():
            tensors.update(named_parts(label, slot))
        return tensors

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the content that :meth:`state_dict` described; nothing changes if that fails.

        Raises:
            ValueError: the state is of a later format, names an unknown decoder, does not keep to its budget, or is
                damaged, see :func:`clreplay.memory.memory_state.read_state`.
        """
        content = read_state(state)
        self.budget, self.total_classes = content.budget, content.total_classes
        self.total_sources = content.total_sources
        self.store, self.quality, self._store = content.store_name, content.quality, content.store
        self.stored_pixels, self.normalization = content.pixels, content.normalization
        self.slots, self.record, self.info = content.slots, content.record, content.info
        self._decoded = None

    def save(self, path: str | Path) -> None:
        """Write a safetensors file with a checksum; what was there is replaced only once the new one is whole.

        Raises:
            OSError: it cannot be written, as on a full disk; what was there stays.
        """
        path = Path(path)
        state = self.state_dict()
        settings = state.pop("settings")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, tensor_bytes(state, {"clreplay": settings}))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        dataset: str | None = None,
        fingerprint: str | None = None,
        normalization: Normalization | str | None = None,
    ) -> ReplayMemory:
        """Read a memory: a file of :meth:`save`, what :meth:`export` wrote, or what :meth:`push` put on the hub.

        What was exported comes back as images that one trains on, exactly or to the rounding of 8 bits, which is said
        in a line; how they were stored before does not. Pictures of others are read as well: folders of pictures by
        class, archives with ``images`` and ``labels``, and Parquet files in the schema of the hub.

        Args:
            path: a ``.safetensors`` file, a ``.npz`` or ``.parquet`` file, a folder (also a run's, if there is one
                memory in it), or ``hf://ORG/NAME``.
            dataset: if given, the memory must be of this data set.
            fingerprint: if given, of the data (:attr:`clreplay.data.Dataset.fingerprint`); a memory that has one must
                be of the same images and labels, whatever they are called.
            normalization: of pictures of others, or the name of a known one; None measures it on them.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: the hub cannot be reached.
            ValueError: the file is truncated, does not match its checksum, is not a memory, does not keep to its
                budget, or is of another data set.
        """
        if str(path).startswith(SCHEME):
            where, place = str(path), fetch(str(path))
        else:
            where, place = str(path), Path(path).expanduser()
        if not place.exists():
            raise FileNotFoundError(f"no memory at {where}")
        found = None if (place / OWN_FILE).is_file() else read_export(place)
        if found is not None:
            memory = cls._of_pictures(*found, where, normalization)
        else:
            memory = cls._of_file(_own_file(place) if place.is_dir() else place)
            if normalization not in (None, memory.normalization):
                raise ValueError(f"{where} brings its own normalization; leave normalization out")
        memory._check_data(where, dataset, fingerprint)
        return memory

    @classmethod
    def _of_file(cls, path: Path) -> ReplayMemory:
        try:
            state, metadata = read_tensors(path, ("clreplay", "format"))
        except DamagedFile as error:
            raise ValueError(
                f"{path} is damaged: {error}; restore it from a copy, or delete it and make it anew"
            ) from error
        if "clreplay" not in metadata:
            raise ValueError(f"{path} is a safetensors file but not a replay memory")
        memory = cls(images_per_class=1)
        try:
            memory.load_state_dict({"settings": metadata["clreplay"], **state})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return memory

    @classmethod
    def _of_pictures(
        cls, pictures: Pictures, error: float | None, where: str, normalization: Normalization | str | None
    ) -> ReplayMemory:
        content = import_pictures(pictures, where, error is None, normalization)
        memory = cls(content.most, normalization=content.normalization, store=content.store)
        memory.slots, memory.record, memory.info = content.slots, content.record, content.info
        if pictures.class_names:
            memory.info["class_names"] = as_plain(pictures.class_names)
        if error is not None and error >= NOTHING:
            logger.warning(
                "%s: training images differ from those that were exported by at most %.2g pixel codes (of 255)",
                where,
                error,
            )
        return memory

    def _check_data(self, where: str, dataset: str | None, fingerprint: str | None) -> None:
        found = self.info.get("dataset")
        if dataset is not None and found != dataset:
            raise ValueError(f"{where} is a memory of {found!r}, not of {dataset!r}; pass the file of that data set")
        data = self.info.get("data_fingerprint")
        if None not in (fingerprint, data) and data != fingerprint:
            raise ValueError(
                f"{where} is a memory of other images or labels (data_fingerprint {data}) than these ({fingerprint}); "
                "pass the file of this data, or make the memory anew"
            )


def _own_file(folder: Path) -> Path:
    """The one memory in a folder, such as a run's.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several.
    """
    files = [folder / OWN_FILE] if (folder / OWN_FILE).is_file() else sorted(folder.glob("memory*.safetensors"))
    if not files:
        raise FileNotFoundError(
            f"no memory at {folder}: it has neither {OWN_FILE}, nor a folder a class with pictures, nor Parquet files"
        )
    if len(files) > 1:
        raise ValueError(f"{folder} has several memories; pass one of {', '.join(file.name for file in files)}")
    return files[0]


def _shape(images: Tensor) -> tuple[int, int, int]:
    """Of one of them."""
    _, channels, height, width = images.shape
    return channels, height, width


def _as_stored(images: Tensor, tiles: int) -> Tensor:
    """A mosaic's worth of real images as they look with so many tiles; all of them where there are none."""
    whole = min(len(images) // tiles**2, SIDE**2) * tiles**2
    return tile(images[:whole], tiles) if tiles > 1 and whole else images
