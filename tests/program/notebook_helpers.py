"""Run a notebook's cells in this process, and look into the figures that it shows."""

from __future__ import annotations

import ast
from typing import Any, NamedTuple

import matplotlib
import nbformat
from matplotlib.figure import Figure


class Executed(NamedTuple):
    """What a notebook's cells left.

    Attributes:
        figures: in the order in which they were shown.
        shown: values of last lines, and what ``display`` was given, figures apart.
        names: variables.
    """

    figures: list[Figure]
    shown: list[Any]
    names: dict[str, Any]


def execute(path, monkeypatch, changes=()) -> Executed:
    """All code cells, as a kernel does it: the value of a last line is shown, and open pyplot figures after a cell.

    Args:
        path: of the notebook.
        monkeypatch: of the test.
        changes: pairs of text in a cell and what takes its place.
    """
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.close("all")
    values: list[Any] = []
    monkeypatch.setattr("IPython.display.display", values.append)
    names: dict[str, Any] = {"__name__": "__main__", "display": values.append}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
        for old, new in changes:
            source = source.replace(old, new)
        body = ast.parse(source, str(path)).body
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), str(path), "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), str(path), "eval"), names)
            if value is not None and not source.rstrip().endswith(";"):
                values.append(value)
        values += map(pyplot.figure, pyplot.get_fignums())
        pyplot.close("all")
    figures = [value for value in values if isinstance(value, Figure)]
    return Executed(figures, [value for value in values if not isinstance(value, Figure)], names)


def overlapping_texts(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts of a figure that lie on one another, drawn as it is saved."""
    for _ in range(2):  # a layout that is fitted moves the texts of a legend
        figure.draw_without_rendering()
    texts = list(figure.texts)
    texts += [legend_text for legend in figure.legends for legend_text in legend.get_texts()]
    for axes in figure.axes:
        texts += [axes.title, axes._left_title, axes._right_title, *axes.texts]
        texts += axes.get_legend().get_texts() if axes.get_legend() else []
        if not axes.axison:
            continue
        texts += [axes.xaxis.label, axes.yaxis.label]
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            low, high = sorted(limits)
            texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_visible() and text.get_text()]
    found = []
    for place, (name, box) in enumerate(boxes):
        for other, its in boxes[place + 1 :]:
            wide, high = min(box.x1, its.x1) - max(box.x0, its.x0), min(box.y1, its.y1) - max(box.y0, its.y0)
            if wide > 2 and high > 2:
                found.append((name, other))
    return found


def axes_called(figure: Figure) -> list[tuple[str, str]]:
    """Labels of the axes that have any."""
    return [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes if axes.axison]
