"""Pictures of what :mod:`.embedding`, :mod:`.texture` and :mod:`.drift` measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from clreplay.analysis.canvas import new_figure, plain_axes
from clreplay.analysis.embedding import REAL
from clreplay.analysis.figures import memory_styles

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

GREY = "0.72"
"""Of real images, which every other set is seen against."""
MAP_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*", "<", ">")
"""Of classes on a map."""


def plot_map(points: pd.DataFrame, note: str = "", names: Mapping[int, str] | None = None) -> Figure:
    """t-SNE of all sets in one picture: colour says the set, shape the class.

    Args:
        points: of :func:`clreplay.analysis.embedding.in_two_dimensions`.
        note: written above.
        names: of classes.
    """
    sets, labels = list(dict.fromkeys(points["set"])), sorted(points.label.unique())
    styles = memory_styles([name for name in sets if name != REAL])
    figure = new_figure(7.2, 5.6)
    axes = figure.subplots()
    for name in sorted(sets, key=lambda one: one != REAL):  # real images below all others
        color, size, alpha = (GREY, 14, 0.8) if name == REAL else (styles[name].color, 26, 0.9)
        for place, label in enumerate(labels):
            own = points[(points["set"] == name) & (points.label == label)]
            marker = MAP_MARKERS[place % len(MAP_MARKERS)]
            axes.scatter(own.x, own.y, s=size, color=color, marker=marker, alpha=alpha, linewidths=0)
        axes.scatter([], [], s=size, color=color, label=f"{name}, {(points['set'] == name).sum()} images")
    for place, label in enumerate(labels):
        marker = MAP_MARKERS[place % len(MAP_MARKERS)]
        axes.scatter([], [], s=20, color="0.3", marker=marker, label=(names or {}).get(label, f"class {label}"))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("t-SNE, both axes without unit")
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    if note:
        axes.set_title(note, fontsize=9, loc="left")
    figure.tight_layout()
    return figure


def plot_bars(rows: pd.DataFrame, columns: Mapping[str, str], note: str = "") -> Figure:
    """A bar a set for every number, mean over classes, whiskers to the quartiles; a line where real images are.

    Args:
        rows: a row a set and class, with a column ``set``.
        columns: what is drawn, and what the axis says, by column.
        note: written above.
    """
    sets = [name for name in dict.fromkeys(rows["set"]) if name != REAL]
    styles = memory_styles(sets)
    figure = new_figure(1.2 + (1.4 + 0.62 * len(sets)) * len(columns), 4.4)
    for axes, (column, text) in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns.items()):
        plain_axes(axes, "", text)
        groups = [rows[rows["set"] == name][column] for name in sets]
        means = [group.mean() for group in groups]
        low = [max(0.0, mean - group.quantile(0.25)) for mean, group in zip(means, groups)]
        high = [max(0.0, group.quantile(0.75) - mean) for mean, group in zip(means, groups)]
        colors = [styles[name].color for name in sets]
        axes.bar(range(len(sets)), means, color=colors, width=0.7)
        axes.errorbar(range(len(sets)), means, yerr=[low, high], fmt="none", ecolor="0.35", capsize=3, linewidth=1)
        axes.set_xticks(range(len(sets)), sets, rotation=35, ha="right", fontsize=8)
        real = rows[rows["set"] == REAL][column]
        if len(real):
            axes.axhline(real.mean(), color="0.3", linestyle="--", linewidth=1)
            axes.annotate(
                REAL, (1.0, real.mean()), xycoords=("axes fraction", "data"), fontsize=8, color="0.3",
                ha="right", va="bottom",
            )  # fmt: skip
    if note:
        figure.suptitle(note, fontsize=9, x=0.01, ha="left")
    figure.tight_layout()
    return figure


def plot_drift(rows: pd.DataFrame, note: str = "", line: Sequence[str] = ("towards",)) -> Figure:
    """Accuracy over gamma, mean and population standard deviation over networks; a line for all that share a name.

    Args:
        rows: of :func:`clreplay.analysis.drift.accuracy_under_drift`, with the columns of ``line`` added.
        note: written above.
        line: columns whose values tell lines apart.
    """
    names = list(dict.fromkeys(", ".join(map(str, values)) for values in rows[list(line)].to_numpy().tolist()))
    styles = memory_styles(names)
    figure = new_figure(7.6, 4.4)
    axes = figure.subplots()
    plain_axes(axes, "gamma: how far the style drifts", "accuracy, % of test images")
    joined = rows[list(line)].astype(str).agg(", ".join, axis=1)
    for place, name in enumerate(names):
        beside = 0.006 * (place - (len(names) - 1) / 2)  # whiskers do not hide one another
        found = rows[joined == name].groupby("gamma").accuracy
        mean, std = found.mean(), found.std(ddof=0)
        style = styles[name]
        axes.errorbar(
            mean.index + beside, mean, yerr=std, color=style.color, marker=style.marker, markersize=5, capsize=2,
            linewidth=1.2, label=f"towards {name}",
        )  # fmt: skip
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    if note:
        axes.set_title(note, fontsize=9, loc="left")
    figure.tight_layout()
    return figure
