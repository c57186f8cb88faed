"""Accuracy over bytes, and over the learner's updates: who is on the frontier, as a table and as pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from clreplay.analysis.canvas import new_figure, plain_axes, saved
from clreplay.runtime.progress import size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINT = ["memory", "kept", "budget_bytes", "updates"]
MARKERS = "osD^vP*X<>hp"


def published_byte_fair(dataset: str) -> pd.DataFrame:
    """Published accuracies whose bytes are known, with what is otherwise about each of them.

    Args:
        dataset: e.g. ``cifar100``; of others there are none.

    Returns:
        columns ``method``, ``bytes`` (of all classes), ``accuracy``, ``std``, ``bytes_are`` (what was counted),
        ``caveat``, ``source``.
    """
    file = resources.files("clreplay.analysis").joinpath("published/byte_fair.csv")
    with file.open(encoding="utf-8") as text:
        rows = pd.read_csv(text)
    return rows[rows.dataset == dataset].drop(columns="dataset").reset_index(drop=True)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a point: mean, standard deviation and number of networks, bytes, images, seconds.

    Args:
        rows: a row a network, see :data:`clreplay.incremental.rate_accuracy.COLUMNS`.
    """
    grouped = rows.groupby(POINT, sort=True)
    found = grouped.agg(
        accuracy=("accuracy", "mean"),
        std=("accuracy", "std"),
        networks=("accuracy", "size"),
        bytes=("bytes", "first"),
        images=("images", "first"),
        images_trained_on=("images_trained_on", "first"),
        condense_seconds=("condense_seconds", "first"),
        train_seconds=("train_seconds", "mean"),
    ).reset_index()
    # The same memory for another length of training is found in the cache, in no time.
    made = found.groupby(["memory", "kept", "budget_bytes"]).condense_seconds
    return found.assign(condense_seconds=made.transform("max"))


def frontier(found: pd.DataFrame) -> pd.Series:
    """Which points nothing beats: nothing that takes at most as many bytes and updates is as accurate.

    Args:
        found: of :func:`summary`.

    Returns:
        True or False a row.
    """

    def beaten(one: pd.Series) -> bool:
        cheaper = found[(found.bytes <= one.bytes) & (found.updates <= one.updates)].drop(one.name)
        better = cheaper.accuracy > one.accuracy
        equal = (cheaper.accuracy == one.accuracy) & ((cheaper.bytes < one.bytes) | (cheaper.updates < one.updates))
        return bool((better | equal).any())

    return ~found.apply(beaten, axis=1) if len(found) else pd.Series(dtype=bool)


def best_within(found: pd.DataFrame) -> pd.DataFrame:
    """For every measured number of bytes and of updates, the most accurate point that needs no more of either.

    Args:
        found: of :func:`summary`.
    """
    chosen = []
    for updates in sorted(found.updates.unique()):
        for budget in sorted(found.budget_bytes.unique()):
            within = found[(found.budget_bytes <= budget) & (found.updates <= updates)]
            if len(within):
                best = within.loc[within.accuracy.idxmax()]
                chosen.append({"at_most_bytes": budget, "at_most_updates": updates, **best.to_dict()})
    return pd.DataFrame(chosen)


def rate_figures(rows: pd.DataFrame, out: str | Path, note: str = "") -> tuple[Figure, Figure]:
    """``bytes.png`` and ``updates.png`` in a folder.

    The first has the longest trainings of every memory over bytes, what is on the frontier filled, published numbers
    hollow and grey; the second has every memory at every number of bytes over updates.

    Args:
        rows: a row a network, of one data set.
        out: the folder.
        note: a line below.
    """
    out, found = Path(out), summary(rows)
    longest = found[found.updates == found.groupby(["memory", "kept"]).updates.transform("max")]
    budgets, lengths = sorted(found.budget_bytes.unique()), sorted(found.updates.unique())
    over_bytes = _figure(longest, "bytes", "bytes of the memory, everything counted", ["memory", "kept"], note)
    _published(over_bytes.axes[0], published_byte_fair(str(rows.dataset.iloc[0])))
    _finish(over_bytes, budgets, size)
    over_updates = _figure(found, "updates", "updates of the learner", ["memory", "kept", "budget_bytes"], note)
    _finish(over_updates, lengths, "{:,}".format)
    out.mkdir(parents=True, exist_ok=True)
    return saved(over_bytes, out / "bytes.png"), saved(over_updates, out / "updates.png")


def _figure(found: pd.DataFrame, x: str, xlabel: str, line: list[str], note: str) -> Figure:
    """Accuracy over a column of the points, a line for all that share some others."""
    figure, best = new_figure(9.5, 5.2), frontier(found)
    axes = figure.subplots()
    plain_axes(axes, xlabel, "accuracy, % of all test images")
    axes.set_xscale("log")
    if note:
        axes.set_title(note, fontsize=8, loc="left")
    for place, (names, points) in enumerate(found.groupby(line)):
        label = ", ".join(name if isinstance(name, str) else size(name) for name in names)
        _line(axes, points.sort_values(x), x, best, place, label)
    return figure


def _line(axes: Axes, line: pd.DataFrame, x: str, best: pd.Series, place: int, label: str) -> None:
    colour, marker = f"C{place % 10}", MARKERS[place % len(MARKERS)]
    axes.errorbar(
        line[x], line.accuracy, line["std"].fillna(0), color=colour, marker=marker, capsize=2, label=label, mfc="white"
    )
    on = line[best[line.index]]
    axes.plot(on[x], on.accuracy, color=colour, marker=marker, linestyle="", zorder=3)


def _published(axes: Axes, rows: pd.DataFrame) -> None:
    if not len(rows):
        return
    axes.plot(
        rows.bytes, rows.accuracy, "o", mfc="none", mec="0.55", linestyle="", label="published, at their own settings"
    )
    for row in rows.itertuples():
        axes.annotate(
            row.method, (row.bytes, row.accuracy), (4, 4), textcoords="offset points", fontsize=7, color="0.45"
        )


def _finish(figure: Figure, ticks: Sequence[int], said: Callable[[int], str]) -> None:
    """Ticks where something was measured, and the legend once all is drawn."""
    (axes,) = figure.axes
    axes.set_xticks(ticks, [said(int(tick)) for tick in ticks])
    axes.minorticks_off()
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.text(
        1.0, -0.16, "filled: nothing measured with as few bytes and updates is as accurate", fontsize=7, color="0.35",
        transform=axes.transAxes, ha="right",
    )  # fmt: skip
    figure.tight_layout()
