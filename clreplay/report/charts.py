"""The charts of a report, as Vega-Lite specifications: lines with their spread, one colour a memory everywhere.

Altair, because its scripts take 0.9 MB in a page, where Plotly's take 4.6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clreplay.analysis.domains import domain_accuracy
from clreplay.analysis.figures import memory_styles
from clreplay.analysis.forgetting import accuracy_by_class, forgetting, forgetting_of
from clreplay.analysis.summary import accuracy_by_step
from clreplay.report.reported import Reported
from clreplay.report.tables import final_lines
from clreplay.runtime.progress import loss_terms

if TYPE_CHECKING:
    import altair
    import pandas as pd

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
INK, FAINT = "#1b1f24", "#d9dee3"
SHAPES = {"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down"}
DASHES = ([1, 0], [6, 4], [2, 3], [8, 3, 2, 3])
HEIGHT = 300


class Lines:
    """The lines of a report: their names, one a memory and run, with colours, shapes and dashes.

    Args:
        runs: of the report; where there are several, their names are behind the memories'.

    Attributes:
        rows: every memory of every run after its last step, the best first.
    """

    def __init__(self, runs: Sequence[Reported]) -> None:
        self.runs = runs
        self.called = {run.name: f" ({run.name})" if len(runs) > 1 else "" for run in runs}
        styles = memory_styles(sorted({memory for run in runs for memory in run.settings["memories"]}))
        finals = [(run, line) for run in runs for line in final_lines(run, self.called[run.name])]
        finals.sort(key=lambda one: -one[1].accuracy)
        self.rows = [line for _, line in finals]
        self.names = list(dict.fromkeys(line.label for line in self.rows))
        self.colours, self.shapes, self.dashes = {}, {}, {}
        for run, line in finals:
            style = styles[line.memory]
            self.colours[line.label], self.shapes[line.label] = style.color, SHAPES.get(style.marker, "cross")
            self.dashes[line.label] = DASHES[[one.name for one in runs].index(run.name) % len(DASHES)]

    @property
    def seen(self) -> str:
        """What comes step by step in all of them."""
        kinds = {run.seen for run in self.runs}
        return kinds.pop() if len(kinds) == 1 else "classes or domains"

    def name(self, run: Reported, memory: str) -> str:
        """Of a line."""
        return f"{run.label(memory)}{self.called[run.name]}"

    def named(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table with columns ``run`` and ``memory``, with the column ``line``."""
        run_of = {run.name: run for run in self.runs}
        names = [self.name(run_of[run], memory) for run, memory in zip(table["run"], table["memory"])]
        found: pd.DataFrame = table.assign(line=names)
        return found

    def scales(self, shown: Sequence[str]) -> dict[str, altair.Scale]:
        """Colour, shape and dash by line."""
        import altair as alt

        names = [name for name in self.names if name in shown]
        looks: dict[str, Mapping[str, Any]] = {"color": self.colours, "shape": self.shapes, "strokeDash": self.dashes}
        return {kind: alt.Scale(domain=names, range=[of[name] for name in names]) for kind, of in looks.items()}


def accuracy_chart(lines: Lines, published: Sequence[tuple[str, float]] = ()) -> dict[str, Any]:
    """Accuracy against classes seen, mean with its spread; published final values as hollow marks.

    Args:
        lines: of the report.
        published: name and percent of every published final value.
    """
    import pandas as pd

    tables = [accuracy_by_step(run.results.assign(run=run.name)) for run in lines.runs]
    tables = [
        table.assign(seen=run.place(table["step"], table["classes_seen"])) for run, table in zip(lines.runs, tables)
    ]
    table = lines.named(pd.concat(tables, ignore_index=True))
    rows = table.assign(low=table["accuracy"] - table["std"], high=table["accuracy"] + table["std"])
    marks = pd.DataFrame(
        [(rows["seen"].max(), value, f"{name}: published {value}") for name, value in published],
        columns=["seen", "accuracy", "what"],
    )
    return _spec(_lines(lines, rows, "accuracy", f"accuracy on the {lines.seen} seen (%)"), marks)


def forgetting_chart(lines: Lines) -> dict[str, Any] | None:
    """Average forgetting against classes seen; None where no run has kept what its networks take images for."""
    import pandas as pd

    tables = []
    for run in lines.runs:
        if run.steps == 1:
            continue
        if run.domains is not None:
            found = forgetting_of(run.domains.assign(run=run.name, arrived=run.domains["domain"]))
        elif run.confusions is not None:
            found = forgetting(run.confusions.assign(run=run.name))
        else:
            continue
        classes = found["step"].map(run.results.groupby("step")["classes_seen"].first())
        tables.append(found.assign(seen=run.place(found["step"], classes)))
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    if not len(table):
        return None
    table = lines.named(table)
    rows = table.assign(low=table["forgetting"] - table["std"], high=table["forgetting"] + table["std"])
    return _spec(_lines(lines, rows, "forgetting", f"forgetting of earlier {lines.seen} (points)"))


