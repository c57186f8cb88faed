"""What every picture needs: a figure without pyplot, plain axes, blocks of images, a reproducible file."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clreplay.runtime.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
GAP = 2
"""Pixels between the images of a block."""

_VOLATILE: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".svg": {"Date": None, "Creator": None},
}
"""What matplotlib writes into files of a kind beside the picture, and is left out."""


def new_figure(width: float, height: float, **settings: Any) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", **settings)
    FigureCanvasAgg(figure)
    return figure


def plain_axes(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def saved(figure: Figure, path: str | Path | None) -> Figure:
    """The figure, also written to a file if a path is given: the same bytes every time, whole or not at all."""
    if path is None:
        return figure
    path = Path(path)
    if path.suffix not in _VOLATILE:
        raise ValueError(f"path must end in {', '.join(_VOLATILE)}, got {path}")
    import matplotlib

    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "clreplay"}):  # names of parts, else drawn anew every time
        figure.savefig(content, format=path.suffix[1:], dpi=DPI, metadata=_VOLATILE[path.suffix])
    with replacing(path) as partial:
        partial.write_bytes(content.getvalue())
    return figure


def block_figure(blocks: Sequence[tuple[str, list]], names: Sequence[str], note: str) -> Figure:
    """Blocks of images side by side; every image pixel is a whole number of the picture's pixels.

    Args:
        blocks: title and rows of every block; a row is a (k, c, h, w) tensor in [0, 1], or empty. The first block
            has no empty row.
        names: of the rows, written at the left.
        note: what is shown, written above.
    """
    shape = blocks[0][1][0].shape[1:]
    counts = [max([1, *(len(images) for images in block)]) for _, block in blocks]
    scale = min(4, max(1, round(1600 / (sum(counts) * shape[2]))))
    grids = [_grid(block, count, shape, scale) for (_, block), count in zip(blocks, counts)]
    font = max(9.0, sum(grid.shape[1] for grid in grids) / 150)  # points: what shrinks on a page stays readable
    em = round(font * DPI / 72)
    letters = [max(9, round(grid.shape[1] / (0.6 * em))) for grid in grids]
    titles = [textwrap.fill(title, most) for (title, _), most in zip(blocks, letters)]
    slots = [max(grid.shape[1], _text_width(title, font)) for title, grid in zip(titles, grids)]
    left = max(_text_width(name, font) for name in names) + 2 * em
    top = round((1.35 * max(title.count("\n") + 1 for title in titles) + 2.4) * em)
    height = grids[0].shape[0]
    across, down = left + sum(slots) + em * len(slots), top + height + em
    figure = new_figure(across / DPI, down / DPI)
    for row, name in enumerate(names):
        y = em + height * (1 - (row + 0.5) / len(names))
        figure.text((left - 0.6 * em) / across, y / down, name, ha="right", va="center", fontsize=font)
    figure.text(left / across, 1 - 0.6 * em / down, note, ha="left", va="top", fontsize=font)
    for title, slot, grid in zip(titles, slots, grids):
        axes = figure.add_axes((left / across, em / down, grid.shape[1] / across, height / down))
        axes.imshow(grid, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        axes.set_title(title, loc="left", fontsize=font, fontweight="bold")
        left += slot + em
    return figure


def _grid(block: Sequence[Any], columns: int, shape: Sequence[int], scale: int) -> np.ndarray:
    """One RGB array in [0, 1] of a block's rows, white where there is no image."""
    high, wide = shape[1] * scale + GAP, shape[2] * scale + GAP
    grid = np.ones((len(block) * high - GAP, columns * wide - GAP, 3), dtype=np.float32)
    for row, images in enumerate(block):
        for column, image in enumerate(images):
            picture = image.permute(1, 2, 0).expand(-1, -1, 3).numpy().repeat(scale, 0).repeat(scale, 1)
            grid[row * high : (row + 1) * high - GAP, column * wide : (column + 1) * wide - GAP] = picture
    return grid


def _text_width(text: str, size: float) -> int:
    """Width of the longest line of bold text in pixels of the picture."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(weight="bold")
    widest = max(TextPath((0, 0), line, size=size, prop=font).get_extents().width for line in text.split("\n"))
    return round(widest * DPI / 72)
