"""The compiled block as differentiable functions: instance norm, ReLU, moments, 2x2 average pooling."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from clreplay.networks.kernels.build import library

LANES = 16
_POINTER, _LONG, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_float
_SHAPE = [(name, _LONG) for name in "nhwc"] + [(name, _INT) for name in ("half", "pooled_half", "threads")]


class _Forward(ctypes.Structure):
    _fields_ = [
        *((name, _POINTER) for name in ("x", "scale", "shift")),
        ("eps", _FLOAT),
        *((name, _POINTER) for name in ("mean", "rstd", "map", "pooled", "first", "second")),
        *_SHAPE,
    ]


class _Backward(ctypes.Structure):
    _fields_ = [
        *(
            (name, _POINTER)
            for name in (
                "x",
                "scale",
                "shift",
                "mean",
                "rstd",
                "map",
                "pooled",
                "first",
                "second",
                "before_first",
                "before_second",
                "out",
                "of_scale",
                "of_shift",
            )
        ),
        *_SHAPE,
    ]


class Block(NamedTuple):
    """Outputs of a block.

    Attributes:
        pooled: (n, c, h / 2, w / 2), channels-last.
        rectified: (n, c, h, w) float32, channels-last: the tap; None without ``keep_map``.
        first, second: (n, c) float32: mean of the tap and of its square over the pixels.
        mean, mean_square: (n, c) float32: the same of the map before the norm.
    """

    pooled: Tensor
    rectified: Tensor | None
    first: Tensor
    second: Tensor
    mean: Tensor
    mean_square: Tensor


def norm_relu_pool(
    maps: Tensor, norm: nn.GroupNorm, keep_map: bool = True, pooled_dtype: torch.dtype | None = None
) -> Block:
    """Instance norm with scale and shift, ReLU, 2x2 average pooling, and moments before the norm and after the ReLU.

    Differentiable once, with respect to ``maps`` and the parameters of ``norm``.

    Args:
        maps: (n, c, h, w) float32 or bfloat16 on the CPU; brought into channels-last if it is not.
            c is a multiple of 16, h and w are even.
        norm: an instance norm, written as a ``GroupNorm`` of single channels.
        keep_map: give the rectified map too; its float32 copy is the largest thing written.
        pooled_dtype: of ``pooled``; that of ``maps`` by default.
    """
    outputs = _NormReluPool.apply(maps, norm.weight, norm.bias, norm.eps, keep_map, pooled_dtype or maps.dtype)
    return Block(*outputs)


class _NormReluPool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        maps: Tensor,
        scale: Tensor,
        shift: Tensor,
        eps: float,
        keep_map: bool,
        pooled_dtype: torch.dtype,
    ) -> tuple[Tensor | None, ...]:
        maps = maps.detach().contiguous(memory_format=torch.channels_last)
        n, c, h, w = maps.shape
        mean, rstd, first, second = maps.new_empty(4, n, c, dtype=torch.float32)
        pooled = _channels_last(n, c, h // 2, w // 2, pooled_dtype)
        rectified = _channels_last(n, c, h, w, torch.float32) if keep_map else None
        scale, shift = scale.detach(), shift.detach()
        values = dict(x=maps, scale=scale, shift=shift, mean=mean, rstd=rstd, map=rectified, pooled=pooled, first=first)
        _call("clreplay_forward", _Forward, dict(values, second=second), maps, pooled_dtype, eps=eps)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(maps, scale, shift, mean, rstd)
        ctx.pooled_dtype = pooled_dtype
        mean_square = (1 / rstd.square() - eps).clamp_min(0) + mean.square()
        return pooled, rectified, first.clone(), second.clone(), mean.clone(), mean_square

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        maps, scale, shift, mean, rstd = ctx.saved_tensors
        pooled, rectified, *moments = gradients
        if pooled is not None:
            pooled = pooled.to(ctx.pooled_dtype).contiguous(memory_format=torch.channels_last)
        if rectified is not None:
            rectified = rectified.contiguous(memory_format=torch.channels_last)
        moments = [None if g is None else g.contiguous() for g in moments]
        out = torch.empty_like(maps)
        values = dict(x=maps, scale=scale, shift=shift, mean=mean, rstd=rstd, map=rectified, pooled=pooled)
        values.update(zip(("first", "second", "before_first", "before_second"), moments), out=out)
        with_parameters = any(ctx.needs_input_grad[1:3])
        if with_parameters:
            values.update(zip(("of_scale", "of_shift"), mean.new_empty(2, *mean.shape)))
        _call("clreplay_backward", _Backward, values, maps, ctx.pooled_dtype)
        parameters = (values["of_scale"].sum(0), values["of_shift"].sum(0)) if with_parameters else (None, None)
        return out, *parameters, None, None, None


def _call(
    function: str,
    structure: type[ctypes.Structure],
    tensors: dict[str, Tensor | None],
    maps: Tensor,
    pooled_dtype: torch.dtype,
    **numbers: float,
) -> None:
    n, c, h, w = maps.shape
    pointers = {name: None if tensor is None else tensor.data_ptr() for name, tensor in tensors.items()}
    arguments = structure(
        **pointers,
        **numbers,
        **dict(n=n, h=h, w=w, c=c),
        half=int(maps.dtype == torch.bfloat16),
        pooled_half=int(pooled_dtype == torch.bfloat16),
        threads=torch.get_num_threads(),
    )
    getattr(library(), function)(ctypes.byref(arguments))


def _channels_last(n: int, c: int, h: int, w: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(n, c, h, w, dtype=dtype, memory_format=torch.channels_last)
