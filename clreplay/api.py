"""Condense images in one call, without a run, a folder or Avalanche."""

from __future__ import annotations

import logging
import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clreplay.condensation.configured import ConfiguredMethod
from clreplay.condensation.experience import condense_experience
from clreplay.condensation.real_images import RealImages, check_images
from clreplay.condensation.registry import Condenser
from clreplay.data import NORMALIZATIONS, Normalization, measured_normalization, pixel_codes
from clreplay.memory.class_names import as_plain, check_class_names
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.recipes.cases import checked_name
from clreplay.recipes.given import given_method, loaded_method
from clreplay.recipes.presets import default_preset
from clreplay.recipes.recipe import Recipe
from clreplay.runtime.device import default_device
from clreplay.runtime.progress import Progress, check_progress, shown

logger = logging.getLogger(__name__)

FAR_OUT = 20.0
"""Normalised pixels lie within a few units of zero; floats beyond this were probably never normalised."""


def condense(
    images: Tensor,
    labels: Tensor,
    method: str | Path | Recipe | Condenser = "ddm",
    images_per_class: int | None = None,
    *,
    preset: str | None = None,
    normalization: Normalization | str | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress | bool | None = None,
    dataset: str | None = None,
    store: str = "uint8",
    quality: int | str | None = None,
    pixels: int | None = None,
    mem_size: int | None = None,
    bytes_per_class: int | None = None,
    mem_bytes: int | None = None,
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    **settings: Any,
) -> ReplayMemory:
    """Condense (or select) a class-balanced set of images.

    Args:
        images: (n, c, h, w); uint8 pixel codes, or float images that are normalised already. With a
            ``normalization`` floats within [0, 1], such as ``ToTensor`` gives, are pixels and are normalised with it.
        labels: (n,) integers.
        method: a memory's name (``ddm``, ``dm``, ``herding``, ``random``), the path of a recipe, a recipe, or a
            callable of one's own, see :class:`clreplay.condensation.registry.Condenser`.
        images_per_class: images of every class that are stored; 10 where no budget is given. Classes that have fewer
            are kept whole, as they are, and the log says so.
        preset: ``paper`` (20,000 iterations: meant for a GPU), ``cpu`` or ``smoke``; None takes ``paper`` on a GPU and
            ``cpu`` otherwise, and says so in the log with what the paper's would take. Settings that are given go
            before those of a preset.
        normalization: a :class:`clreplay.data.Normalization` or the name of a known one such as
            ``"cifar10"``; one of a single channel serves any number. None takes mean and deviation of uint8 images
            themselves, and recognises known normalisations of float images by recovering their pixel codes exactly.
        seed: of all chance; the same seed, images and settings give the same bytes on a CPU.
        device: where to work; None takes a GPU if there is one.
        progress: called with (done, total, unit), or with a line now and then where it takes a text (``print``,
            ``logger.info``); None draws a bar with the loss terms on a terminal, True does so there and prints lines
            elsewhere, False nothing anywhere. A method ``row`` that it has gets the rows of the record as they come.
        dataset: name recorded in the memory, which ``ReplayMemory.load(path, dataset=...)`` checks; recipes may
            have settings of their own for some data sets (``cifar10``, ``cifar100``, ...).
        store: how images are kept: ``uint8``, ``float32`` (condensed ones, at four times the bytes), ``4bit``,
            ``2bit``, ``png``, ``jpeg``, ``webp`` or ``avif``, see :class:`clreplay.ReplayMemory`.
        quality: of a store that is an image codec; None takes its default, ``auto`` as high as a
            budget in bytes allows, see :class:`clreplay.ReplayMemory`.
        pixels: height and width of what is kept of every image, enlarged again to be trained on; None keeps all.
        mem_size: a budget in images of all classes together instead.
        bytes_per_class, mem_bytes: a budget in bytes instead, of every class or of all together; everything that is
            stored is counted, and how many images come of it depends on the store.
        class_names: in the order of the labels 0, 1, ..., or by label; the memory's file and its exports have them.
        **settings: any setting of the recipe, e.g. ``iterations=500``.

    Returns:
        a :class:`clreplay.ReplayMemory`: ``.images`` float32 (n, c, h, w) in normalised space,
        ``.labels``, and ``.record``, the loss terms by iteration.

    Raises:
        ValueError: images or labels are unusable or not normalised as is said, no class has as many images as are
            asked of each, a setting is unknown.

    Example:
        >>> memory = condense(images, labels, method="ddm", images_per_class=10, preset="smoke")
        >>> memory.images.shape, memory.labels.shape
    """
    _check_arguments(seed, progress)
    names = None if class_names is None else check_class_names(class_names)
    if images_per_class is None and mem_size is None and bytes_per_class is None and mem_bytes is None:
        images_per_class = 10
    memory = ReplayMemory(
        images_per_class,
        mem_size,
        store=store,
        quality=quality,
        bytes_per_class=bytes_per_class,
        mem_bytes=mem_bytes,
        pixels=pixels,
    )
    if dataset is not None:
        checked_name(dataset)
    where = default_device(device)
    chosen = default_preset(where) if preset is None else preset
    method = loaded_method(method, settings, condense)
    if isinstance(method, ConfiguredMethod) or not (isinstance(method, Recipe) or callable(method)):
        raise ValueError(
            f"method must be a memory's name, a recipe or its path, or a callable, got {type(method).__name__}"
        )
    configured, unasked = given_method(method, preset, chosen, settings, (dataset, memory.images_per_class))
    if where.type == "meta":
        raise ValueError(f"device must hold numbers, got {device!r}; take one like cpu, cuda or cuda:1")
    # What learns needs gradients, also where the caller has switched them off.
    with torch.inference_mode(False), torch.enable_grad():
        images, normalization = as_pixel_codes(check_images(as_tensor(images)), normalization)
        memory.check_channels(images.shape[1])
        memory.normalization = normalization
        real = RealImages(images, labels, normalization)
        memory.total_classes = len(real.classes)
        if names is not None:
            memory.info["class_names"] = as_plain(check_class_names(names, real.classes))
        if unasked is not None:
            unasked.say(configured, real, memory.images_per_class, where)
        asked = None if images_per_class is None else images_per_class * configured.real_images_each()
        with shown(progress, f"{configured.name}, condensing") as told:
            condense_experience(
                memory,
                real,
                configured,
                seed=int(seed),
                device=where,
                progress=told,
                # That no class has so many is a slip; that one has fewer is how data are.
                keep_whole=asked is None or any(real.count(one) >= asked for one in real.classes),
            )
    memory.info.update(method=configured.name, **({"dataset": dataset} if dataset else {}))
    return memory


