"""``condense``: a memory from images and labels, without Avalanche."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clreplay.cache import ClassCache
from clreplay.condensation.calibration import CHOSEN
from clreplay.condensation.methods import Condensed, Condenser, Progress, check_work, method_of
from clreplay.condensation.real import RealImages, check_images
from clreplay.data import NORMALIZATIONS, Normalization, measured_normalization, pixel_codes
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
    dataset: str | None = None,
    store: str = "uint8",
    **settings: Any,
) -> ReplayMemory:
    """Condense (or select) a class-balanced set of images.

    Args:
        images: (n, c, h, w), square; uint8 pixel codes, or float images that are normalised already.
        labels: (n,) integers.
        method: a memory's name (``ddm``, ``dm``, ``herding``, ``random``) or the path of a recipe.
        images_per_class: images of every class that are stored.
        preset: ``paper`` (20,000 iterations: meant for a GPU), ``cpu`` or ``smoke``.
        normalization: a :class:`clreplay.data.Normalization` or the name of a known one such as
            ``"cifar10"``. None takes mean and deviation of uint8 images themselves, and recognises known
            normalisations of float images by recovering their pixel codes exactly.
        seed: of all chance; the same seed, images and settings give the same bytes on a CPU.
        device: where to work; None takes a GPU if there is one.
        progress: called with (done, total, unit).
        dataset: name recorded in the memory, which ``ReplayMemory.load(path, dataset=...)`` checks; recipes may
            have settings of their own for some data sets (``cifar10``, ``cifar100``, ...).
        store: ``uint8``, or ``float32`` for condensed images at four times the bytes.
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

    memory = ReplayMemory(images_per_class=images_per_class, store=store)
    recipe = load_recipe(method)
    chosen = recipe.settings(preset, settings, dataset, images_per_class)
    images, normalization = _as_pixel_codes(check_images(torch.as_tensor(images)), normalization)
    memory.normalization = normalization
    real = RealImages(images, labels, normalization)
    check_work(
        recipe.method, chosen, dict.fromkeys(real.classes, images_per_class), real.shape, f"memory {recipe.name}"
    )
    condense_experience(
        memory, real, recipe.method.condense, chosen, seed=seed, device=default_device(device), progress=progress
    )
    memory.info.update(method=recipe.name, **({"dataset": dataset} if dataset else {}))
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
    cache: ClassCache | None = None,
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
        cache: where classes that were condensed before are found and new ones put. Methods that do not
            separate over classes, and callables of one's own, pass it by.

    Returns:
        seconds spent condensing.

    Raises:
        ValueError: before any work, if a class is in memory already, the budget is too small, a class has fewer
            real images than its quota, or the method cannot make so many of such classes; after it, if the condenser
            left a class out or names another decoder than its method does.
    """
    quotas = memory.quotas_with(real.classes)
    counts = {label: quotas[label] for label in real.classes}
    real.check_counts(counts)
    method = method_of(condenser, settings)
    check_work(method, settings, counts, real.shape)
    start = time.perf_counter()
    chosen: dict[str, Any] = {}
    if method is not None:
        settled = method.settle(held(settings, memory.info.get("chosen", {}), device), real, counts, device)
        chosen = {name: value for name, value in asdict(settled).items() if value != getattr(settings, name)}
        settings = settled
    kept = {} if keep is None else {"keep": keep}  # callables of one's own need not know of it

    def work(part: RealImages) -> Condensed:
        return condenser(part, counts, settings, seed=seed, device=device, progress=progress, **kept)

    condensed = (
        work(real) if cache is None else _through_cache(cache, condenser, real, counts, settings, seed, device, work)
    )
    seconds = time.perf_counter() - start
    if set(condensed.images) != set(real.classes):
        raise ValueError(f"the condenser gave classes {sorted(condensed.images)}, but was asked for {real.classes}")
    if method is not None and condensed.decoding != (declared := method.decoding(settings)):
        raise ValueError(
            f"method {method.name!r} gave images with decoding {condensed.decoding!r}, but is registered with "
            f"{declared!r}; give @register(..., decoding=...) and Condensed(..., decoding=...) the same"
        )
    experience = 1 + max((row["experience"] for row in memory.record), default=-1)
    record = [{"experience": experience, **row} for row in condensed.record]
    memory.add(condensed.images, task_labels, real.keys, record, condensed.decoding)
    if chosen or condensed.chosen:
        memory.info["chosen"] = {**chosen, **condensed.chosen}
    return seconds


def held(settings: Any, chosen: Mapping[str, Any], device: torch.device) -> Any:
    """Settings whose open choices are those that were made before, so that a run keeps to them.

    Args:
        settings: a settings dataclass; open are values of ``auto``, and of None on a CPU (how many classes a GPU
            works on together depends on its free memory).
        chosen: values by name of setting; only what a calibration chooses is looked at.
        device: where the work will be done.
    """
    names = {field.name for field in fields(settings)} if is_dataclass(settings) else set()
    open_values = ("auto", None) if device.type == "cpu" else ("auto",)
    known = [name for name in CHOSEN if name in names and name in chosen]
    taken = {name: chosen[name] for name in known if getattr(settings, name) in open_values}
    return replace(settings, **taken) if taken else settings


def _through_cache(
    cache: ClassCache,
    condenser: Condenser,
    real: RealImages,
    counts: dict[int, int],
    settings: Any,
    seed: int,
    device: torch.device,
    work: Callable[[RealImages], Condensed],
) -> Condensed:
    """Condense only the classes that are not in the cache, and put them there."""
    method = method_of(condenser, settings)
    if method is None or not method.separable(settings):
        return work(real)
    name = f"{method.name} {method.code}" if method.code else method.name  # one's own code may change under a name
    addresses = {
        label: cache.address(name, settings, real.keys[label], counts[label], seed, device) for label in real.classes
    }
    found = {label: cache.get(address, (counts[label], *real.shape)) for label, address in addresses.items()}
    missing = [label for label, old in found.items() if old is None]
    decodings = {old.decoding for old in found.values() if old is not None}
    condensed = work(real.subset(missing)) if missing else Condensed({}, decoding=min(decodings))
    if decodings - {condensed.decoding}:
        return work(real)  # classes that are stored in different ways cannot stand in one experience
    for label, images in condensed.images.items():
        cache.put(addresses[label], images, condensed.decoding)
    images = {label: condensed.images[label] if old is None else old.images for label, old in found.items()}
    chosen = {**condensed.chosen, "classes_from_cache": len(images) - len(missing)}
    return Condensed(images, condensed.record, chosen, condensed.decoding)


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
