"""Keyed chance: every random number is a pure function of what it is for.

A stream of random numbers shared by everything makes each draw depend on all draws before it. Here a
draw is keyed instead, for example by ``(seed, class key, "real", block)``: a class comes out the same
whichever other classes, groups, steps, class orders or processes are beside it, and an interrupted run
needs no generator state to go on.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor

BLOCK = 64
"""Iterations whose draws are made together. Part of the meaning of a seed: changing it changes results."""


def key_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a pure function of ``parts``, e.g. ``key_seed(seed, "network", 7)``.

    Integers and strings are different keys (``1`` and ``"1"`` differ), so are ``("ab",)`` and ``("a", "b")``.

    Raises:
        TypeError: a part is neither an integer nor a string.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, (int, str)):
            raise TypeError(f"parts must be integers or strings, got {part!r} ({type(part).__name__})")
        kind = "i" if isinstance(part, int) else "s"
        text = str(part)
        digest.update(f"{kind}{len(text)}:{text}".encode())
    return int.from_bytes(digest.digest(), "little") >> 1


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator on ``device``, seeded by :func:`key_seed` of ``parts``."""
    return torch.Generator(device=device).manual_seed(key_seed(*parts))


def class_key(images: Tensor) -> str:
    """Hash of one class's normalised images (float32, n x c x h x w), in their order: 32 hex digits.

    The key names the class in every draw, so it must not depend on whether the images were held as
    uint8 or as float: callers pass the *normalised* images in both cases
    (``clreplay.data.Normalization.apply`` is bit-identical to torchvision's transforms).
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(str(tuple(images.shape)).encode())
    for chunk in images.split(256):
        digest.update(chunk.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()


def content_address(arithmetic: int, *parts: Any) -> str:
    """Name of something computed, by all that decides it; another version of PyTorch makes another name.

    Args:
        arithmetic: raised by whoever computes it whenever a change of the code changes what comes out.
        parts: everything else, as JSON knows it.
    """
    version = ".".join(torch.__version__.split(".")[:2])
    text = json.dumps([arithmetic, version, *parts], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()