def _check_arguments(seed: int, progress: Progress | bool | None) -> None:
    """What would fail in the middle of the work, or in PyTorch's words."""
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool):
        raise ValueError(f"seed must be an integer, got {seed!r}")
    check_progress(progress)
    if torch.get_default_dtype() != torch.float32:
        raise ValueError(
            f"networks here are of torch.float32, but the default is {torch.get_default_dtype()}; "
            "call torch.set_default_dtype(torch.float32) before condense"
        )


def as_tensor(images: Any) -> Tensor:
    if isinstance(images, (list, tuple)) and len(images) and isinstance(images[0], Tensor):
        raise ValueError(f"images must be one tensor (n, c, h, w), got a {type(images).__name__}; torch.stack them")
    try:
        found = torch.as_tensor(images)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"images must be a tensor or an array (n, c, h, w), got {type(images).__name__} ({error}); convert them, "
            "such as with torch.stack([pil_to_tensor(image) for image in images])"
        ) from error
    return found.clone() if found.is_inference() else found  # gradients flow through no other kind


def as_pixel_codes(images: Tensor, wanted: Normalization | str | None) -> tuple[Tensor, Normalization | None]:
    """Images as pixel codes with their normalisation, where that loses nothing; normalised floats otherwise.

    Raises:
        ValueError: there is no such normalisation, it is for another number of channels, or the floats are not
            normalised with it.
    """
    wanted = _found(wanted, images.shape[1])
    if images.dtype == torch.uint8:
        return images, wanted or measured_normalization(images)
    codes, found = pixel_codes(images, wanted)
    if found is not None:
        return codes, found
    low, high = float(images.min()), float(images.max())
    if wanted is None:
        if max(-low, high) > FAR_OUT:
            logger.warning(
                "images reach from %g to %g and are taken as normalised already; pass pixel codes as uint8", low, high
            )
        return images, None
    channels = images.shape[1]
    if low >= 0 and high <= 1:
        codes, found = pixel_codes(images, Normalization((0.0,) * channels, (1.0,) * channels))
        if found is not None:
            return codes, wanted
        mean, std = (torch.tensor(values).view(-1, 1, 1).to(images.device) for values in (wanted.mean, wanted.std))
        return (images - mean) / std, wanted
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, channels, 1, 1)
    black, white = wanted.apply(ends).flatten(1)
    least, most, room = float(black.min()), float(white.max()), float((white - black).max())
    if low < least - room or high > most + room:  # augmented images may be a little beyond
        raise ValueError(
            f"images are not normalised with {wanted}: they reach from {low:g} to {high:g}, its pixels from "
            f"{least:.2f} to {most:.2f}; pass uint8 codes, floats within [0, 1], or leave normalization out"
        )
    return images, wanted


def _found(wanted: Normalization | str | None, channels: int) -> Normalization | None:
    if isinstance(wanted, str):
        if wanted not in NORMALIZATIONS:
            raise ValueError(f"normalization must be one of {', '.join(NORMALIZATIONS)}, got {wanted!r}")
        wanted = NORMALIZATIONS[wanted]
    if wanted is None:
        return None
    if not isinstance(wanted, Normalization):
        raise ValueError(f"normalization must be a Normalization, a name or None, got {type(wanted).__name__}")
    if len(wanted.mean) not in (1, channels):
        raise ValueError(f"normalization has {len(wanted.mean)} channels and the images {channels}; they must agree")
    return wanted.expand(channels)
