"""Dataset Distillation: images and step sizes learned through unrolled training."""

from clreplay.condensation.distillation.engine import DistillationEngine
from clreplay.condensation.distillation.learned_steps import learned_step_sizes, native_accuracies

__all__ = [
    "DistillationEngine",
    "learned_step_sizes",
    "native_accuracies",
]
