"""Rehearsing: train on the new experience mixed with the memory, go on with the same weights, condense afterwards.

Nothing here imports Avalanche.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clreplay.memory.balanced import balanced_rows
from clreplay.plugin.avalanche_data import checked_image, has_task_labels
from clreplay.plugin.contents import Contents
from clreplay.runtime.seeding import generator
from clreplay.training.augmentation import augment_images, draw, parse_strategy

MODES = ("retrain", "rehearse")
"""From scratch on the memory alone; or on with the same weights, on new images and remembered ones in every batch."""


@dataclass(frozen=True)
class Rehearsal:
    """What there is to say of the mode ``rehearse``.

    Attributes:
        memory_share: part of every batch that comes from the memory.
    """

    memory_share: float = 0.5

    def remembered(self, batch_size: int) -> int:
        """Images of the memory in a batch.

        Raises:
            ValueError: a batch would hold new images only, or remembered ones only.
        """
        count = round(self.memory_share * batch_size)
        if not 0 < count < batch_size:
            raise ValueError(
                f"memory_share is {self.memory_share:g} and train_mb_size {batch_size}, so a batch would hold {count} "
                f"remembered and {batch_size - count} new images; it needs at least one of each: "
                "raise train_mb_size, or change memory_share"
            )
        return count

    def check(self, strategy: Any, contents: Contents, classes: list[int]) -> None:
        """Refuse what could not be trained on, before anything is.

        Args:
            strategy: of Avalanche, once it has adapted its data.
            contents: of these data, in their evaluation transforms.
            classes: those of them that are new.

        Raises:
            ValueError: the strategy carries real images of earlier experiences along, or the training transforms give
                other images than the memory will hold.
        """
        self.remembered(strategy.train_mb_size)
        carried = [label for label in contents.classes if label not in classes]
        if carried:
            raise ValueError(
                f"{type(strategy).__name__} trains on real images of earlier classes {carried} as well, so that "
                "results would be of both; rehearse in a strategy that trains on the new experience alone, such as "
                "Naive, or leave mode='rehearse' out"
            )
        with torch.random.fork_rng(devices=[]):  # a transform may draw, and training must not depend on this look
            image = checked_image(strategy.adapted_dataset[0], "train")
        if image.shape != contents.sample.shape or image.dtype != contents.sample.dtype:
            raise ValueError(
                f"the training transforms give {image.dtype} images of shape {tuple(image.shape)}, the evaluation "
                f"transforms {contents.sample.dtype} ones of shape {tuple(contents.sample.shape)}, and a batch holds "
                "both: those of the memory are made of the latter; let both transforms end alike"
            )

    def serve(self, strategy: Any, plugin: Any, key: tuple[int | str, ...], **kwargs: Any) -> None:
        """Let the strategy train on its own batches, smaller by the images of the memory that are added.

        Args:
            strategy: of Avalanche; its own loader is made already.
            plugin: what there is to remember, and how it is augmented.
            key: what all chance is keyed by.
            **kwargs: of ``strategy.train``.

        Raises:
            ValueError: there would be no batch.
        """
        if plugin.optimizer_state is not None:
            strategy.optimizer.load_state_dict(plugin.optimizer_state)
            plugin.optimizer_state = None
        size, count, kept = strategy.train_mb_size, 0, None
        if plugin.seen:
            count, kept = self.remembered(size), remembered(plugin, strategy)
            strategy.train_mb_size = size - count
            try:
                strategy.make_train_dataloader(**kwargs)
            finally:
                strategy.train_mb_size = size
        if len(strategy.dataloader) == 0:
            raise ValueError(
                f"drop_last leaves no batch: the experience has {len(strategy.adapted_dataset)} images and a batch "
                f"holds {size - count} new ones; lower train_mb_size, or leave drop_last out"
            )
        strategy.dataloader = MixedLoader(strategy.dataloader, kept, count, plugin.augment, key, plugin)


class MixedLoader:
    """Stands in for ``strategy.dataloader``: batches of the strategy's own loader with images of the memory added.

    New images come as the benchmark's training transforms give them, as they would without the plugin; those of the
    memory are normalised already, and a batch of them is augmented on the device. Classes of the memory take turns
    (:func:`clreplay.memory.balanced.balanced_rows`). Each pass is the next epoch.

    Args:
        new: the strategy's own loader, for the rest of a batch.
        kept: what there is to remember: images (n, c, h, w) as network input on the strategy's device, labels (n,),
            and task labels (n,) or None; None at all before the first experience.
        count: remembered images a batch.
        augment: strategy string or None.
        key: what all chance is keyed by.
        owner: the plugin that serves.
    """

    def __init__(
        self,
        new: Any,
        kept: tuple[Tensor, Tensor, Tensor | None] | None,
        count: int,
        augment: str | None,
        key: tuple[int | str, ...],
        owner: Any,
    ) -> None:
        self.new, self.kept, self.count, self.key, self.owner = new, kept, count, key, owner
        self.strategy = parse_strategy(augment)
        self.norms: list[Any] = []  # statistics stay as training leaves them
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.new)

    def __iter__(self) -> Iterator[list[Tensor]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        if self.kept is None:
            yield from self.new
            return
        (images, labels, tasks), chance = self.kept, generator(*self.key, "epoch", epoch)
        n, device = len(self) * self.count, images.device
        rows = balanced_rows(labels, n, chance).to(device).split(self.count)
        choices = torch.rand(len(self), generator=chance).tolist()
        parameters = draw(n, self.strategy, chance)[:, 1:].to(device).split(self.count)
        for batch, mine, choice, numbers_ in zip(self.new, rows, choices, parameters):
            added = [augment_images(images[mine], choice, numbers_, self.strategy), labels[mine]]
            if tasks is not None:
                added.append(tasks[mine])
            yield [torch.cat([new.to(device), old.to(new.dtype)]) for new, old in zip(batch, added, strict=True)]


def rehearsal_of(mode: str, memory_share: float | None) -> Rehearsal | None:
    """The mode that a user names; None where the model is trained from scratch.

    Raises:
        ValueError: there is no such mode, or the share is none, or of another mode.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if mode == "retrain":
        if memory_share is not None:
            raise ValueError(
                f"memory_share is {memory_share!r} and mode 'retrain', which trains on the memory alone; "
                "leave it out, or pass mode='rehearse'"
            )
        return None
    if memory_share is None:
        return Rehearsal()
    if not isinstance(memory_share, numbers.Real) or isinstance(memory_share, bool) or not 0 < memory_share < 1:
        raise ValueError(f"memory_share must be a number between 0 and 1, both left out, got {memory_share!r}")
    return Rehearsal(float(memory_share))


def remembered(plugin: Any, strategy: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Images, labels and, where the experience has them, task labels of the classes seen so far, on the device."""
    images, labels, tasks = plugin.memory.of_classes(plugin.seen)
    # A memory made elsewhere need not know the task labels.
    pairs = zip(labels.tolist(), tasks.tolist())
    tasks = torch.tensor([plugin.task_labels.get(*pair) for pair in pairs], dtype=torch.int64)
    images, labels, tasks = (t.to(strategy.device) for t in (images, labels, tasks))
    return images, labels, tasks if has_task_labels(strategy.experience) else None
