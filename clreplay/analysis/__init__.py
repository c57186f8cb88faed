"""Pictures and tables of finished runs, and of what memories hold: style, diversity, texture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clreplay.analysis.domains import domain_accuracy, domain_forgetting, domains_figure
    from clreplay.analysis.drift import accuracy_under_drift
    from clreplay.analysis.embedding import diversity, in_two_dimensions, style_distance
    from clreplay.analysis.figures import accuracy_figure, drop_figure, loss_figure, memory_figure
    from clreplay.analysis.neighbours import nearest_figure, nearest_real
    from clreplay.analysis.plots import plot_bars, plot_drift, plot_map
    from clreplay.analysis.style import style_gap
    from clreplay.analysis.summary import accuracy_by_step, accuracy_drop
    from clreplay.analysis.texture import co_occurrence

_HOMES = {
    "accuracy_by_step": "summary",
    "accuracy_drop": "summary",
    "accuracy_figure": "figures",
    "accuracy_under_drift": "drift",
    "co_occurrence": "texture",
    "diversity": "embedding",
    "domain_accuracy": "domains",
    "domains_figure": "domains",
    "drop_figure": "figures",
    "domain_forgetting": "domains",
    "in_two_dimensions": "embedding",
    "loss_figure": "figures",
    "memory_figure": "figures",
    "nearest_figure": "neighbours",
    "nearest_real": "neighbours",
    "plot_bars": "plots",
    "plot_drift": "plots",
    "plot_map": "plots",
    "style_distance": "embedding",
    "style_gap": "style",
}
__all__ = [
    "accuracy_by_step",
    "accuracy_drop",
    "accuracy_figure",
    "accuracy_under_drift",
    "co_occurrence",
    "diversity",
    "domain_accuracy",
    "domains_figure",
    "drop_figure",
    "domain_forgetting",
    "in_two_dimensions",
    "loss_figure",
    "memory_figure",
    "nearest_figure",
    "nearest_real",
    "plot_bars",
    "plot_drift",
    "plot_map",
    "style_distance",
    "style_gap",
]


def __getattr__(name: str) -> Any:
    """Import names when they are first used: pictures of a run need neither PyTorch nor scikit-learn."""
    if name not in _HOMES:
        raise AttributeError(f"module 'clreplay.analysis' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"clreplay.analysis.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
