"""Train several networks on one memory at once: on a GPU, small networks one after another leave it mostly idle.

A step on a small memory costs little arithmetic and many kernel launches. Here the weights of all networks are
stacked, and a step of all of them takes about twice the launches of a step of one, however many they are.
Every network has its own weights and its own keyed chance, so the results are those of
:func:`clreplay.training.loop.train`, one network after another, up to the rounding of floats.

The activations of a whole stack are in memory at a time: 2.25 MB an image and network of 32 x 32 pixels and width
128, so 11.5 GB for 20 networks in batches of 256. When a GPU has no room for them, stacks are halved until they
fit; the networks of a stack change only once it is trained, so nothing is trained twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clreplay.data import Normalization
from clreplay.runtime.precision import logits_in
from clreplay.training.batches import StackedBatches
from clreplay.training.going_on import Training
from clreplay.training.loop import check_finite, fit_by_settings, whose
from clreplay.training.network_stack import MAX_TOGETHER, NetworkStack, check_stack
from clreplay.training.settings import TrainingSettings


def should_stack(device: torch.device | str, networks: int) -> bool:
    """Whether to train together: several networks on a GPU. A CPU has no launches to save."""
    return torch.device(device).type == "cuda" and networks > 1


def train_together(
    networks: Sequence[nn.Module],
    images: Tensor,
    labels: Tensor,
    settings: TrainingSettings,
    keys: Sequence[tuple[int | str, ...]],
    normalization: Normalization | None = None,
    progress: Callable[[int, int], None] | None = None,
    max_together: int = MAX_TOGETHER,
    keep: Path | None = None,
) -> float:
    """Train all ``networks`` in place as ``train(network, images, labels, settings, key)`` does each with its key.

    Args:
        networks: of one architecture, on the images' device; each keeps its own buffers (batch norm's statistics).
        images: (n, c, h, w) normalised floats, or uint8 with ``normalization``.
        labels: (n,) integers.
        settings: length, optimiser, augmentation.
        keys: one a network: what its shuffling and augmentation are keyed by.
        normalization: for uint8 images.
        progress: called with the epochs done and in all, counted over all networks.
        max_together: networks a stack at most.
        keep: file of a training that can be stopped, see :class:`.going_on.Training`, with the number of the first
            network of a stack behind its name; :func:`.going_on.forget_training` removes them.

    Returns:
        seconds that processes before this one spent on it.

    Raises:
        ValueError: networks and keys differ in number, a network comes twice, architectures differ, a module
            cannot be trained in a stack (dropout, cumulative batch norm), or ``max_together`` is less than 1.
        FloatingPointError: the loss of a network, named by its place, is no longer finite at the end.
    """
    if len(networks) != len(keys):
        raise ValueError(f"keys must be one a network, got {len(keys)} keys for {len(networks)} networks")
    check_stack(networks, max_together)
    _check_trainable(networks)
    start, size, before = 0, max_together, 0.0
    while start < len(networks):
        stack = networks[start : start + size]
        batches = StackedBatches(
            images, labels, settings.batch_size, settings.augment, keys[start : start + size], normalization
        )
        file = None if keep is None else keep.with_name(f"{keep.name}-{start}")
        training = Training(file, whose(settings, *keys[start : start + size]), (images, labels))
        report = None if progress is None else _over_all(progress, start, len(stack), len(networks))
        try:
            losses = _train_stack(stack, batches, settings, report, training)
        except torch.cuda.OutOfMemoryError:
            if size == 1:
                raise
            size = (len(stack) + 1) // 2
            continue  # out of the except clause: its traceback would keep the activations
        for number, loss in enumerate(losses.cpu(), start=start):
            check_finite(loss, settings, f"training of network {number}")
        start, before = start + size, before + training.seconds
    return before


def _train_stack(
    networks: Sequence[nn.Module],
    batches: StackedBatches,
    settings: TrainingSettings,
    progress: Callable[[int, int], None] | None,
    training: Training,
) -> Tensor:
    """Train the networks of one stack; the last loss of every network, (N,)."""
    together = nn.ModuleList(networks).train()
    stack = NetworkStack(networks)

    def losses(batch: tuple[Tensor, Tensor]) -> Tensor:
        images, targets = batch
        logits = logits_in(settings.precision, stack.logits, images)  # N, b, classes
        each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        return each.view(targets.shape).mean(1)  # a network's weights are in its own loss only: so is their gradient

    tensors = {**stack.parameters, **stack.buffers}
    last = fit_by_settings(together, tensors, batches.images, batches.epoch, losses, settings, progress, training)
    stack.write_back()
    return last


def _over_all(
    progress: Callable[[int, int], None], before: int, stack: int, networks: int
) -> Callable[[int, int], None]:
    """Progress of a stack as progress of all networks, of which some were trained ``before``."""
    return lambda done, epochs: progress(before * epochs + done * stack, networks * epochs)


def _check_trainable(networks: Sequence[nn.Module]) -> None:
    """Refuse layers whose random draws or statistics cannot be separate for each network of a stack."""
    for name, module in networks[0].named_modules() if networks else ():
        dropout = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        # Without a momentum the average's weight is 1 / steps so far, read as a Python number.
        batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
        if dropout or batch_norm and module.momentum is None:
            raise ValueError(
                f"networks with {name or 'themselves'} = {module} cannot be trained together; "
                "train them one after another"
            )