def class_chart(run: Reported, memory: str) -> dict[str, Any] | None:
    """Accuracy of every class, or domain, after every step, a cell each, in the order in which they came."""
    import altair as alt

    found = run.confusions if run.domains is None else run.domains
    if found is None or not len(found := found[found["memory"] == memory].assign(run=run.name)):
        return None
    if run.domains is not None:
        table = domain_accuracy(found)
        order = list(dict.fromkeys(table.sort_values("domain")["domain_name"]))
        rows = table.assign(name=table["domain_name"])
    else:
        table = accuracy_by_class(found)
        first = found[found["class_order"] == found["class_order"].min()]
        arrived = first.drop_duplicates("label").sort_values(["arrived", "label"])["label"]
        order = [run.class_name(label) for label in arrived]
        rows = table.assign(name=[run.class_name(label) for label in table["label"]])
    rows = rows.assign(after=rows["step"] + 1)[["name", "after", "accuracy", "std"]].round(2)
    chart = (
        alt.Chart(rows)
        .mark_rect()
        .encode(
            x=alt.X("after:O", title="after step", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("name:N", sort=order, title=None, axis=alt.Axis(labelLimit=110, labelOverlap=True)),
            color=alt.Color(
                "accuracy:Q",
                scale=alt.Scale(scheme="viridis", domain=[0, max(10.0, math.ceil(rows["accuracy"].max() / 10) * 10)]),
                legend=alt.Legend(title="accuracy (%)", orient="bottom", gradientLength=200),
            ),
            tooltip=["name", "after", "accuracy", "std"],
        )
    )
    return _spec(chart, height=max(160, min(900, 14 * len(order))))


def loss_chart(run: Reported, step: int, colours: Mapping[str, str]) -> dict[str, Any] | None:
    """The loss terms of the classes that were condensed in one step, a small panel a term, one line a memory."""
    import altair as alt
    import pandas as pd

    rows = []
    for name, memory in run.memories.items():
        for row in memory.record:
            if row.get("experience", 0) == step:
                terms = loss_terms(row)
                rows += [
                    (run.label(name), row["iteration"], term.replace("_", " "), value) for term, value in terms.items()
                ]
    if not rows:
        return None
    table = pd.DataFrame(rows, columns=["memory", "iteration", "term", "value"])
    names = list(dict.fromkeys(table["memory"]))
    base = (
        alt.Chart(table)
        .mark_line(strokeWidth=1.5)
        .encode(
            x=alt.X("iteration:Q", title="iteration", axis=alt.Axis(tickCount=4)),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4, format="~g")),
            color=alt.Color(
                "memory:N",
                scale=alt.Scale(domain=names, range=[colours.get(name, INK) for name in names]),
                legend=alt.Legend(orient="bottom", title=None, columns=3),
            ),
        )
        .properties(width=210, height=110)
        .facet(facet=alt.Facet("term:N", title=None, header=alt.Header(labelFontWeight="bold")), columns=3)
        .resolve_scale(y="independent")
    )
    return _as_dict(base)


def _lines(lines: Lines, rows: pd.DataFrame, value: str, title: str) -> Any:
    import altair as alt

    columns = ["line", "step", "seen", value, "std", "networks", "low", "high"]
    data = rows[columns].round(3).assign(step=rows["step"] + 1)
    seen = sorted(int(number) for number in data["seen"].unique())
    x = alt.X(
        "seen:Q",
        title=f"{lines.seen} seen",
        scale=alt.Scale(domain=[seen[0] - 1, seen[0] + 1] if len(seen) == 1 else [seen[0], seen[-1]], nice=False),
        axis=alt.Axis(values=seen, format="d") if len(seen) <= 12 else alt.Axis(format="d"),
    )
    y = alt.Y(f"{value}:Q", title=title, scale=alt.Scale(zero=False))
    scales = lines.scales(list(data["line"].unique()))
    legend = alt.Legend(orient="bottom", title=None, columns=2, labelLimit=300, symbolOpacity=1)
    color = alt.Color("line:N", scale=scales["color"], legend=legend)
    dash = alt.StrokeDash("line:N", scale=scales["strokeDash"], legend=legend)
    shape = alt.Shape("line:N", scale=scales["shape"], legend=legend)
    tooltip = [alt.Tooltip(name) for name in ("line", "step", "seen", value, "std", "networks")]
    base = alt.Chart(data).encode(x=x)
    band = base.mark_area(opacity=0.16).encode(y=alt.Y("low:Q", title=title), y2="high:Q", color=color)
    line = base.mark_line(strokeWidth=2.2).encode(y=y, color=color, strokeDash=dash)
    points = base.mark_point(size=55, filled=True, opacity=1).encode(y=y, color=color, shape=shape, tooltip=tooltip)
    return band + line + points


def _spec(chart: Any, marks: pd.DataFrame | None = None, height: int = HEIGHT) -> dict[str, Any]:
    import altair as alt

    if marks is not None and len(marks):
        points = alt.Chart(marks).mark_point(size=70, filled=False, color=INK, strokeWidth=1.5)
        chart = chart + points.encode(x="seen:Q", y="accuracy:Q", tooltip="what:N")
    return _as_dict(chart.properties(width="container", height=height))


def _as_dict(chart: Any) -> dict[str, Any]:
    axes = {"labelColor": INK, "titleColor": INK, "gridColor": FAINT, "labelFontSize": 12, "titleFontSize": 13}
    found: dict[str, Any] = (
        chart.configure(font=FONT, background="transparent")
        .configure_axis(**axes, titleFontWeight="normal")
        .configure_legend(labelColor=INK, titleColor=INK, labelFontSize=12, titleFontSize=12)
        .configure_view(stroke=None)
        .to_dict()
    )
    return found
