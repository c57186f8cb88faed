"""Train several networks on one memory at once: on a GPU, small networks one after another leave it mostly idle.

A step on a small memory costs little arithmetic and many kernel launches. Here the weights of all networks are
stacked, and a step of all of them takes about twice the launches of a step of one, however many they are.
Every network keeps its own weights and its own keyed chance, so the results are those of
:func:`clreplay.training.loop.train`, one network after another, up to the rounding of floats.

The activations of a whole stack are held at a time: 2.25 MB an image and network of 32 x 32 pixels and width
128, so 11.5 GB for 20 networks in batches of 256. When a GPU has no room for them, stacks are halved until they
fit; the networks of a stack change only once it is trained, so nothing is trained twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from clreplay.data import Normalization
from clreplay.training.augmentation import augment_images
from clreplay.training.batches import BatchSource
from clreplay.training.settings import TrainingSettings

MAX_TOGETHER = 20
"""Networks a stack at most, unless told otherwise."""


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
) -> None:
    """Train all ``networks`` in place as ``train(network, images, labels, settings, key)`` does each with its key.

    Args:
        networks: of one architecture, on the images' device; buffers (batch norm's statistics) are kept apart too.
        images: (n, c, h, w) normalised floats, or uint8 with ``normalization``.
        labels: (n,) integers.
        settings: length, optimiser, augmentation.
        keys: one a network: what its shuffling and augmentation are keyed by.
        normalization: for uint8 images.
        progress: called with the epochs done and in all, counted over all networks.
        max_together: networks a stack at most.

    Raises:
        ValueError: networks and keys differ in number, a network comes twice, architectures differ, a module
            cannot be trained in a stack (dropout, cumulative batch norm), or ``max_together`` is less than 1.
        FloatingPointError: the loss of a network, named by its place, is no longer finite at the end.
    """
    if len(networks) != len(keys):
        raise ValueError(f"keys must be one a network, got {len(keys)} keys for {len(networks)} networks")
    _check_stackable(networks, max_together)
    epochs, start, size = settings.epochs_for(len(images)), 0, max_together
    while start < len(networks):
        batches = _Batches(images, labels, settings, keys[start : start + size], normalization)
        tell = None if progress is None else _shifted(progress, start * epochs, len(networks) * epochs)
        try:
            losses = _train_stack(networks[start : start + size], batches, settings, tell)
        except torch.cuda.OutOfMemoryError:
            if size == 1:
                raise
            size = (min(size, len(networks) - start) + 1) // 2
            continue  # out of the except clause: its traceback would keep the activations
        _check_finite(losses, start, settings)
        start += size


def _train_stack(
    networks: Sequence[nn.Module],
    batches: _Batches,
    settings: TrainingSettings,
    progress: Callable[[int], None] | None,
) -> Tensor:
    """The loop of ``train`` on stacked weights; the last loss of every network, (N,)."""
    for network in networks:
        network.train()
    parameters, buffers = stack_module_state(list(networks))
    forward = vmap(_forward(networks[0]))
    n, lr = batches.images_in_all, settings.lr
    optimizer = _optimizer(parameters, settings, lr)
    for epoch in range(settings.epochs_for(n)):
        for images, targets in batches.epoch(epoch):
            logits = forward(parameters, buffers, images)  # N, b, classes
            losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
            losses = losses.view(targets.shape).mean(1)
            optimizer.zero_grad(set_to_none=True)
            losses.sum().backward()  # a network's weights are in its own loss only: so is their gradient
            optimizer.step()
        if epoch == settings.drop_after(n):
            lr *= settings.lr_drop
            optimizer = _optimizer(parameters, settings, lr)
        if progress is not None:
            progress((epoch + 1) * len(networks))
    _unstack(networks, parameters, buffers)
    return losses.detach()


def _forward(network: nn.Module) -> Callable[[dict[str, Tensor], dict[str, Tensor], Tensor], Tensor]:
    """The network's logits as a function of its state; its own weights stay out of it."""

    def forward(parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor) -> Tensor:
        return functional_call(network, (parameters, buffers), (images,))

    return forward


def _optimizer(parameters: dict[str, Tensor], settings: TrainingSettings, lr: float) -> torch.optim.SGD:
    """SGD acts on every number by itself, so on stacked weights it is one optimiser a network."""
    return torch.optim.SGD(parameters.values(), lr=lr, momentum=settings.momentum, weight_decay=settings.weight_decay)


