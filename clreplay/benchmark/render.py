"""Rendered tables: Markdown and LaTeX to read, CSV with everything; ours beside the published number."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from clreplay.benchmark.cells import SEARCH
from clreplay.benchmark.published import NOTES, TITLES
from clreplay.benchmark.results import MEASURED, PARTLY, TableRow

CSV_COLUMNS = (
    "table,dataset,images_per_class,method,recipe,train_network,test_network,variant,metric,ours,spread,held_out,"
    "held_out_spread,published,published_spread,difference,measured,wanted,condense_seconds,train_seconds,device,commit,settings,state,reason,"
    "preset,protocol,store,reduced,source"
).split(",")
_METRICS = {
    "accuracy": "accuracy, %",
    "spearman_correlation": "Spearman correlation",
    "time_cost": "minutes",
    "storage": "images",
}
_DASH = "–"


@dataclass(frozen=True)
class Caption:
    """What holds for a whole rendered table.

    Attributes:
        table: its name.
        preset, protocol: of all cells; a table never mixes two protocols.
        protocol_text: the protocol in words.
        store: how condensed images were stored before training.
        changed: the flags that change settings or chance, as they were given.
    """

    table: str
    preset: str
    protocol: str
    protocol_text: str
    store: str = "float32"
    changed: str = ""


def markdown(lines: Sequence[TableRow], caption: Caption) -> str:
    """A page: title, what is reduced, the table, notes."""
    header, rows = _grid(lines)
    texts = [f"# {TITLES[caption.table]}", ""]
    texts += [*(f"{paragraph}\n" for paragraph in _paragraphs(lines, caption))]
    texts += [_row(header), _row([":---" if i < _named(lines) else "---:" for i in range(len(header))])]
    texts += [_row([_escaped_markdown(cell) for cell in row]) for row in rows]
    texts += [""] + [f"- {note}" for note in _notes(lines, caption)]
    return "\n".join(texts).rstrip() + "\n"


def latex(lines: Sequence[TableRow], caption: Caption) -> str:
    """A ``tabular`` with the same content, without packages; paragraphs and notes are comments above it."""
    header, rows = _grid(lines)
    named = _named(lines)
    columns = "l" * named + "r" * (len(header) - named)
    comments = [f"% {TITLES[caption.table]}", *(f"% {text}" for text in _paragraphs(lines, caption, ""))]
    comments += [f"% {note}" for note in _notes(lines, caption)]
    reduced = [r"\multicolumn{%d}{l}{\textbf{Reduced settings, not the paper's.}} \\" % len(header)]
    body = [" & ".join(_escaped_latex(cell) for cell in row) + r" \\" for row in [header, *rows]]
    top = [*comments, r"\begin{tabular}{%s}" % columns, r"\hline"]
    shown = reduced if any(line.reduced for line in lines) else []
    return "\n".join([*top, *shown, body[0], r"\hline", *body[1:], r"\hline", r"\end{tabular}"]) + "\n"


def table_csv(lines: Sequence[TableRow], caption: Caption) -> str:
    """One row a line, every column of :data:`CSV_COLUMNS`; what is not measured is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for line in lines:
        cell = line.cell
        writer.writerow(
            {
                "table": cell.table,
                "dataset": cell.dataset,
                "images_per_class": "whole" if cell.images_per_class is None else cell.images_per_class,
                "method": cell.method,
                "recipe": cell.recipe,
                "train_network": cell.train_network,
                "test_network": cell.test_network,
                "variant": "; ".join(f"{name}={value}" for name, value in line.variant),
                "metric": cell.metric,
                "ours": _plain(line.ours),
                "spread": _plain(line.spread),
                "held_out": _plain(line.held_out),
                "held_out_spread": _plain(line.held_out_spread),
                "published": cell.published,
                "published_spread": cell.published_spread,
                "difference": _plain(line.difference),
                "measured": line.done,
                "wanted": line.wanted,
                "condense_seconds": _plain(line.condense_seconds),
                "train_seconds": _plain(line.train_seconds),
                "device": " + ".join(line.devices),
                "commit": " + ".join(line.commits),
                "settings": line.settings,
                "state": line.state,
                "reason": line.reason,
                "preset": caption.preset,
                "protocol": caption.protocol,
                "store": caption.store,
                "reduced": "; ".join(line.reduced),
                "source": cell.source,
            }
        )
    return out.getvalue()


# ---------------------------------------------------------------- cells as text


