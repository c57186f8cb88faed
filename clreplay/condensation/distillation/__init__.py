"""Dataset Distillation: images and step sizes learned through unrolled training."""

from clreplay.condensation.distillation.engine import distill
from clreplay.condensation.distillation.learned_steps import learned_step_sizes, native_accuracies

__all__ = [
    "distill",
    "learned_step_sizes",
    "native_accuracies",
]
