"""The page itself: everything in one HTML file that opens without a network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from clreplay.report.pictures import strip
from clreplay.report.reported import Reported
from clreplay.report.tables import settings_that_differ, warnings
from clreplay.runtime.files import write_text
from clreplay.runtime.progress import counted, duration, size

MOST_CLASSES = 200
"""Classes whose images are shown; of more, evenly spaced ones."""


class MissingLibrary(ImportError):
    """What a report is made with is not installed."""


class ClassImages(NamedTuple):
    """A class in the picker.

    Attributes:
        number: in the page.
        name: of the class.
        step: in which it came, counted from 0.
        strips: its images by source: a name, a picture of them side by side, how many.
    """

    number: int
    name: str
    step: int
    strips: list[tuple[str, str, int]]


def write_report(runs: Sequence[Reported], path: Path) -> None:
    """Write one page about a run, or about several side by side.

    Args:
        runs: at least one, each with results.
        path: the file, written whole or not at all.

    Raises:
        MissingLibrary: Altair, its renderer or Jinja2 is not installed; the message names the cure.
        ValueError: there are no results to report.
        OSError: it cannot be written.
    """
    if not runs or any(not len(run.results) for run in runs):
        empty = ", ".join(run.name for run in runs if not len(run.results)) or "nothing"
        raise ValueError(f"{empty} has no results yet; a report needs a step that is finished")
    try:
        text = _page(runs)
    except ImportError as error:
        raise MissingLibrary(
            f"{error.name or error} is not installed; pip install altair vl-convert-python jinja2"
        ) from error
    write_text(path, text)


def _page(runs: Sequence[Reported]) -> str:
    import jinja2

    from clreplay.report.charts import Lines, accuracy_chart, class_chart, forgetting_chart, loss_chart

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clreplay.report", "."), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(size=size, duration=duration, data=_as_data)
    lines = Lines(runs)
    published = {line.label: line.published for line in lines.rows if line.published is not None}
    datasets = {run.settings["dataset"] for run in runs}
    charts: dict[str, Any] = {"accuracy": accuracy_chart(lines, list(published.items()))}
    charts["forgetting"] = forgetting_chart(lines)
    shown = []
    for number, run in enumerate(runs):
        classes = _classes(run)
        by_class = {memory: f"classes-{number}-{place}" for place, memory in enumerate(run.settings["memories"])}
        charts |= {key: class_chart(run, memory) for memory, key in by_class.items()}
        colours = {run.label(memory): lines.colours.get(lines.name(run, memory), "#1b1f24") for memory in run.memories}
        losses = {step: f"loss-{number}-{step}" for step in sorted({one.step for one in classes})}
        charts |= {key: loss_chart(run, step, colours) for step, key in losses.items()}
        shown.append(
            {
                "run": run,
                "number": number,
                "warnings": warnings(run),
                "classes": classes,
                "all_classes": run.outputs,
                "real": run.real is not None,
                "by_class": {run.label(memory): key for memory, key in by_class.items() if charts[key]},
                "losses": {step: key for step, key in losses.items() if charts[key]},
                "chosen": classes[0].number if classes else None,
                "settings_text": yaml.safe_dump(dict(run.settings), sort_keys=False, width=100),
            }
        )
    drawn = {key: spec for key, spec in charts.items() if spec is not None}
    first = runs[0].settings
    page = environment.get_template("page.html.j2")
    return page.render(
        title=_title(runs),
        runs=shown,
        rows=lines.rows,
        several=len(runs) > 1,
        other_data=len(datasets) > 1,
        datasets=sorted(datasets),
        differing=settings_that_differ(runs) if len(runs) > 1 else [],
        charts=drawn,
        first=first,
        seen=lines.seen,
        steps=counted(int(first["steps"]), "step"),
        style=_file("page.css"),
        script=_script(),
    )


def _title(runs: Sequence[Reported]) -> str:
    if len(runs) > 1:
        return f"{len(runs)} runs: " + ", ".join(run.name for run in runs)
    memories = ", ".join(runs[0].label(memory) for memory in runs[0].settings["memories"])
    return f"{runs[0].settings['dataset']} in {counted(runs[0].steps, 'step')}: {memories}"


def _classes(run: Reported) -> list[ClassImages]:
    """Classes of the memories with pictures, in order of arrival."""
    arrived: dict[int, int] = {}
    for memory in run.memories.values():
        sizes = run.results.drop_duplicates("step").sort_values("step")["classes_seen"].tolist()
        for place, label in enumerate(memory.classes):
            step = next((step for step, seen in enumerate(sizes) if place < seen), len(sizes) - 1)
            arrived.setdefault(label, step)
    labels = sorted(arrived, key=lambda label: (arrived[label], label))
    if len(labels) > MOST_CLASSES:
        labels = [labels[round(place)] for place in np.linspace(0, len(labels) - 1, MOST_CLASSES)]
    found = []
    for number, label in enumerate(labels):
        strips = []
        if run.real is not None:
            strips.append(("Real", *strip(run.real.class_images(label).float() / 255)))
        for name, memory in run.memories.items():
            if label in memory.slots:
                strips.append((run.label(name), *strip(memory.pixels(label))))
        found.append(ClassImages(number, run.class_name(label), arrived[label], strips))
    return found


def _file(name: str) -> str:
    return resources.files("clreplay.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _script() -> str:
    """Vega and what draws it, once for all charts; about 0.9 MB."""
    import vl_convert

    script: str = vl_convert.javascript_bundle(_file("charts.js"))
    return script.replace("</script", "<\\/script")


def _as_data(value: Any) -> str:
    """JSON that may stand inside a script element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, default=float)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