@torch.no_grad()
def _unstack(networks: Sequence[nn.Module], parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> None:
    for i, network in enumerate(networks):
        for name, parameter in network.named_parameters():
            parameter.copy_(parameters[name][i])
        for name, buffer in network.named_buffers():
            buffer.copy_(buffers[name][i])


def _shifted(progress: Callable[[int, int], None], before: int, total: int) -> Callable[[int], None]:
    return lambda done: progress(before + done, total)


class _Batches:
    """The mini-batches that :class:`BatchSource` gives every key, stacked: images (N, b, c, h, w), labels (N, b)."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        settings: TrainingSettings,
        keys: Sequence[tuple[int | str, ...]],
        normalization: Normalization | None,
    ) -> None:
        self.images, self.labels, self.normalization = images, labels, normalization
        self.images_in_all = len(images)
        # The sources only draw, on the host: one transfer for all networks instead of one each.
        nothing = torch.empty(len(images), 0)
        size, augment = settings.batch_size, settings.augment
        self.sources = [BatchSource(nothing, nothing, size, augment, key) for key in keys]
        self.strategy = self.sources[0].strategy

    def epoch(self, epoch: int):
        """The mini-batches of one epoch; network i's are those of ``keys[i]``."""
        for drawn in zip(*(source.rows(epoch) for source in self.sources)):
            rows, choices, parameters = zip(*drawn)
            yield self._batch(torch.stack(rows), choices, torch.stack(parameters))

    def _batch(self, rows: Tensor, choices: Sequence[float], parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Networks that drew the same operator share its call: it acts on every image by itself.

        Args:
            rows: (N, b), on the host.
            choices: the operator's choice of every network.
            parameters: (N, b, draw_size - 1) uniform numbers, on the host.
        """
        groups: dict[tuple[str, ...], list[int]] = {}
        for i, choice in enumerate(choices):
            groups.setdefault(tuple(self.strategy.chosen(choice)), []).append(i)
        order = torch.tensor([i for members in groups.values() for i in members])
        b = rows.shape[1]
        images = self.images[self._there(rows[order].flatten())]  # N * b, grouped by operator
        if self.normalization is not None:
            images = self.normalization.apply(images)
        drawn = self._there(parameters[order].flatten(0, 1))
        sizes = [len(members) * b for members in groups.values()]
        pieces = [
            augment_images(piece, choices[members[0]], u, self.strategy)
            for members, piece, u in zip(groups.values(), images.split(sizes), drawn.split(sizes))
        ]
        images = torch.cat(pieces).unflatten(0, (len(rows), b))
        return images[self._there(order.argsort())], self.labels[self._there(rows)]

    def _there(self, drawn: Tensor) -> Tensor:
        # Without waiting: a step that had to end before the next is prepared would leave the GPU idle.
        return drawn.to(self.images.device, non_blocking=True)


# ---------------------------------------------------------------- what cannot be stacked


def _check_finite(losses: Tensor, start: int, settings: TrainingSettings) -> None:
    for number, loss in enumerate(losses.tolist(), start=start):
        if not abs(loss) < float("inf"):
            raise FloatingPointError(
                f"training of network {number} diverged (loss {loss}); lower lr (now {settings.lr})"
            )


def _check_stackable(networks: Sequence[nn.Module], max_together: int) -> None:
    _check_alike(networks, max_together)
    for name, module in networks[0].named_modules() if networks else ():
        dropout = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        # Without a momentum the average's weight is 1 / steps so far, read as a Python number.
        batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
        if dropout or batch_norm and module.momentum is None:
            raise ValueError(
                f"networks with {name or 'themselves'} = {module} cannot be trained together; "
                "train them one after another"
            )


def _check_alike(networks: Sequence[nn.Module], max_together: int) -> None:
    """Modules are compared by class and ``extra_repr``, which holds what PyTorch's layers are set to."""
    if max_together < 1:
        raise ValueError(f"max_together must be at least 1, got {max_together}")
    owners: dict[int, int] = {}
    for number, network in enumerate(networks):
        for tensor in (*network.parameters(), *network.buffers()):
            if owners.setdefault(id(tensor), number) != number:
                raise ValueError(f"networks must not share weights, but {owners[id(tensor)]} and {number} do")
    parts = [_parts(network) for network in networks]
    for number, other in enumerate(parts):
        for name in {**parts[0], **other}:
            ours, theirs = parts[0].get(name, "nothing"), other.get(name, "nothing")
            if ours != theirs:
                raise ValueError(
                    f"networks must be of one architecture, but {name} is {theirs} in network {number} and {ours} "
                    "in network 0; train it on its own"
                )


def _parts(network: nn.Module) -> dict[str, str]:
    parts = {name or "the network": f"{type(m).__name__}({m.extra_repr()})" for name, m in network.named_modules()}
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        grows = ", learned" if tensor.requires_grad else ""
        parts[name] = f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}{grows}"
    return parts
