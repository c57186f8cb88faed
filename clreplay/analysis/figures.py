"""Pictures of runs: accuracy by step, its drop since the first step, the images of a memory, the losses.

matplotlib is imported when a picture is drawn, and pyplot never: a picture leaves no global state behind.
"""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from clreplay.analysis.canvas import block_figure, new_figure, plain_axes, saved
from clreplay.analysis.summary import accuracy_by_step, accuracy_drop

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from clreplay.data import ImageSet
    from clreplay.memory.replay_memory import ReplayMemory

OKABE_ITO = {
    "vermillion": "#D55E00",
    "blue": "#0072B2",
    "bluish green": "#009E73",
    "orange": "#E69F00",
    "black": "#000000",
    "reddish purple": "#CC79A7",
    "sky blue": "#56B4E9",
}
"""Colours that colour-blind readers can distinguish (Okabe & Ito 2008); their yellow is left out: too pale on white."""

STYLES = {
    "ddm": ("vermillion", "o"),
    "dm": ("blue", "s"),
    "dsa": ("bluish green", "^"),
    "herding": ("orange", "D"),
    "random": ("black", "v"),
}
"""Colour and marker of a memory, the same in every picture."""

MARKERS = ("P", "X", "h", "<", ">", "*", "p", "d")
DASHES = ("-", "--", ":", "-.")


class Style(NamedTuple):
    """How the line of a memory is drawn: a colour like ``#D55E00`` and a matplotlib marker."""

    color: str
    marker: str


def memory_styles(memories: Iterable[str]) -> dict[str, Style]:
    """Colour and marker of every memory.

    The memories of :data:`STYLES` always look the same. Any other takes one of the colours left over, found by
    a hash of its name, and moves on only where that is taken; with more memories than colours the markers differ.
    """
    names = list(dict.fromkeys(memories))
    chosen = {name: STYLES[name] for name in names if name in STYLES}
    reserved = [colour for colour, _ in STYLES.values()]
    spare = [colour for colour in OKABE_ITO if colour not in reserved]
    for name in (name for name in names if name not in STYLES):
        digest = hashlib.sha256(name.encode()).digest()
        colours = [*_rotated(spare, digest[0]), *reserved]
        markers = _rotated(MARKERS, digest[1])
        taken = list(chosen.values())
        used = [c for c, _ in taken]
        colour = min(colours, key=used.count)  # the first that is free, then the first that is least used
        chosen[name] = colour, next((m for m in markers if m not in {m for _, m in taken}), markers[0])
    return {name: Style(OKABE_ITO[colour], marker) for name, (colour, marker) in chosen.items()}


# --- Lines over the classes seen ----------------------------------------------------------------------------------


def accuracy_figure(
    results: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    title: str | None = None,
    path: str | Path | None = None,
) -> Figure:
    """Mean accuracy against classes seen: one line a memory, best final accuracy first in the legend.

    The band is the population standard deviation over class orders and networks; where there is one network
    there is none. A memory that occurs in several runs has one colour, a dash pattern a run, and the run's
    name in its label. A line that ends early says at how many classes its final value was measured.

    Args:
        results: as for :func:`accuracy_by_step`.
        labels: what the picture calls a memory; its name where absent.
        title: a heading, none by default.
        path: ``.png`` or ``.pdf`` to write as well.

    Raises:
        ValueError: as :func:`accuracy_by_step`, or another kind of file.
    """
    table = accuracy_by_step(results)
    networks = [*table["fewest_an_order"], *table["most_an_order"]]
    what = ", mean ± std" if (table["networks"] > 1).any() else ""
    note = f"final accuracy{what} of\n{_count(table['orders'], 'class order')} × {_count(networks, 'network')}"
    table = table.rename(columns={"accuracy": "value", "networks": "samples"})
    return _line_figure(table, "accuracy on the classes seen (%)", note, labels, title, path)


def drop_figure(
    results: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    title: str | None = None,
    path: str | Path | None = None,
) -> Figure:
    """The drop of accuracy since the first step (:func:`accuracy_drop`) against classes seen, one line a memory.

    Arguments and errors are those of :func:`accuracy_figure`; the band is the standard deviation over class orders.
    """
    table = accuracy_drop(results)
    what = ", mean ± std" if (table["orders"] > 1).any() else ""
    note = f"final drop{what} of\n{_count(table['orders'], 'class order')}"
    table = table.rename(columns={"from_first": "value", "from_first_std": "std"}).assign(samples=table["orders"])
    return _line_figure(table, "drop since the first step (points)", note, labels, title, path)


