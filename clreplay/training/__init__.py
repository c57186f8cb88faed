"""Training networks on a memory, and measuring them: one loop, batches and augmentation keyed by the seed."""

from clreplay.training.batches import BatchSource
from clreplay.training.evaluate import accuracies_together, accuracy, share_right
from clreplay.training.loop import train, train_further
from clreplay.training.settings import TrainingSettings
from clreplay.training.stacked import train_together

__all__ = [
    "BatchSource",
    "TrainingSettings",
    "accuracies_together",
    "accuracy",
    "share_right",
    "train",
    "train_further",
    "train_together",
]
