"""Condense images in one call, without a run, a folder or Avalanche."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clreplay.condensation.experience import condense_experience
from clreplay.condensation.real_images import RealImages, check_images
from clreplay.data import NORMALIZATIONS, Normalization, measured_normalization, pixel_codes
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.runtime.device import default_device
from clreplay.runtime.progress import Progress


def condense(
    images: Tensor,
    labels: Tensor,
    method: str | Path = "ddm",
    images_per_class: int | None = None,
    *,
    preset: str = "paper",
    normalization: Normalization | str | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    dataset: str | None = None,
    store: str = "uint8",
    quality: int | str | None = None,
    pixels: int | None = None,
    bytes_per_class: int | None = None,
    mem_bytes: int | None = None,
    **settings: Any,
) -> ReplayMemory:
    """Condense (or select) a class-balanced set of images.

    Args:
        images: (n, c, h, w), square; uint8 pixel codes, or float images that are normalised already.
        labels: (n,) integers.
        method: a memory's name (``ddm``, ``dm``, ``herding``, ``random``) or the path of a recipe.
        images_per_class: images of every class that are stored; 10 where no budget is given.
        preset: ``paper`` (20,000 iterations: meant for a GPU), ``cpu`` or ``smoke``.
        normalization: a :class:`clreplay.data.Normalization` or the name of a known one such as
            ``"cifar10"``. None takes mean and deviation of uint8 images themselves, and recognises known
            normalisations of float images by recovering their pixel codes exactly.
        seed: of all chance; the same seed, images and settings give the same bytes on a CPU.
        device: where to work; None takes a GPU if there is one.
        progress: called with (done, total, unit).
        dataset: name recorded in the memory, which ``ReplayMemory.load(path, dataset=...)`` checks; recipes may
            have settings of their own for some data sets (``cifar10``, ``cifar100``, ...).
        store: how images are kept: ``uint8``, ``float32`` (condensed ones, at four times the bytes), ``4bit``,
            ``2bit``, ``png``, ``jpeg``, ``webp`` or ``avif``, see :class:`clreplay.ReplayMemory`.
        quality: of a store that is an image codec; None takes its default, ``auto`` the highest at which all images
            of a class fit into its bytes.
        pixels: height and width of what is kept of every image, enlarged again to be trained on; None keeps all.
        bytes_per_class, mem_bytes: a budget in bytes instead, of every class or of all together; everything that is
            stored is counted, and how many images come of it depends on the store.
        **settings: any setting of the recipe, e.g. ``iterations=500``.

    Returns:
        a :class:`clreplay.ReplayMemory`: ``.images`` float32 (n, c, h, w) in normalised space,
        ``.labels``, and ``.record``, the loss terms by iteration.

    Raises:
        ValueError: images or labels are unusable, a class is smaller than requested, a setting is unknown.

    Example:
        >>> memory = condense(images, labels, method="ddm", images_per_class=10, preset="smoke")
        >>> memory.images.shape, memory.labels.shape
    """
    from clreplay.recipes import load_recipe

    if images_per_class is None and bytes_per_class is None and mem_bytes is None:
        images_per_class = 10
    memory = ReplayMemory(
        images_per_class,
        store=store,
        quality=quality,
        bytes_per_class=bytes_per_class,
        mem_bytes=mem_bytes,
        pixels=pixels,
    )
    recipe = load_recipe(method)
    configured = recipe.configured(preset, settings, dataset, images_per_class)
    images, normalization = _as_pixel_codes(check_images(torch.as_tensor(images)), normalization)
    memory.check_channels(images.shape[1])
    memory.normalization = normalization
    real = RealImages(images, labels, normalization)
    memory.total_classes = len(real.classes)
    condense_experience(memory, real, configured, seed=seed, device=default_device(device), progress=progress)
    memory.info.update(method=recipe.name, **({"dataset": dataset} if dataset else {}))
    return memory


def _as_pixel_codes(images: Tensor, wanted: Normalization | str | None) -> tuple[Tensor, Normalization | None]:
    """Images as pixel codes with their normalisation, where that loses nothing; floats as they are otherwise."""
    if isinstance(wanted, str):
        if wanted not in NORMALIZATIONS:
            raise ValueError(f"normalization must be one of {', '.join(NORMALIZATIONS)}, got {wanted!r}")
        wanted = NORMALIZATIONS[wanted]
    if wanted is not None and not isinstance(wanted, Normalization):
        raise ValueError(f"normalization must be a Normalization, a name or None, got {type(wanted).__name__}")
    if images.dtype == torch.uint8:
        return images, wanted or measured_normalization(images)
    return pixel_codes(images, wanted)
