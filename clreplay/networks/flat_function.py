"""A network as a function of one flat vector of weights: what methods that differentiate through training need."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call


class FlatFunction:
    """Logits of a network as a differentiable function of (weights, images).

    Args:
        network: convolutions, linear and norm layers. Its own parameters stay out of it and need no gradient
            from here on; running statistics of batch norm are those of the module and change as it is called.

    Attributes:
        size: length of the weight vector.

    Raises:
        TypeError: the network holds a parameter of another kind of layer.

    Example:
        >>> function = FlatFunction(ConvNet(10))
        >>> weights = function.xavier_normal(torch.Generator().manual_seed(0))
        >>> function(weights, torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network.requires_grad_(False)
        parameters = dict(network.named_parameters())
        draws = {f"{path}.{name}".lstrip("."): draw for path, name, draw in _xavier_draws(network)}
        self._names = list(parameters)
        self._shapes = [parameter.shape for parameter in parameters.values()]
        self._sizes = [parameter.numel() for parameter in parameters.values()]
        self.size = sum(self._sizes)
        device, repeats = next(iter(parameters.values())).device, torch.tensor(self._sizes)
        deviation, centre = (torch.tensor(values) for values in zip(*(draws[name] for name in self._names)))
        self._deviation = deviation.repeat_interleave(repeats).to(device)
        self._centre = centre.repeat_interleave(repeats).to(device)

    def __call__(self, weights: Tensor, images: Tensor) -> Tensor:
        """Logits (n, classes) of images (n, c, h, w) with the weights (size,)."""
        return functional_call(self.network, self._named(weights), (images,))

    def xavier_normal(self, generator: torch.Generator) -> Tensor:
        """Fresh weights (size,): N(0, 2 / (fan in + fan out)) for convolution and linear weights, zero biases, norm
        layers at scale 1 and shift 0 (Glorot & Bengio 2010, gain 1); ``generator`` is on the network's device.

        Statistics of batch norm are forgotten.
        """
        for module in self.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.reset_running_stats()
        normal = torch.randn(self.size, generator=generator, device=self._centre.device)
        return normal.mul_(self._deviation).add_(self._centre)

    @torch.no_grad()
    def module(self, weights: Tensor) -> nn.Module:
        """The network itself, with ``weights`` copied into it."""
        parameters = dict(self.network.named_parameters())
        for name, values in self._named(weights).items():
            parameters[name].copy_(values)
        return self.network

    def _named(self, weights: Tensor) -> dict[str, Tensor]:
        parts = weights.split(self._sizes)
        return {name: part.view(shape) for name, part, shape in zip(self._names, parts, self._shapes)}


def _xavier_draws(network: nn.Module) -> list[tuple[str, str, tuple[float, float]]]:
    """Of every parameter: path of its module, name, (deviation, centre) of its normal draw."""
    return [
        (path, name, _xavier(module, name, parameter))
        for path, module in network.named_modules()
        for name, parameter in module.named_parameters(recurse=False)
    ]


def _xavier(module: nn.Module, name: str, parameter: Tensor) -> tuple[float, float]:
    if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
        if name != "weight":
            return 0.0, 0.0
        window = math.prod(parameter.shape[2:])
        return math.sqrt(2.0 / (window * (parameter.shape[0] + parameter.shape[1]))), 0.0
    if isinstance(module, (nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.LayerNorm)):
        return 0.0, 1.0 if name == "weight" else 0.0
    raise TypeError(f"cannot draw {name} of a {type(module).__name__}: only convolution, linear and norm layers")
