"""Pictures and tables of finished runs, and of what memories hold: style, diversity, texture."""

from clreplay.analysis.drift import accuracy_under_drift
from clreplay.analysis.embedding import diversity, in_two_dimensions, style_distance
from clreplay.analysis.figures import accuracy_figure, drop_figure, loss_figure, memory_figure
from clreplay.analysis.plots import plot_bars, plot_drift, plot_map
from clreplay.analysis.style import style_gap
from clreplay.analysis.summary import accuracy_by_step, accuracy_drop
from clreplay.analysis.texture import texture

__all__ = [
    "accuracy_by_step",
    "accuracy_drop",
    "accuracy_figure",
    "accuracy_under_drift",
    "diversity",
    "drop_figure",
    "in_two_dimensions",
    "loss_figure",
    "memory_figure",
    "plot_bars",
    "plot_drift",
    "plot_map",
    "style_distance",
    "style_gap",
    "texture",
]
