"""Fresh weights in place: for whole models (the plugin) and for a flat buffer (the engine)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn


def reinitialize(
    model: nn.Module, seed: int, custom: Callable[[nn.Module], None] | None = None, keep_frozen: bool = False
) -> None:
    """Draw every parameter and statistic of ``model`` anew, in place, leaving the global chance as it was.

    Each submodule's own ``reset_parameters`` is called (PyTorch's convention; it covers the
    normalisation layers' running statistics too), so object identity and the optimizer's links stay.

    Args:
        model: any module; its parameter objects stay the same.
        seed: seed of the draw (63 bits).
        custom: called with the model instead, for models that need something else
            (the plugin's ``reinitialize=``).
        keep_frozen: parameters without gradient keep their values, and a module of which all are frozen its
            statistics, too: what cannot be trained again must not become random. Not heeded with ``custom``, which
            says itself what it redraws.

    Raises:
        TypeError: a module owns parameters and has no ``reset_parameters``; the model is untouched. Or
            parameters were replaced by new objects, which an optimizer would not know.
    """
    draws = [m.reset_parameters for m in _resettable_modules(model, keep_frozen)] if custom is None else []
    kept = [(value, value.detach().clone()) for value in _frozen_values(model)] if keep_frozen and not custom else []
    before = [id(parameter) for parameter in model.parameters()]
    with _chance(model, seed), torch.no_grad():
        for draw in draws:
            draw()
        # Put back, not passed over: a parent's reset may reach them, and what is drawn for the others stays the same.
        for value, old in kept:
            value.copy_(old)
        if custom is not None:
            custom(model)
    if [id(parameter) for parameter in model.parameters()] != before:
        raise TypeError(
            "the model's parameters were replaced instead of redrawn in place; write into them, for instance by "
            "model.load_state_dict(fresh_model.state_dict())"
        )


def frozen_parameters(model: nn.Module) -> list[str]:
    """Names of the parameters without gradient."""
    return [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


def _frozen_values(model: nn.Module) -> list[Tensor]:
    """Parameters without gradient, and the statistics of modules whose own parameters are all so."""
    values: list[Tensor] = []
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        values.extend(parameter for parameter in own if not parameter.requires_grad)
        if own and not any(parameter.requires_grad for parameter in own):
            values.extend(module.buffers(recurse=False))
    return values


def _resettable_modules(model: nn.Module, keep_frozen: bool = False) -> list[nn.Module]:
    """The modules to reset, innermost first, so that a parent has the last word about its children."""
    found: list[nn.Module] = []
    for name, module in model.named_modules():
        if callable(getattr(module, "reset_parameters", None)):
            found.append(module)
            continue
        owned = [n for n, p in module.named_parameters(recurse=False) if p.requires_grad or not keep_frozen]
        if owned:
            where = f"{name!r} ({type(module).__name__})" if name else f"the model ({type(module).__name__})"
            raise TypeError(
                f"cannot re-initialise {where}: it owns {', '.join(owned)} and has no reset_parameters(); "
                "give it one, or pass reinitialize=, a callable that redraws the whole model in place"
            )
    return found[::-1]


def check_redrawable(model: nn.Module, keep_frozen: bool = False) -> None:
    """Refuse a model of which :func:`reinitialize` would leave something that was learned.

    A module can inherit ``reset_parameters`` and own parameters that it does not cover, such as the
    directions of ``torch.nn.utils.weight_norm``. So it is tried out; the model stays as it is.

    Raises:
        TypeError: naming the module or the parameters.
    """
    modules = _resettable_modules(model, keep_frozen)
    values = [*model.parameters(), *model.buffers()]
    before = [value.detach().clone() for value in values]
    left_alone = set(frozen_parameters(model)) if keep_frozen else set()
    learned = {n: p for n, p in model.named_parameters() if p.is_floating_point() and n not in left_alone}
    with _chance(model, 0), torch.no_grad():
        try:
            for parameter in learned.values():
                parameter.fill_(float("nan"))
            for module in modules:
                module.reset_parameters()
            left = [name for name, parameter in learned.items() if parameter.isnan().any()]
        finally:
            for value, old in zip(values, before):
                value.copy_(old)
    if left:
        raise TypeError(
            f"cannot re-initialise {', '.join(left)}: no reset_parameters() of the model draws them anew; "
            "extend it, or pass reinitialize=, a callable that redraws the whole model in place"
        )


@contextlib.contextmanager
def _chance(model: nn.Module, seed: int) -> Iterator[None]:
    """The global generators of the model's devices, seeded; as they were, afterwards."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        # Not torch.manual_seed: it would reseed every GPU, also those that are not restored here.
        torch.default_generator.manual_seed(seed)
        for index in devices:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield


class FlatParameters:
    """The parameters of a network of convolutions, linear and norm layers in one flat buffer.

    Redrawing them is one uniform draw and one multiply-add on the device, instead of a new module:
    PyTorch's default initialisation of ``Conv2d`` and ``Linear`` is U(-b, b) with b = 1/sqrt(fan in) for
    weight and bias alike, and norm layers start at scale 1, shift 0.

    Args:
        network: its parameters become views of the buffer and need no gradient from here on.

    Raises:
        TypeError: the network holds a parameter of another kind of layer.
    """

    def __init__(self, network: nn.Module) -> None:
        bounds, centres, sizes, parameters = [], [], [], []
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                bound, centre = _default_initialisation(module, name)
                sizes.append(parameter.numel())
                bounds.append(bound)
                centres.append(centre)
                parameters.append(parameter)
        device = parameters[0].device
        repeats = torch.tensor(sizes)
        self._bound = torch.tensor(bounds).repeat_interleave(repeats).to(device)
        self._centre = torch.tensor(centres).repeat_interleave(repeats).to(device)
        self.buffer = torch.empty_like(self._bound)
        offset = 0
        for parameter, size in zip(parameters, sizes):
            parameter.requires_grad_(False)
            parameter.data = self.buffer[offset : offset + size].view(parameter.shape)
            offset += size
        self._norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]

    def redraw(self, generator: torch.Generator) -> None:
        """Draw all parameters anew (and forget batch-norm statistics); ``generator`` is on their device."""
        self.buffer.uniform_(-1.0, 1.0, generator=generator)
        self.buffer.mul_(self._bound).add_(self._centre)
        for norm in self._norms:
            norm.reset_running_stats()


def _default_initialisation(module: nn.Module, name: str) -> tuple[float, float]:
    """(bound, centre) of the uniform draw of one parameter."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        fan_in = module.weight[0].numel()
        return 1.0 / math.sqrt(fan_in), 0.0
    if isinstance(module, (nn.GroupNorm, nn.BatchNorm2d, nn.LayerNorm)):
        return 0.0, 1.0 if name == "weight" else 0.0
    raise TypeError(f"cannot redraw {name} of a {type(module).__name__}: only convolution, linear and norm layers")


def parameter_count(network: nn.Module) -> int:
    """Number of trainable scalars."""
    return sum(p.numel() for p in network.parameters())
