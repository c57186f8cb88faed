"""Several networks of one architecture with their weights stacked, so that one forward pass runs all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

MAX_TOGETHER = 20
"""Networks a stack at most, by default."""


class NetworkStack:
    """The stacked weights of networks that :func:`check_stack` accepts; the networks' own weights do not change.

    Args:
        networks: N of them, all in training mode or all in evaluation mode.

    Attributes:
        parameters, buffers: by name, each with a leading axis of N.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self.networks = networks
        self.parameters, self.buffers = stack_module_state(list(networks))

    def logits(self, images: Tensor, shared: bool = False) -> Tensor:
        """Logits (N, b, classes) of every network.

        Args:
            images: (N, b, c, h, w), or (b, c, h, w) if all networks see the same.
            shared: whether all networks see the same images.
        """
        return vmap(self._logits, in_dims=(0, 0, None if shared else 0))(self.parameters, self.buffers, images)

    def _logits(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor) -> Tensor:
        """Logits of one network: any of them serves as the function, with these weights in the place of its own."""
        logits: Tensor = functional_call(self.networks[0], (parameters, buffers), (images,))
        return logits

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the stacked weights and buffers into the networks."""
        for i, network in enumerate(self.networks):
            for name, parameter in network.named_parameters():
                parameter.copy_(self.parameters[name][i])
            for name, buffer in network.named_buffers():
                buffer.copy_(self.buffers[name][i])


def check_stack(networks: Sequence[nn.Module], max_together: int) -> None:
    """Refuse networks that cannot be stacked.

    Modules are compared by class and ``extra_repr``, which holds the options of PyTorch's layers.

    Raises:
        ValueError: architectures differ, networks share weights, or ``max_together`` is less than 1.
    """
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
            first, second = parts[0].get(name, "nothing"), other.get(name, "nothing")
            if first != second:
                raise ValueError(
                    f"networks must be of one architecture, but {name} is {second} in network {number} and {first} "
                    "in network 0; train it on its own"
                )


def _parts(network: nn.Module) -> dict[str, str]:
    """A description of every module, parameter and buffer by its name."""
    parts = {name or "the network": f"{type(m).__name__}({m.extra_repr()})" for name, m in network.named_modules()}
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        learned = ", learned" if tensor.requires_grad else ""
        parts[name] = f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}{learned}"
    return parts
