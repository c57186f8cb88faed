"""The device to work on, and what it and the processor are called."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch

from clreplay.runtime.progress import counted


def default_device(device: torch.device | str | None = None) -> torch.device:
    """The requested device; without a request a GPU if there is one, else the CPU.

    Raises:
        ValueError: the device is unknown or absent.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device must be like cpu, cuda or cuda:1, got {device!r}") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} was asked for, but PyTorch sees no GPU; take cpu")
    if chosen.type not in ("cpu", "cuda", "meta"):
        try:
            torch.zeros(1, device=chosen)
        except (RuntimeError, NotImplementedError, AssertionError, ImportError) as error:
            first = str(error).partition("\n")[0]
            raise ValueError(f"device {device!r} was asked for, but this PyTorch cannot use it ({first})") from error
    return chosen


@cache
def device_name(device: torch.device, threads: bool = False) -> str:
    """What a device is called: the GPU's name, or the processor's.

    Args:
        device: which.
        threads: whether to say how many threads work on a CPU, too.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    models = (line.partition(":")[2].strip() for line in processor().splitlines() if line.startswith("model name"))
    name = next(models, platform.machine())
    return f"{name}, {counted(torch.get_num_threads(), 'thread')}" if threads else name


def processor() -> str:
    """Model and instruction sets: what ``-march=native`` looks at."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(wanted)))