def _grid(lines: Sequence[TableRow]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, the same for Markdown and LaTeX."""
    variants = _variants(lines)
    metric = ["metric"] if _several_metrics(lines) else []
    held_out = ["held out"] if _any_held_out(lines) else []
    header = [
        "data",
        "IPC",
        "method",
        "recipe",
        "network",
        *variants,
        *metric,
        *held_out,
        "ours",
        "published",
        "difference",
        "n",
    ]
    header += ["condensing, s", "training, s", "device", "commit", "settings"]
    return header, [_cells(line, variants, bool(metric), bool(held_out)) for line in lines]


def _cells(line: TableRow, variants: Sequence[str], with_metric: bool, with_held_out: bool) -> list[str]:
    cell, shown = line.cell, dict(line.variant)
    networks = cell.test_network
    if cell.train_network != cell.test_network:
        networks = f"{cell.train_network} → {cell.test_network}"
    published = cell.published or _DASH
    if cell.published and cell.published_spread:
        published += f" ± {cell.published_spread}"
    return [
        cell.dataset,
        "whole" if cell.images_per_class is None else str(cell.images_per_class),
        cell.method,
        cell.recipe,
        networks,
        *(shown.get(name, "") for name in variants),
        *([_METRICS.get(cell.metric, cell.metric)] if with_metric else []),
        *([_measured(line.held_out, line.held_out_spread, _digits(line))] if with_held_out else []),
        _ours(line),
        published,
        _DASH if line.difference is None else f"{line.difference:+.{_digits(line)}f}",
        f"{line.done}" if line.state == MEASURED else f"{line.done} of {line.wanted}",
        _seconds(line.condense_seconds) if line.done else _DASH,
        _seconds(line.train_seconds) if line.done else _DASH,
        " + ".join(line.devices) or _DASH,
        " + ".join(line.commits) or _DASH,
        line.settings or _DASH,
    ]


def _ours(line: TableRow) -> str:
    if line.ours is None:
        return line.state if line.state != MEASURED else _DASH
    return _measured(line.ours, line.spread, _digits(line)) + (" (partly)" if line.state == PARTLY else "")


def _measured(mean: float | None, spread: float | None, digits: int) -> str:
    return _DASH if mean is None else f"{mean:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}"


def _digits(line: TableRow) -> int:
    return {"storage": 0, "time_cost": 1}.get(line.cell.metric, 2)


def _variants(lines: Sequence[TableRow]) -> list[str]:
    return list(dict.fromkeys(name for line in lines for name, _ in line.variant))


def _several_metrics(lines: Sequence[TableRow]) -> bool:
    return any(line.cell.metric != "accuracy" for line in lines)


def _any_held_out(lines: Sequence[TableRow]) -> bool:
    return any(line.held_out is not None for line in lines)


def _named(lines: Sequence[TableRow]) -> int:
    """Columns that hold names, not numbers."""
    return 5 + len(_variants(lines)) + _several_metrics(lines)


# ---------------------------------------------------------------- the text around the table


def _paragraphs(lines: Sequence[TableRow], caption: Caption, bold: str = "**") -> list[str]:
    ours = "mean ± population standard deviation over n networks, accuracy in percent of the test images"
    if caption.table == SEARCH:
        ours = "n architectures, each trained once on the images and once on all real images"
    protocol = f"Protocol {caption.protocol}: {caption.protocol_text}. " if caption.table != SEARCH else ""
    texts = [
        f"Ours: {ours}, after the last epoch. Published: DDM (WACV 2025). {protocol}"
        f"Preset {caption.preset}. Condensed images are held as {caption.store}. "
        "Seconds are sums over the sets and networks of a cell; work that cells share is counted in each."
    ]
    if _any_held_out(lines):
        texts.append(
            "Held out: the same networks on training images that were held out from condensing. Choices between rows "
            "are made by that column; the test images say what a choice is worth."
        )
    if caption.changed:
        texts.append(f"Measured with {caption.changed}.")
    short = _reductions(lines)
    if short:
        texts.append(f"{bold}Reduced settings, not the paper's{bold}: {'; '.join(short)}.")
    return texts


def _reductions(lines: Sequence[TableRow]) -> list[str]:
    """Every reduction once; those that do not hold for all lines say for whom."""
    able = [line for line in lines if line.settings]
    phrases = dict.fromkeys(phrase for line in able for phrase in line.reduced)
    texts = []
    for phrase in phrases:
        budgets = list(dict.fromkeys(_budget(line) for line in able if phrase in line.reduced))
        who = phrase.partition(":")[0]
        of_who = list(dict.fromkeys(_budget(line) for line in able if _concerns(line, who)))
        texts.append(phrase if budgets == of_who else f"{phrase} [{', '.join(budgets)}]")
    return texts


def _concerns(line: TableRow, who: str) -> bool:
    return any(phrase.partition(":")[0] == who for phrase in line.reduced)


def _budget(line: TableRow) -> str:
    count = "whole" if line.cell.images_per_class is None else f"IPC {line.cell.images_per_class}"
    return f"{line.cell.dataset} {count}"


def _notes(lines: Sequence[TableRow], caption: Caption) -> list[str]:
    notes = [*NOTES.get(caption.table, ()), *dict.fromkeys(note for line in lines for note in line.notes)]
    for reason, same in groupby(sorted((line for line in lines if line.reason), key=_reason), key=_reason):
        cells = dict.fromkeys(_where(line) for line in same)
        notes.append(f"{', '.join(cells)}: {reason}")
    return notes


def _reason(line: TableRow) -> str:
    return line.reason if line.state == MEASURED else f"{line.state}: {line.reason}"


def _where(line: TableRow) -> str:
    variant = "".join(f" {name} {value}" for name, value in line.variant)
    return f"{line.cell.called} {_budget(line)}{variant}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}".rstrip("0").rstrip(".")


def _escaped_markdown(text: str) -> str:
    return text.replace("|", r"\|")


def _escaped_latex(text: str) -> str:
    for plain, escaped in (("\\", r"\textbackslash{}"), ("&", r"\&"), ("%", r"\%"), ("_", r"\_"), ("#", r"\#")):
        text = text.replace(plain, escaped)
    for plain, escaped in (("±", r"$\pm$"), ("→", r"$\to$"), ("–", "--")):
        text = text.replace(plain, escaped)
    return text
