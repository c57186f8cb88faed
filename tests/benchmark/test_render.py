"""Rendered tables against committed files, and what a line says about what was measured.

After a wanted change: ``python tests/test_benchmark_render.py`` writes the expected files anew; look at the difference.
"""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from store_rows import network_rows, set_row

from clreplay.benchmark.cells import published_cells
from clreplay.benchmark.plan import plan
from clreplay.benchmark.protocols import PROTOCOLS
from clreplay.benchmark.render import CSV_COLUMNS, Caption, latex, markdown, table_csv
from clreplay.benchmark.request import TableRequest
from clreplay.benchmark.results import FAILED, MEASURED, MISSING, PARTLY, TableRow, lines_of
from clreplay.benchmark.rows import Contents, Failure, Origin
from clreplay.benchmark.status import status_lines

EXPECTED = Path(__file__).parent / "expected"
RENDERERS = {"md": markdown, "tex": latex, "csv": table_csv}
GPU, CPU = "NVIDIA H200", "AMD EPYC 9B14"


def cell(table, **wanted):
    return next(c for c in published_cells(table) if all(getattr(c, name) == value for name, value in wanted.items()))


def table_4():
    """At the paper's settings: better, worse, two machines, half of it, nothing yet."""
    ours = {"settings": "0123456789ab", "commits": ("abc123",), "devices": (GPU,), "wanted": 100, "done": 100}
    full = {**ours, "condense_seconds": 8123.4, "train_seconds": 912.5, "state": MEASURED}
    of = {"table": "4", "recipe": "ddm-paper", "train_network": "ConvNet"}
    return [
        TableRow(cell(**of, test_network="ConvNet"), 53.284, 0.313, **full),
        TableRow(
            cell(**of, test_network="AlexNet"), 47.12, 0.9, **{**full, "devices": (CPU, GPU), "commits": ("a", "b")}
        ),
        TableRow(cell(**of, test_network="VGG11"), 46.2, 0.8, **{**full, "done": 37, "state": PARTLY}),
        TableRow(cell(**of, test_network="ResNet18"), settings="ba9876543210", wanted=100),
    ]


def table_1():
    """Reduced, with failures and dashes; reductions that hold for some lines only say for which."""
    shared = ("sets x networks: 1 x 3 (paper 5 x 20)", "training (ConvNet of width 32): width 32 (paper 128)")
    ours = {"settings": "0123456789ab", "commits": ("abc123",), "devices": (CPU,), "wanted": 3, "done": 3}
    of = {"table": "1", "dataset": "cifar10"}
    dm = {**ours, "condense_seconds": 71.26, "train_seconds": 9.96, "state": MEASURED}
    failed = {"state": FAILED, "wanted": 3, "settings": "ffffffffffff"}
    reason = "ValueError: class 3 has 4 images & 50 % of them_are bad | see there (attempts: 1)"
    return [
        TableRow(
            cell(**of, recipe="dm", images_per_class=1), 20.004, 0.4, **dm, reduced=(*shared, "DM: lr_img 10 (paper 1)")
        ),
        TableRow(
            cell(**of, recipe="dm", images_per_class=10), 41.5, 0.25, **dm, reduced=(*shared, "DM: lr_img 5 (paper 1)")
        ),
        TableRow(cell(**of, recipe="dd", images_per_class=1), 15.0, 1.0, **dm, reduced=shared),
        TableRow(cell(**of, recipe="cafe", images_per_class=1), reason=reason, **failed, reduced=shared),
        TableRow(cell(**of, recipe="cafe", images_per_class=10), reason=reason, **failed, reduced=shared),
        TableRow(cell(**of, recipe="whole"), state=MISSING, wanted=1, settings="eeeeeeeeeeee"),
        TableRow(
            cell(table="1", dataset="imagenet", recipe="dm"), state=FAILED, reason="clreplay does not load imagenet"
        ),
    ]


def table_6():
    full = {"settings": "0123456789ab", "commits": ("abc123",), "devices": (GPU,), "wanted": 100, "done": 100}
    return [
        TableRow(c, 48.0 + i / 10, 0.2, variant=c.variant, state=MEASURED, **full)
        for i, c in enumerate(published_cells("6")[:4])
    ]


def table_7():
    short = ("40 of the 720 architectures",)
    full = {"settings": "0123456789ab", "commits": ("abc123",), "devices": (GPU,), "wanted": 40, "done": 40}
    full = {**full, "state": MEASURED, "condense_seconds": 500.0, "train_seconds": 4000.0, "reduced": short}
    of = {"table": "7", "recipe": "ddm-paper"}
    lines = [TableRow(cell(**of, metric="accuracy"), 83.11, **full)]
    for top, value in (("5", None), ("all", 0.7312)):
        reason = "" if value else "no correlation over 5 of 40"
        lines.append(
            TableRow(cell(**of, metric="spearman_correlation"), value, variant=(("top", top),), reason=reason, **full)
        )
    lines.append(TableRow(cell(**of, metric="time_cost"), 66.66, **full))
    return [*lines, TableRow(cell(**of, metric="storage"), 500.0, **full)]


CASES = {
    "table4-paper": (table_4, Caption("4", "paper", "common", PROTOCOLS["common"])),
    "table1-cpu-authors": (table_1, Caption("1", "cpu", "authors", PROTOCOLS["authors"])),
    "table6-paper": (table_6, Caption("6", "paper", "common", PROTOCOLS["common"])),
    "table7-paper": (table_7, Caption("7", "paper", "common", PROTOCOLS["common"])),
}