def _line_figure(
    table: pd.DataFrame,
    ylabel: str,
    note: str,
    labels: Mapping[str, str] | None,
    title: str | None,
    path: str | Path | None,
) -> Figure:
    """Lines of ``value`` ± ``std`` (of ``samples``) over ``classes_seen``; the note heads the legend."""
    lines = _lines(table, labels or {})
    beside = max(len(text) for text, *_ in lines) <= 30
    figure = new_figure(7.2, 4.0 if beside else 4.2 + 0.2 * len(lines), layout="constrained")
    axes = figure.add_subplot()
    for order, (text, part, style, dash) in enumerate(lines):
        look = {"color": style.color, "zorder": 3 - order / len(lines)}
        face = style.color if dash == DASHES[0] else "white"
        marker = {"marker": style.marker, "markersize": 6, "markerfacecolor": face}
        x, value, std = (part[column].to_numpy() for column in ("classes_seen", "value", "std"))
        axes.plot(x, value, dash, linewidth=1.8, label=text, **marker, **look)
        if (part["samples"] > 1).any() and len(x) > 1:
            axes.fill_between(x, value - std, value + std, alpha=0.18, linewidth=0, **look)
        elif (part["samples"] > 1).any():
            axes.errorbar(x, value, std, capsize=4, **look)
    seen = sorted(table["classes_seen"].unique())
    if len(seen) <= 12:
        axes.set_xticks(seen)
    if len(seen) == 1:
        axes.set_xlim(seen[0] - 1, seen[0] + 1)
    plain_axes(axes, "classes seen", ylabel)
    if title:
        axes.set_title(textwrap.fill(title, 46), loc="left", fontsize=12, fontweight="bold")
    where = {"loc": "outside right upper"} if beside else {"loc": "outside lower left"}
    figure.legend(title=note, alignment="left", frameon=False, handlelength=3, fontsize=10, title_fontsize=9, **where)
    return saved(figure, path)


def _lines(table: pd.DataFrame, labels: Mapping[str, str]) -> list[tuple[str, pd.DataFrame, Style, str]]:
    """Legend text, rows, style and dash pattern of every line, highest final value first."""
    styles, last = memory_styles(sorted(table["memory"].unique())), table["classes_seen"].max()
    runs_of = {memory: list(dict.fromkeys(part["run"])) for memory, part in table.groupby("memory")}
    runs = list(dict.fromkeys(table["run"])) if max(map(len, runs_of.values())) > 1 else []
    found = []
    for (run, memory), part in table.groupby(["run", "memory"], sort=False):
        part = part.sort_values("step")
        end = part.iloc[-1]
        text = labels.get(memory, memory)
        if len(runs_of[memory]) > 1:
            text += f" ({run})"
        text += f" {end['value']:.1f}" + (f" ± {end['std']:.1f}" if end["samples"] > 1 else "")
        if end["classes_seen"] < last:
            text += f" at {end['classes_seen']} classes"
        dash = DASHES[runs.index(run) % len(DASHES) if runs else 0]
        found.append((end["value"], textwrap.fill(text, 76), part, styles[memory], dash))
    return [line for _, *line in sorted(found, key=lambda line: -line[0])]


# --- Images -----------------------------------------------------------------------------------------------------


