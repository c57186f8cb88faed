"""How long a run will take, from a short trial on the machine at hand."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from clreplay.condensation.configured import ConfiguredMethod
from clreplay.condensation.engine.execution import Execution
from clreplay.condensation.matching.encoders import encoder_training
from clreplay.condensation.matching.settings import MatchingSettings
from clreplay.condensation.matching.trial import seconds_per_class_iteration
from clreplay.condensation.selection.random_choice import RandomSettings
from clreplay.memory.decoders import decoder
from clreplay.networks import ConvNet
from clreplay.training.settings import TrainingSettings
from clreplay.training.trial import seconds_per_image

if TYPE_CHECKING:
    from clreplay.incremental.experiment_plan import ExperimentPlan


@dataclass
class Forecast:
    """Expected seconds of a run, corrected as it goes.

    Attributes:
        condensing: of condensing all classes once, by memory.
        training: of training and testing all networks under one class order, by memory.
        orders: class orders.
        unknown: memories that cannot be tried; they count as nothing until their first iterations are timed.
        corrected: memories whose trial was replaced.
        encoders: of training the networks that condensing needs, by memory; part of ``condensing``.
    """

    condensing: dict[str, float]
    training: dict[str, float]
    orders: int
    unknown: list[str] = field(default_factory=list)
    corrected: set[str] = field(default_factory=set)
    encoders: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Seconds of the whole run."""
        return self.orders * (sum(self.condensing.values()) + sum(self.training.values()))

    def correct(self, memory: str, steps: float, done: int, total: int, seconds: float) -> bool:
        """Once a memory's first iterations are timed, let them replace the trial.

        Returns:
            whether the forecast changed (once a memory).
        """
        if memory in self.corrected or done == total or done < max(3, total // 20):
            return False
        self.corrected.add(memory)
        self.condensing[memory] = seconds / done * total * steps + self.encoders.get(memory, 0.0)
        return True


def forecast(plan: ExperimentPlan) -> Forecast:
    """Expected seconds of a planned run, to perhaps a third either way.

    Condensers are tried on a few classes for two iterations, the learner for a few updates.
    """
    # Testing takes a forward pass, about a third of an update's time an image.
    tested = sum(plan.tested_at(step) for step in range(plan.settings.steps)) / 3
    per_image = _seconds_per_image(plan, plan.learner) * plan.settings.networks
    training = {}
    for recipe in plan.recipes:
        # A memory may decode to more images than it stores.
        each = decoder(plan.methods[recipe.name].decoding()).images_each
        stored = [plan.images_at(step) for step in range(plan.settings.steps)]
        trained = sum(_images_trained_on(plan.learner, each * images) for images in stored)
        training[recipe.name] = per_image * (trained + tested)
    condensing, unknown, encoders = {}, [], {}
    for recipe in plan.recipes:
        method = plan.methods[recipe.name]
        seconds, before = estimate_condensing(plan, method), estimate_encoders(plan, method)
        if seconds is None:
            unknown.append(recipe.name)
        condensing[recipe.name], encoders[recipe.name] = (seconds or 0.0) + before, before
    return Forecast(condensing, training, plan.settings.class_orders, unknown, encoders=encoders)


def estimate_encoders(plan: ExperimentPlan, method: ConfiguredMethod) -> float:
    """Seconds that training the encoders of all steps will take, if none of them was trained before."""
    settings = method.settings
    if not isinstance(settings, MatchingSettings) or settings.encoders == "random":
        return 0.0
    images, how = plan.train_images, encoder_training(settings)
    return _seconds_per_image(plan, how) * images * how.epochs * settings.encoder_networks


def estimate_condensing(plan: ExperimentPlan, method: ConfiguredMethod) -> float | None:
    """Seconds that condensing all classes once will take, encoders at hand; nothing for a random choice, None if that
    is unknown.
    """
    settings = method.settings
    if isinstance(settings, MatchingSettings):
        return _seconds_per_class_iteration(plan, settings, method.execution) * settings.iterations * sum(plan.sizes)
    if isinstance(settings, TrainingSettings):
        images = _images_trained_on(settings, plan.train_images // plan.settings.steps)
        return _seconds_per_image(plan, settings) * images * plan.settings.steps
    return 0.0 if isinstance(settings, RandomSettings) else None


def _seconds_per_class_iteration(plan: ExperimentPlan, settings: MatchingSettings, execution: Execution) -> float:
    labels = plan.classes(0)[0]
    tried = (
        labels[: torch.get_num_threads() * (execution.classes_at_once or 1)] if plan.device.type == "cpu" else labels
    )
    real = plan.real_images(tried)
    counts = dict.fromkeys(real.classes, math.ceil(plan.images_at(0) / len(labels)))
    return seconds_per_class_iteration(settings, execution, real, counts, plan.device)


def _seconds_per_image(plan: ExperimentPlan, settings: TrainingSettings) -> float:
    network = settings.build_for(plan.data.num_classes, plan.data.train.images.shape[1:])
    if isinstance(network, ConvNet) and plan.device.type == "cpu":
        network.fuse()  # as the learner and the feature networks are
    batch = min(settings.batch_size, 128)
    images = plan.data.normalization.apply(plan.data.train.images[:batch])
    return seconds_per_image(network, images, plan.data.train.labels[:batch], batch, plan.device)


def _images_trained_on(settings: TrainingSettings, images: int) -> int:
    return settings.epochs_for(images) * images
