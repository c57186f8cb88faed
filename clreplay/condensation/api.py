"""``condense``: a memory from images and labels, without Avalanche."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clreplay.condensation.methods import Condensed, Condenser, Progress
from clreplay.condensation.real import RealImages, check_images
from clreplay.data import NORMALIZATIONS, Normalization
from clreplay.memory import ReplayMemory


def condense(
    images: Tensor,
    labels: Tensor,
    method: str | Path = "ddm",
    images_per_class: int = 10,
    *,
    preset: str = "paper",
    normalization: Normalization | str | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> ReplayMemory:
    """Condense (or select) a class-balanced set of images.

    Args:
        images: (n, c, h, w), square; uint8 pixel codes, or float images that are normalised already.
        labels: (n,) integers.
        method: a memory's name (``ddm``, ``dm``, ``herding``, ``random``) or the path of a recipe.
        images_per_class: images of every class in the result.
        preset: ``paper`` (20,000 iterations: meant for a GPU), ``cpu`` or ``smoke``.
        normalization: of uint8 images: a :class:`clreplay.data.Normalization`, the name of a known one
            such as ``"cifar10"``, or None to take mean and deviation of these very images.
        seed: of all chance; the same seed, images and settings give the same bytes on a CPU.
        device: where to work; None takes a GPU if there is one.
        progress: called with (done, total, unit).
        **settings: any setting of the recipe, e.g. ``iterations=500``.

    Returns:
        a :class:`clreplay.ReplayMemory`: ``.images`` float32 (n, c, h, w) in normalised space,
        ``.labels``, and ``.record``, the loss terms by iteration.

    Raises:
        ValueError: images or labels are unusable, a class is smaller than asked, a setting is unknown.

    Example:
        >>> memory = condense(images, labels, method="ddm", images_per_class=10, preset="smoke")
        >>> memory.images.shape, memory.labels.shape
    """
    from clreplay.recipes import load_recipe

    recipe = load_recipe(method)
    chosen = recipe.settings(preset, settings)
    images = check_images(torch.as_tensor(images))
    memory = ReplayMemory(
        images_per_class=images_per_class,
        normalization=_normalization_of(images, normalization) if images.dtype == torch.uint8 else None,
    )
    real = RealImages(images, labels, memory.normalization)
    condense_experience(
        memory, real, recipe.method.condense, chosen, seed=seed, device=default_device(device), progress=progress
    )
    memory.info["method"] = recipe.name
    return memory


def condense_experience(
    memory: ReplayMemory,
    real: RealImages,
    condenser: Condenser,
    settings: Any,
    *,
    seed: int,
    device: torch.device,
    task_labels: dict[int, int] | None = None,
    progress: Progress | None = None,
    keep: Path | None = None,
) -> float:
    """Condense one experience into a memory, to the quotas its classes get.

    Args:
        memory: takes the classes in.
        real: the experience.
        condenser, settings: a registered method and its settings, or a callable of one's own.
        seed: of all chance.
        device: where to work.
        task_labels: task label of every class.
        progress: told as the work goes on.
        keep: file that holds the work in progress, so that a stopped condensation can go on.

    Returns:
        seconds spent condensing.

    Raises:
        ValueError: before any work, if a class is in memory already, the budget is too small, or a class
            has fewer real images than its quota.
    """
    quotas = memory.quotas_with(real.classes)
    counts = {label: quotas[label] for label in real.classes}
    real.check_counts(counts)
    start = time.perf_counter()
    kept = {} if keep is None else {"keep": keep}  # callables of one's own need not know of it
    condensed: Condensed = condenser(real, counts, settings, seed=seed, device=device, progress=progress, **kept)
    seconds = time.perf_counter() - start
    experience = 1 + max((row["experience"] for row in memory.record), default=-1)
    record = [{"experience": experience, **row} for row in condensed.record]
    memory.add(condensed.images, task_labels, real.keys, record)
    return seconds


def default_device(device: torch.device | str | None = None) -> torch.device:
    """The device asked for, or a GPU if there is one, or the CPU.

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
        raise ValueError(f"device {device!r} was asked for, but PyTorch sees no GPU; use --device cpu")
    return chosen


def _normalization_of(images: Tensor, wanted: Normalization | str | None) -> Normalization:
    if isinstance(wanted, Normalization):
        return wanted
    if isinstance(wanted, str):
        if wanted not in NORMALIZATIONS:
            raise ValueError(f"normalization must be one of {', '.join(NORMALIZATIONS)}, got {wanted!r}")
        return NORMALIZATIONS[wanted]
    if wanted is not None:
        raise ValueError(f"normalization must be a Normalization, a name or None, got {type(wanted).__name__}")
    # Sums in integers: exact, whatever the number of images.
    codes = images.transpose(0, 1).flatten(1).to(torch.int64)
    mean = codes.sum(1).double() / codes.shape[1]
    deviation = (codes.square().sum(1).double() / codes.shape[1] - mean.square()).clamp_min(1e-6).sqrt()
    return Normalization(tuple((mean / 255).tolist()), tuple((deviation / 255).tolist()))