def memory_figure(
    memories: Mapping[str, ReplayMemory],
    real: ImageSet | None,
    *,
    class_names: Sequence[str],
    labels: Mapping[str, str] | None = None,
    rows: int = 10,
    columns: int = 5,
    path: str | Path | None = None,
) -> Figure:
    """Real images beside those of the memories: a block each, one row a class, the first images from left to right.

    A class that a memory does not hold yet stays blank. Condensed images go beyond the pixel range and are clipped
    for the picture only; one-channel images are shown grey.

    Args:
        memories: by name; a block each, in this order.
        real: the training images; None leaves their block out.
        class_names: one name a label.
        labels: what the picture calls a memory; its name where absent.
        rows: at most as many classes; of more, evenly spaced ones in label order, the first and the last among them.
        columns: at most as many images a class and block.
        path: ``.png`` or ``.pdf`` to write as well.

    Raises:
        ValueError: no memory or an empty one, rows or columns below 1, a memory that does not fit the real images.
    """
    classes = _check_pictures(memories, real, class_names, rows, columns)
    shown = [classes[round(i)] for i in np.linspace(0, len(classes) - 1, min(rows, len(classes)))]
    blocks = []
    if real is not None:
        blocks.append(("Real", [real.class_images(label)[:columns].cpu() / 255 for label in shown]))
    for name, memory in memories.items():
        pixels = [memory.pixels(label)[:columns] if label in memory.slots else [] for label in shown]
        blocks.append(((labels or {}).get(name, name), pixels))
    note = f"the first {columns} images of each class"
    if len(shown) < len(classes):
        note = f"{len(shown)} of {len(classes)} classes, evenly spaced; {note}"
    figure = block_figure(blocks, [class_names[label].replace("_", " ") for label in shown], note)
    return saved(figure, path)


def _check_pictures(memories, real, class_names, rows, columns) -> list[int]:
    """The classes of the memories in label order; refuses what cannot be drawn."""
    if rows < 1 or columns < 1:
        raise ValueError(f"rows and columns must be at least 1, got {rows} and {columns}")
    if not memories:
        raise ValueError("memories must hold at least one memory, got none; read_memories(folder) gives those of a run")
    for name, memory in memories.items():
        if not len(memory):
            raise ValueError(f"memory {name!r} is empty; add a class first")
        shape = tuple(memory.class_images(memory.classes[0]).shape[1:])
        wanted = shape if real is None else tuple(real.images.shape[1:])
        if shape != wanted or shape[0] not in (1, 3):
            raise ValueError(
                f"memory {name!r} holds images of shape {shape}, the real ones are {wanted} "
                "(c, h, w with 1 or 3 channels); load the data set with the run's settings"
            )
    classes = sorted({label for memory in memories.values() for label in memory.classes})
    if classes[-1] >= len(class_names):
        raise ValueError(f"class_names must name label {classes[-1]}, got {len(class_names)} names; give all")
    return classes


# --- The losses -------------------------------------------------------------------------------------------------


def loss_figure(
    memories: Mapping[str, ReplayMemory], *, labels: Mapping[str, str] | None = None, path: str | Path | None = None
) -> Figure:
    """Loss terms over iterations, a panel a term, as recorded: without their weights, mean over the experiences.

    Raises:
        ValueError: no memory has a record (selections have none).
    """
    curves: dict[str, dict[str, dict[int, list[float]]]] = {}
    for name, memory in memories.items():
        for row in memory.record:
            for term in (key for key in row if key not in ("experience", "iteration") and not key.startswith("image_")):
                curves.setdefault(term, {}).setdefault(name, {}).setdefault(row["iteration"], []).append(row[term])
    if not curves:
        raise ValueError("memories have no record of losses; selections like random have none, condensed memories do")
    styles, shown, down = memory_styles(sorted(memories)), {}, -(-len(curves) // 2)
    figure = new_figure(7.2, 0.4 + 2.2 * down, layout="constrained")
    for position, (term, of_memory) in enumerate(curves.items(), start=1):
        axes = figure.add_subplot(down, min(2, len(curves)), position)
        for name, values in of_memory.items():
            means = [np.mean(several) for several in values.values()]
            (shown[(labels or {}).get(name, name)],) = axes.plot(list(values), means, color=styles[name].color)
        plain_axes(axes, "iteration", term.replace("_", " "))
    figure.legend(shown.values(), shown.keys(), loc="outside upper left", ncols=len(shown), frameon=False)
    return saved(figure, path)


def _count(numbers: Iterable[int], what: str) -> str:
    """``1 network``, ``3 networks``, ``1 to 3 networks``."""
    fewest, most = min(numbers), max(numbers)
    return f"{fewest} to {most} {what}s" if fewest < most else f"{most} {what}{'' if most == 1 else 's'}"


def _rotated(values: Sequence[Any], by: int) -> list[Any]:
    by %= len(values)
    return [*values[by:], *values[:by]]
