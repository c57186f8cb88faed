"""``confusion.safetensors`` of a run's folder: which classes every network took the test images of every class for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from clreplay.runtime.checksum import DamagedFile, read_tensors, tensor_bytes, write_bytes

FORMAT = "1"


class Tested(NamedTuple):
    """One network after one step.

    Attributes:
        memory, class_order, step, network: which, as in ``results.csv``.
        classes: labels of the classes seen, in the order in which they came.
        counts: int64 (classes seen, outputs): test images of every class, by what they were taken for.
    """

    memory: str
    class_order: int
    step: int
    network: int
    classes: tuple[int, ...]
    counts: Tensor


def write_confusions(path: Path, tested: Sequence[Tested]) -> None:
    """Add what was counted after a step; what is there of the same networks is replaced.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    tensors = _tensors(path) if path.is_file() else {}
    for one in tested:
        kind = torch.int16 if int(one.counts.max()) < 2**15 else torch.int32
        tensors[_name(one)] = one.counts.to(kind)
        tensors[f"classes/{one.class_order}/{one.step}"] = torch.tensor(one.classes, dtype=torch.int32)
    write_bytes(path, tensor_bytes(tensors, {"confusion": FORMAT}))


def read_confusions(path: Path) -> list[Tested]:
    """All that is in the file, by memory, class order, step and network.

    Raises:
        FileNotFoundError: there is none, as in folders of runs before there was one.
        ValueError: it is damaged, or of a later version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; runs of earlier versions left none: repeat the run to have it")
    tensors, found = _tensors(path), []
    for name, counts in tensors.items():
        if name.startswith("classes/"):
            continue
        try:
            order, step, network, memory = name.split("/", 3)
            classes = tuple(tensors[f"classes/{order}/{step}"].tolist())
            if counts.ndim != 2 or len(classes) != len(counts) or int(counts.min()) < 0:
                raise ValueError(f"{name} has counts of shape {tuple(counts.shape)} for {len(classes)} classes")
            found.append(Tested(memory, int(order), int(step), int(network), classes, counts.long()))
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}); remove it, or repeat the run elsewhere") from error
    return sorted(found, key=lambda one: one[:4])


def _name(one: Tested) -> str:
    return f"{one.class_order}/{one.step}/{one.network}/{one.memory}"


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors, about = read_tensors(path, ("confusion",))
    except DamagedFile as error:
        raise ValueError(f"{path} is damaged: {error}; remove it, or repeat the run elsewhere") from error
    if about.get("confusion") != FORMAT:
        raise ValueError(f"{path} has format {about.get('confusion')!r}, this version reads {FORMAT!r}")
    return tensors