@pytest.mark.parametrize("suffix", RENDERERS)
@pytest.mark.parametrize("name", CASES)
def test_rendered_tables_are_the_committed_ones(name, suffix):
    lines, caption = CASES[name]
    expected = (EXPECTED / f"{name}.{suffix}").read_text(encoding="utf-8")
    assert RENDERERS[suffix](lines(), caption) == expected


def test_every_line_is_a_row_in_every_format():
    lines, caption = table_1(), CASES["table1-cpu-authors"][1]
    rows = list(csv.DictReader(io.StringIO(table_csv(lines, caption))))
    assert list(rows[0]) == CSV_COLUMNS and len(rows) == len(lines)
    page = markdown(lines, caption).splitlines()
    table = [line for line in page if line.startswith("|")]
    assert len(table) == len(lines) + 2
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {table[0].count("|")}
    tex = latex(lines, caption)
    body = [line for line in tex.splitlines() if line.endswith(r" \\") and not line.startswith(r"\multicolumn")]
    columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", tex)[1]
    assert len(body) == len(lines) + 1
    assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in body} == {len(columns)}


@pytest.mark.parametrize("render", RENDERERS.values())
def test_what_was_not_measured_shows_no_number_of_ours(render):
    (line,) = (one for one in table_4() if one.state == MISSING)
    text = render([line], CASES["table4-paper"][1])
    assert MISSING in text and line.cell.published in text
    assert line.difference is None


@pytest.mark.parametrize("suffix", ["md", "tex"])
def test_a_reduced_table_says_so_and_an_unreduced_one_does_not(suffix):
    for name, (lines, caption) in CASES.items():
        reduced = any(line.reduced for line in lines())
        assert ("Reduced settings, not the paper's" in RENDERERS[suffix](lines(), caption)) == reduced, name


# ---------------------------------------------------------------- lines from a store


def contents_of(planned, accuracies, failures=None):
    """A store in which the first networks of a cell are trained."""
    sets = {spec.key: set_row(spec, devices=(CPU,)) for spec in planned.specs}
    origin = Origin(2.0, GPU, "def", "torch")
    rows = [row for trained in planned.trained for row in network_rows(trained, origin=origin)]
    networks = {row.key: replace(row, accuracy=accuracy) for row, accuracy in zip(rows, accuracies)}
    return Contents(sets, networks, failures={key: Failure(reason, 2) for key, reason in (failures or {}).items()})


def planned_random(networks=2, sets=2):
    (planned,) = plan(TableRequest("1", ("cifar10",), (10,), ("random",), sets=sets, networks=networks))
    return planned


def test_a_line_averages_over_sets_and_networks():
    planned = planned_random()
    (line,) = lines_of([planned], contents_of(planned, [20.0, 22.0, 24.0, 26.0]))
    assert (line.ours, line.state, line.done, line.wanted) == (23.0, MEASURED, 4, 4)
    assert line.spread == pytest.approx(5**0.5)  # of the population, as the authors' code prints it
    assert line.difference == pytest.approx(23.0 - 26.0)
    assert (line.condense_seconds, line.train_seconds) == (6.0, 8.0)
    assert line.devices == (CPU, GPU) and line.commits == ("abc", "def")


def test_a_part_is_called_a_part_and_a_failure_has_its_reason():
    planned = planned_random()
    keys = [key for t in planned.trained for key in t.unit.keys]
    (part,) = lines_of([planned], contents_of(planned, [20.0], {keys[1]: "MemoryError: full"}))
    assert (part.ours, part.state, part.done) == (20.0, PARTLY, 1)
    assert part.reason == "MemoryError: full (attempts: 2)"
    nothing = contents_of(planned, [])
    (line,) = lines_of([planned], nothing)
    assert (line.ours, line.state, line.reason) == (None, MISSING, "")
    (line,) = lines_of([planned], Contents(failures={planned.specs[0].key: Failure("OSError: gone", 1)}))
    assert (line.ours, line.state, line.reason) == (None, FAILED, "OSError: gone (attempts: 1)")


def test_the_hash_of_the_settings_does_not_hang_on_how_many_are_measured():
    lines = [lines_of([planned_random(n, s)], Contents())[0] for n, s in ((1, 1), (20, 5))]
    assert lines[0].settings == lines[1].settings
    (other,) = plan(TableRequest("1", ("cifar10",), (10,), ("random",), overrides={"train.lr": 0.5}))
    assert other.settings_key != lines[0].settings


def test_status_counts_cells_and_estimates_the_rest():
    planned = planned_random()
    texts = status_lines([planned], contents_of(planned, [20.0, 22.0]), jobs=2)
    assert texts[0].split()[:3] == ["2", "of", "4"] and "21.00 +- 1.00, published 26.0" in texts[0]
    assert texts[1] == "1 partly measured of 1 cells"
    assert texts[2] == "left: about 2.0 s with 2 jobs"  # two networks of two seconds
    texts = status_lines([planned], Contents(), jobs=1)
    assert texts[-1] == "left: 6 units, none of a kind that was timed yet"
    done = status_lines([planned], contents_of(planned, [20.0] * 4), jobs=1)
    assert done[-1] == "1 measured of 1 cells"


def test_a_difference_needs_both_numbers():
    line = table_4()[0]
    assert line.difference == pytest.approx(0.284)
    assert replace(line, ours=None).difference is None
    assert replace(line, cell=replace(line.cell, published="")).difference is None


if __name__ == "__main__":
    EXPECTED.mkdir(parents=True, exist_ok=True)
    for name, (lines, caption) in CASES.items():
        for suffix, render in RENDERERS.items():
            (EXPECTED / f"{name}.{suffix}").write_text(render(lines(), caption), encoding="utf-8")
