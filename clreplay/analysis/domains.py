"""Domain-incremental runs: what is known of every domain by step, and how much of it was forgotten."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from clreplay.analysis.canvas import new_figure, plain_axes, saved
from clreplay.analysis.figures import MARKERS, OKABE_ITO, memory_styles
from clreplay.analysis.forgetting import below_best
from clreplay.analysis.summary import population_std

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NETWORK = ["memory", "class_order", "network", "domain", "domain_name"]
_PANEL = (3.7, 3.3)
_PANELS_A_ROW = 3


def domain_accuracy(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy of every memory on every domain after every step.

    Args:
        rows: of ``domains.csv`` (:func:`clreplay.incremental.run_folder.read_domains`).

    Returns:
        One row a memory, domain and step: ``accuracy`` in percent and ``std`` (population, over networks).
    """
    grouped = rows.groupby(["memory", "domain", "domain_name", "step"], sort=False)["accuracy"]
    return grouped.agg(accuracy="mean", std=population_std).reset_index()


def domain_forgetting(rows: pd.DataFrame) -> pd.DataFrame:
    """What is known of every domain after the last step, and how much of it was forgotten.

    Forgetting is the best accuracy on a domain after any earlier step minus that after the last one, in percentage
    points, as Chaudhry et al. (ECCV 2018) have it of tasks: negative where the domain is known better than before.
    Networks are trained from scratch at every step, so the best is of networks of the same number.

    Args:
        rows: as for :func:`domain_accuracy`; unfinished runs count as far as they are.

    Returns:
        One row a memory and domain: ``accuracy`` after the last step and ``forgetting``, means over networks; that of
        the domain that came last is NaN.
    """
    rows = rows.sort_values("step", kind="stable")
    rows = rows.assign(forgetting=below_best(rows, NETWORK))
    last = rows[rows.step == rows.groupby("memory")["step"].transform("max")]
    place = ["memory", "domain", "domain_name"]
    return last.groupby(place, sort=False)[["accuracy", "forgetting"]].mean().reset_index()


def domains_figure(
    results: pd.DataFrame,
    rows: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    title: str | None = None,
    path: str | Path | None = None,
) -> Figure:
    """Accuracy by domains seen: a panel of all domains, one line a memory, and one of every memory, a line a domain.

    Args:
        results: rows of ``results.csv``, accuracy on all domains seen.
        rows: of ``domains.csv``.
        labels: what the picture calls a memory; its name where absent.
        title: above the panels.
        path: ``.png`` or ``.pdf`` to write as well.

    Raises:
        ValueError: there are no rows, or another kind of file.
    """
    if not len(results) or not len(rows):
        raise ValueError("results and domains must have at least one row; let the run finish its first step")
    memories = list(dict.fromkeys(results["memory"]))
    panels = 1 + len(memories)
    across = min(panels, _PANELS_A_ROW)
    down = -(-panels // across)
    figure = new_figure(_PANEL[0] * across, _PANEL[1] * down + 0.3, layout="constrained")
    axes = figure.subplots(down, across, sharey=True, squeeze=False).flatten()
    for spare in axes[panels:]:
        spare.set_axis_off()
    styles, names = memory_styles(sorted(memories)), labels or {}
    for memory in memories:
        mean = results[results.memory == memory].groupby("step")["accuracy"].mean()
        look = {"color": styles[memory].color, "marker": styles[memory].marker}
        text = f"{names.get(memory, memory)} {mean.iloc[-1]:.1f}"
        axes[0].plot(mean.index + 1, mean, linewidth=1.8, markersize=6, label=text, **look)
    _finish(axes[0], "all domains seen", "final accuracy of")
    table, colours = domain_accuracy(rows), list(OKABE_ITO.values())
    for panel, memory in zip(axes[1:], memories):
        for number, part in table[table.memory == memory].groupby("domain"):
            part = part.sort_values("step")
            look = {"color": colours[int(number) % len(colours)], "marker": MARKERS[int(number) % len(MARKERS)]}
            text = f"{part['domain_name'].iloc[0]} {part['accuracy'].iloc[-1]:.1f}"
            panel.plot(part["step"] + 1, part["accuracy"], linewidth=1.8, markersize=6, label=text, **look)
            if part["std"].any():
                low, high = part["accuracy"] - part["std"], part["accuracy"] + part["std"]
                panel.fill_between(part["step"] + 1, low, high, color=look["color"], alpha=0.15, linewidth=0)
        _finish(panel, names.get(memory, memory), "by domain")
    steps = sorted({int(step) + 1 for step in results["step"]})
    for panel in axes[:panels]:
        panel.set_xlim(0.7, steps[-1] + 0.3)
        panel.set_xticks(steps if len(steps) <= 12 else steps[:: -(-len(steps) // 12)])
    for panel in axes[:panels][::across]:
        panel.set_ylabel("accuracy (%)")
    if title:
        figure.suptitle(textwrap.fill(title, 30 * across), x=0.01, ha="left", fontsize=12, fontweight="bold")
    return saved(figure, path)


def _finish(axes: Axes, title: str, legend: str) -> None:
    plain_axes(axes, "domains seen", "")
    axes.set_title(title, loc="left", fontsize=11)
    axes.legend(title=legend, fontsize=8, title_fontsize=8, frameon=False, alignment="left", handlelength=2)
