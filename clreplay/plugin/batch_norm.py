"""Running statistics of batch norm, taken from the memory as it is.

Nothing here imports Avalanche.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from clreplay.plugin.avalanche_data import MemoryLoader
from clreplay.runtime.seeding import generator


def moving_norms(model: nn.Module) -> list[_BatchNorm]:
    """Batch norm layers whose running statistics training moves: those in training mode that have any."""
    norms = (module for module in model.modules() if isinstance(module, _BatchNorm))
    return [norm for norm in norms if norm.training and norm.running_mean is not None]


def retake_statistics(
    model: nn.Module,
    loader: MemoryLoader,
    forward: Callable[[nn.Module, Tensor, Tensor | None], Tensor],
    batch_size: int,
    key: tuple[int | str, ...],
) -> None:
    """Give batch norm layers the statistics of a memory's images, in place of the running averages of training.

    One pass in batches that are shuffled and equally large, averaged with equal weight, as ``update_bn`` of
    ``torch.optim.swa_utils`` does; all other layers are in evaluation mode, as they will be when the statistics
    are used. Modes, weights and the global generators stay as they are.

    Args:
        model: trained.
        loader: the images, on the model's device, and the layers that training moves.
        forward: of the model, images and task labels.
        batch_size: images a batch at most.
        key: what the order of the images is keyed by.
    """
    norms = loader.norms
    if not norms:
        return
    images, task_labels = loader.source.images, loader.task_labels
    momenta = [norm.momentum for norm in norms]
    order = torch.randperm(len(images), generator=generator(*key)).to(images.device)
    parts = order.tensor_split(-(-len(order) // batch_size))
    with modes_kept(model), torch.no_grad():
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # PyTorch's sign for a plain average
            norm.training = True
        try:
            for rows in parts:
                forward(model, images[rows], None if task_labels is None else task_labels[rows])
        finally:
            for norm, momentum in zip(norms, momenta):
                norm.momentum = momentum


@contextlib.contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Afterwards every module is in the mode it was in, whatever its own ``train`` would do."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
