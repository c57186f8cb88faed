"""What can be said of a model before hours of condensing: can it take the images, has it the outputs, can it train.

Nothing here imports Avalanche.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clreplay.condensation import ConfiguredMethod
from clreplay.memory.decoders import decoder
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.plugin.batch_norm import modes_kept
from clreplay.plugin.contents import Contents

Forward = Callable[[nn.Module, Tensor, Tensor | None], Any]
"""A model's outputs for images and task labels."""

READS_CLASS_NUMBERS = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss)
"""Losses that take a class number for the position of an output."""


def check_trainable(model: nn.Module) -> None:
    """Refuse a model whose weights are not there yet, or of which nothing can be trained.

    Raises:
        ValueError: with the cure.
    """
    values = [*model.named_parameters(), *model.named_buffers()]
    lazy = [name for name, value in values if nn.parameter.is_lazy(value)]
    if lazy:
        raise ValueError(
            f"the model's lazy layers have no weights yet ({', '.join(lazy)}); run one batch through it before the "
            "optimizer is made, so that they get their shapes"
        )
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("no parameter of the model can be trained; set requires_grad of those that should be")


def check_model(strategy: Any, forward: Forward, contents: Contents) -> None:
    """Run one image through the model, in evaluation mode, and compare its outputs with the labels.

    A model that grows with the classes is tried as it will be, in a copy.

    Args:
        strategy: of Avalanche; its model stays as it is, and so do the global generators.
        forward: of a model, images and task labels.
        contents: of the experience.

    Raises:
        ValueError: the model cannot take the image, or has too few outputs.
    """
    image, label = contents.sample, contents.sample_label
    with _as_it_will_be(strategy) as model:
        model.eval()
        try:
            outputs = forward(model, *_batch(strategy, image, contents.sample_task))
        except Exception as error:
            raise ValueError(
                f"the model cannot take the images: one of class {label}, {_kind(image)} as the evaluation transforms "
                f"give it, ends in {type(error).__name__}: {error}; make the model for such images, or change the "
                "benchmark's eval_transform"
            ) from error
    reads_numbers = isinstance(getattr(strategy, "_criterion", None), READS_CLASS_NUMBERS)
    if reads_numbers and isinstance(outputs, Tensor) and outputs.ndim == 2 and outputs.shape[1] <= contents.largest:
        raise ValueError(
            f"the model has {outputs.shape[1]} outputs, too few for class {contents.largest}; "
            f"make it with at least {contents.largest + 1}"
        )


def check_batches(
    strategy: Any, forward: Forward, image: Tensor, task_label: int | None, count: int, drop_last: bool
) -> None:
    """Refuse a number of images of which no batch, or a batch that the model cannot train on, would be made.

    Args:
        strategy, forward: as for :func:`check_model`.
        image: one as the memory will give them, (c, h, w).
        task_label: of this image, None without.
        count: images to train on.
        drop_last: whether a smaller last batch is left out.

    Raises:
        ValueError: with the numbers and the cure.
    """
    size = strategy.train_mb_size
    if drop_last and count < size:
        raise ValueError(
            f"drop_last leaves no batch: the memory has {count} images to train on and train_mb_size is {size}; "
            "lower train_mb_size, or leave drop_last out"
        )
    if count % size != 1 % size or (drop_last and size > 1):
        return
    with _as_it_will_be(strategy) as model:
        try:
            forward(model, *_batch(strategy, image, task_label))
        except ValueError as error:  # batch norm's: a single value a channel has no variance
            raise ValueError(
                f"{count} images in batches of {size} leave a last batch of one image, on which the model cannot be "
                f"trained ({error}); pass drop_last=True to strategy.train, or change train_mb_size or the budget"
            ) from error


def expected_images(
    memory: ReplayMemory,
    configured: ConfiguredMethod,
    classes: list[int],
    missing: list[int],
    again: Sequence[int] = (),
    share: bool = False,
) -> int | None:
    """How many images there will be to train on; None where that is known only once they are made.

    Args:
        memory: under its budget.
        configured: the method that will make the missing ones.
        classes: to train on.
        missing: those of them that are not in memory yet, or will be made again.
        again: the latter.
        share: whether the latter join what is in memory.

    Raises:
        ValueError: the budget is too small for so many classes.
    """
    decoding = configured.decoding()
    if not missing:
        return sum(memory.slots[label].decoded for label in classes)
    if memory.budget.in_bytes or decoding is None:
        return None
    quotas, each = memory.quotas_with(missing, again), decoder(decoding).images_each
    if share and again:
        new = memory.counts_for(missing, lambda label: torch.empty(0), joined=again)
        old = {label: slot.first(quotas[label] - new.get(label, 0)).decoded for label, slot in memory.slots.items()}
        return sum(old.get(label, 0) + each * new.get(label, 0) for label in classes)
    return sum(
        each * quotas[label] if label in missing else memory.slots[label].first(quotas[label]).decoded
        for label in classes
    )


@contextlib.contextmanager
def _as_it_will_be(strategy: Any) -> Iterator[nn.Module]:
    """The strategy's model with the outputs that it will have, without gradients; nothing of it is kept."""
    model = strategy.model
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        if any(callable(getattr(module, "adaptation", None)) for module in model.modules()):
            yield strategy.model_adaptation(copy.deepcopy(model))
            return
        before = [(buffer, buffer.clone()) for buffer in model.buffers()]
        with modes_kept(model):
            try:
                yield model
            finally:
                for buffer, old in before:
                    buffer.copy_(old)


def _batch(strategy: Any, image: Tensor, task_label: int | None) -> tuple[Tensor, Tensor | None]:
    tasks = None if task_label is None else torch.tensor([task_label], device=strategy.device)
    return image[None].to(strategy.device), tasks


def _kind(image: Tensor) -> str:
    return f"{str(image.dtype).removeprefix('torch.')} {tuple(image.shape)}"
