"""How long a run will take, from a short trial on the machine at hand."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from clreplay.condensation import RealImages
from clreplay.condensation.matching import Matching, MatchingSettings
from clreplay.training import TrainingSettings

if TYPE_CHECKING:
    from clreplay.continual import Plan


def estimate_run(made: Plan) -> float:
    """Seconds that all of a planned run will take, to perhaps a third either way.

    Condensers are tried on a few classes for two iterations, the learner for three updates; evaluation
    and pictures are not counted.
    """
    training = _seconds_per_image(made, made.learner) * sum(
        _images_trained_on(made.learner, made.images_at(step)) for step in range(made.settings.steps)
    )
    once = sum(estimate_condensing(made, made.memory_settings[recipe.name]) for recipe in made.recipes)
    return made.settings.class_orders * (once + len(made.recipes) * made.settings.networks * training)


def estimate_condensing(made: Plan, settings: Any) -> float:
    """Seconds that condensing all classes once will take; selections without training count as nothing."""
    if isinstance(settings, MatchingSettings):
        return _seconds_per_class_iteration(made, settings) * settings.iterations * made.data.num_classes
    if isinstance(settings, TrainingSettings):
        images = _images_trained_on(settings, len(made.data.train) // made.settings.steps)
        return _seconds_per_image(made, settings) * images * made.settings.steps
    return 0.0


def _seconds_per_class_iteration(made: Plan, settings: MatchingSettings) -> float:
    # One class says it for a CPU; a GPU is only filled by the classes of a whole step.
    count = 1 if made.device.type == "cpu" else made.data.num_classes // made.settings.steps
    subset = made.data.train.of_classes(made.classes(0)[0][:count])
    real = RealImages(subset.images, subset.labels, made.data.normalization)
    quota = math.ceil(made.images_at(0) / len(made.classes(0)[0]))
    trial = Matching(real, dict.fromkeys(real.classes, quota), replace(settings, network_reuse=1), 0, made.device)
    fresh = _timed(made.device, trial.step)
    if settings.network_reuse == 1:
        return fresh / count
    trial.settings = replace(settings, network_reuse=10**9)
    trial.iteration = 1  # the same network from here on: only the synthetic side is computed
    trial.step()
    again = _timed(made.device, trial.step)
    return (fresh + (settings.network_reuse - 1) * again) / settings.network_reuse / count


def _seconds_per_image(made: Plan, settings: TrainingSettings) -> float:
    channels, size = made.data.train.images.shape[1:3]
    network = settings.build(made.data.num_classes, channels, size).to(made.device)
    batch = min(settings.batch_size, 128)
    images = torch.zeros(batch, channels, size, size, device=made.device)
    labels = torch.zeros(batch, dtype=torch.int64, device=made.device)

    def update() -> None:
        F.cross_entropy(network(images), labels).backward()

    return _timed(made.device, update) / batch


def _images_trained_on(settings: TrainingSettings, images: int) -> int:
    return settings.epochs_for(images) * images


def _timed(device: torch.device, work: Any, repeats: int = 2) -> float:
    """Seconds of one call, after one to warm up."""
    work()
    _wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    _wait(device)
    return (time.perf_counter() - start) / repeats


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
