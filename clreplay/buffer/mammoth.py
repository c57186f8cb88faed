"""A condensed memory behind the buffer interface that Mammoth's rehearsal methods use.

Mammoth (https://github.com/aimagelab/mammoth) is not needed for it and is not imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from clreplay.buffer.replay_buffer import ReplayBuffer
from clreplay.data import Normalization, pixel_codes
from clreplay.memory.balanced import distinct_rows
from clreplay.runtime.seeding import generator

Respond = Callable[[Tensor], Tensor]
"""Outputs (n, k) of a network for pictures (n, c, h, w) with pixels in [0, 1]."""


class MammothBuffer:
    """Stands in for ``utils.buffer.Buffer`` of Mammoth: ``add_data`` while a task runs, ``get_data`` to rehearse.

    A method puts it in the place of its ``self.buffer`` and calls :meth:`consolidate` in its ``end_task``: images that
    ``add_data`` brings are collected until then, each once, and condensed; ``get_data`` draws from earlier tasks. As in
    Mammoth, pictures come and go with pixels in [0, 1], before augmentation and normalisation; condensed ones may lie
    beyond that range, which ``transform`` must not clip.

    Args:
        buffer_size: images in all, as Mammoth's ``--buffer_size``.
        device: where batches are put.
        method: see :class:`clreplay.ReplayBuffer`.
        respond: outputs of the network for pictures, such as ``lambda x: model.net(normalize(x))``. Where a method
            stores ``logits`` (DER++), those of condensed images are made with it when their task ends, since no image
            of the stream is kept with its own.
        **options: of :class:`clreplay.ReplayBuffer`: ``preset``, ``normalization``, ``store``, settings, ...

    Attributes:
        condensed: the :class:`clreplay.ReplayBuffer` behind it.
        attributes: names of all that Mammoth's buffer can hold.

    Example:
        >>> class CondensedEr(Er):
        ...     def __init__(self, *args, **kwargs):
        ...         super().__init__(*args, **kwargs)
        ...         self.buffer = MammothBuffer(self.args.buffer_size, self.device, "ddm", preset="cpu")
        ...
        ...     def end_task(self, dataset):
        ...         self.buffer.consolidate()
    """

    attributes = ("examples", "labels", "logits", "task_labels", "true_labels")

    def __init__(
        self,
        buffer_size: int,
        device: torch.device | str = "cpu",
        method: Any = "ddm",
        *,
        respond: Respond | None = None,
        **options: Any,
    ) -> None:
        self.condensed = ReplayBuffer(method, mem_size=buffer_size, **options)
        self.device, self.respond = torch.device(device), respond
        self.used_attributes = ["examples"]
        self.num_seen_examples = 0
        self._responses: dict[int, Tensor] = {}
        self._draws = 0

    @property
    def buffer_size(self) -> int:
        """Images in all."""
        size = self.condensed.memory.mem_size
        assert size is not None, "it was made with a number of images"
        return size

    def __len__(self) -> int:
        """Images to rehearse; a memory may decode to more than it stores."""
        return 0 if self.is_empty() else len(self.condensed.memory.labels)

    def is_empty(self) -> bool:
        """Whether no task has been consolidated yet."""
        return self.condensed.is_empty()

    def is_full(self) -> bool:
        """Whether all that may be stored is."""
        return len(self.condensed) >= self.buffer_size

    def to(self, device: torch.device | str) -> MammothBuffer:
        """Put later batches on another device."""
        self.device = torch.device(device)
        return self

    # ------------------------------------------------------------------ images in

    def add_data(
        self,
        examples: Tensor,
        labels: Tensor | None = None,
        logits: Tensor | None = None,
        task_labels: Tensor | None = None,
        attention_maps: Any = None,
        true_labels: Tensor | None = None,
        sample_selection_scores: Any = None,
    ) -> None:
        """Collect a batch of the present task.

        Args:
            examples: (n, c, h, w) with pixels in [0, 1].
            labels: (n,), needed: condensing goes class by class.
            logits: (n, k); not kept, see ``respond``.
            task_labels: (n,).
            attention_maps, true_labels, sample_selection_scores: of single images of the stream; cannot be kept.

        Raises:
            ValueError: there are no labels, or something comes that condensed images cannot have.
        """
        others = {"attention_maps": attention_maps, "true_labels": true_labels}
        others["sample_selection_scores"] = sample_selection_scores
        given = [name for name, value in others.items() if value is not None]
        if given:
            raise ValueError(f"{', '.join(given)} belong to single images of the stream, none of which is kept")
        if labels is None:
            raise ValueError("labels are needed to condense class by class; take a method that gives them, as DER++")
        if logits is not None and self.respond is None:
            raise ValueError(
                "logits belong to single images of the stream, none of which is kept; pass respond=, the network, "
                "which makes those of condensed images"
            )
        self.condensed.observe(_codes(examples, self.condensed.normalization), labels, task_labels)
        for name, value in (("labels", labels), ("logits", logits), ("task_labels", task_labels)):
            if value is not None and name not in self.used_attributes:
                self.used_attributes = [one for one in self.attributes if one in {*self.used_attributes, name}]
        self.num_seen_examples += len(examples)

    def consolidate(self) -> float:
        """Condense the task that ends; seconds spent."""
        before = {label: self.condensed.memory.slots[label] for label in self.condensed.classes}
        seconds = self.condensed.consolidate()
        memory = self.condensed.memory
        if "logits" in self.used_attributes and self.respond is not None:
            for label, slot in memory.slots.items():
                if label in before and before[label].key == slot.key and len(slot.keys) == 1:
                    # Only shrunk: what is left came first.
                    self._responses[label] = self._responses[label][: slot.decoded].clone()
                    continue
                with torch.no_grad():
                    pictures = self._pictures(memory.class_images(label)).to(self.device)
                    self._responses[label] = self.respond(pictures).detach().float().cpu()
        return seconds

    # ------------------------------------------------------------------ images out

    def get_data(
        self,
        size: int,
        transform: Callable[[Tensor], Tensor] | None = None,
        return_index: bool = False,
        device: torch.device | str | None = None,
        mask_task_out: int | None = None,
        cpt: int | None = None,
        return_not_aug: bool = False,
        not_aug_transform: Callable[[Tensor], Tensor] | None = None,
        force_indexes: Sequence[int] | None = None,
    ) -> tuple[Tensor, ...]:
        """Draw a batch, class-balanced and without repetition; arguments and order of the result are Mammoth's.

        Args:
            size: images; fewer come where there are not so many.
            transform: augmentation and normalisation of a batch.
            return_index: give the positions first.
            device: of the result; the buffer's when None.
            mask_task_out: a task whose images are left out.
            cpt: classes a task, which tell the tasks where there are no task labels.
            return_not_aug: give the pictures as they are as well, before those that are transformed.
            not_aug_transform: of the former.
            force_indexes: positions to take in place of a draw.

        Raises:
            ValueError: the buffer is empty.
        """
        self._check_filled()
        memory, where = self.condensed.memory, torch.arange(len(self))
        if mask_task_out is not None:
            tasks = memory.task_labels if "task_labels" in self.used_attributes else None
            if tasks is None:
                if cpt is None:
                    raise ValueError("mask_task_out needs task labels, or cpt, the classes a task")
                tasks = memory.labels // cpt
            where = where[tasks != mask_task_out]
        if force_indexes is not None:
            rows = where[torch.as_tensor(force_indexes, dtype=torch.int64)]
        else:
            chance, self._draws = generator(self.condensed.seed, "mammoth", self._draws), self._draws + 1
            rows = where[distinct_rows(memory.labels[where], size, chance)]
        found = self._rows(rows, transform, device)
        if return_not_aug:
            found = (*self._rows(rows, not_aug_transform, device)[:1], *found)
        return (rows.to(self.device if device is None else device), *found) if return_index else found

    def get_all_data(
        self, transform: Callable[[Tensor], Tensor] | None = None, device: torch.device | str | None = None
    ) -> tuple[Tensor, ...]:
        """All that is kept, in the order of arrival."""
        self._check_filled()
        return self._rows(torch.arange(len(self)), transform, device)

    def get_data_by_index(
        self,
        indexes: Sequence[int] | Tensor,
        transform: Callable[[Tensor], Tensor] | None = None,
        device: torch.device | str | None = None,
    ) -> tuple[Tensor, ...]:
        """What is at some positions."""
        self._check_filled()
        return self._rows(torch.as_tensor(indexes, dtype=torch.int64).cpu(), transform, device)

    # ------------------------------------------------------------------ saving and going on

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        return {
            "condensed": self.condensed.state_dict(),
            "used_attributes": list(self.used_attributes),
            "num_seen_examples": self.num_seen_examples,
            "responses": dict(self._responses),
            "draws": self._draws,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was taken.

        Raises:
            ValueError: as :meth:`clreplay.ReplayBuffer.load_state_dict`.
        """
        self.condensed.load_state_dict(state["condensed"])
        self.used_attributes, self.num_seen_examples = list(state["used_attributes"]), state["num_seen_examples"]
        self._responses, self._draws = dict(state["responses"]), state["draws"]

    # ------------------------------------------------------------------ inside

    def _check_filled(self) -> None:
        if self.is_empty():
            raise ValueError("the buffer is empty until consolidate() ends a task; ask is_empty() first")

    def _rows(
        self, rows: Tensor, transform: Callable[[Tensor], Tensor] | None, device: torch.device | str | None
    ) -> tuple[Tensor, ...]:
        memory, device = self.condensed.memory, self.device if device is None else device
        pictures = self._pictures(memory.images[rows]).to(device)
        found = [pictures if transform is None else transform(pictures)]
        if "labels" in self.used_attributes:
            found.append(memory.labels[rows].to(device))
        if "logits" in self.used_attributes:
            found.append(torch.cat([self._responses[label] for label in memory.classes])[rows].to(device))
        if "task_labels" in self.used_attributes:
            found.append(memory.task_labels[rows].to(device))
        return tuple(found)

    def _pictures(self, images: Tensor) -> Tensor:
        """Network input as pixels in [0, 1], not clipped."""
        normalization = self.condensed.memory.normalization
        if normalization is None:
            return images
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (normalization.mean, normalization.std))
        return images * std + mean


def _codes(pictures: Tensor, normalization: Normalization | str | None) -> Tensor:
    """Pixel codes of pictures in [0, 1], exactly; the pictures themselves where they have none but can be normalised.

    Raises:
        ValueError: they have none, and no normalization was given.
    """
    if pictures.dtype == torch.uint8 or not len(pictures):
        return pictures
    channels = pictures.shape[1] if pictures.ndim == 4 else 1
    codes, found = pixel_codes(pictures, Normalization((0.0,) * channels, (1.0,) * channels))
    if found is None and normalization is None:
        raise ValueError(
            f"examples reach from {float(pictures.min()):g} to {float(pictures.max()):g} and are no pictures of 256 "
            "levels in [0, 1]; pass them before augmentation and normalisation, or give the buffer a normalization"
        )
    return pictures if found is None else codes
