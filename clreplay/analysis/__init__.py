"""Pictures and tables of finished runs."""

from clreplay.analysis.figures import accuracy_figure, drop_figure, loss_figure, memory_figure
from clreplay.analysis.summary import accuracy_by_step, accuracy_drop

__all__ = [
    "accuracy_by_step",
    "accuracy_drop",
    "accuracy_figure",
    "drop_figure",
    "loss_figure",
    "memory_figure",
]
