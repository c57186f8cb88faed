"""The page of a table: all of it that was measured, by whichever runs, and nothing that was measured otherwise."""

import csv
from dataclasses import replace

import pytest
from own_helpers import own_recipe
from store_rows import network_rows, set_row

from clreplay.benchmark.cli import main
from clreplay.benchmark.page import Page
from clreplay.benchmark.plan import plan
from clreplay.benchmark.request import TableRequest
from clreplay.benchmark.results import MEASURED, MISSING
from clreplay.benchmark.rows import Contents

SETTLED = {"kernels": "eager", "layout": "contiguous", "parallel": "operators"}
"""With nothing left to be chosen on the spot."""


def store(*grids, networks=None):
    """A store in which some grids are measured, of each cell the first networks."""
    contents = Contents()
    for grid in grids:
        for planned in plan(grid):
            contents.sets.update({spec.key: set_row(spec) for spec in planned.specs})
            rows = [row for one in (*planned.trained, *planned.real) for row in network_rows(one)]
            contents.networks.update({row.key: row for row in rows[:networks]})
    return contents


def page(grid):
    return Page(grid, plan(grid))


def told(grid, contents):
    """By line of a page: method and images a class, state, and number of networks."""
    return [
        (line.cell.method, line.cell.images_per_class, line.state, line.done) for line in page(grid).lines(contents)
    ]


def of_table_1(*methods, datasets=("cifar10",), ipc=(10,), sets=1, networks=2, **options):
    return TableRequest("1", datasets, ipc, methods, sets=sets, networks=networks, **options)


# ---------------------------------------------------------------- which cells


def test_a_page_shows_what_other_runs_measured_in_the_paper_s_order():
    contents = store(of_table_1("random", "whole"), of_table_1("random", ipc=(1,)))
    assert told(of_table_1("forgetting", "herding"), contents) == [
        ("Random", 1, MEASURED, 2),
        ("WholeDataset", None, MEASURED, 2),  # beside the first block, as the paper's table has it
        ("Random", 10, MEASURED, 2),
        ("Herding", 10, MISSING, 0),
        ("Forgetting", 10, MISSING, 0),
    ]


def test_what_was_measured_with_images_held_out_has_a_page_and_a_column_of_its_own(tmp_path):
    apart, plain = of_table_1("random", held_out=0.1), of_table_1("random")
    contents = store(apart, plain, of_table_1("herding", held_out=0.1))
    rows = list(contents.networks.values())
    for row, value in zip([row for row in rows if "#" in row.dataset], (30.0, 32.0, 40.0, 40.0)):
        contents.networks[row.key] = replace(row, held_out=value)
    assert told(apart, contents) == [("Random", 10, MEASURED, 2), ("Herding", 10, MEASURED, 2)]
    assert told(plain, contents) == [("Random", 10, MEASURED, 2)]
    assert page(apart).name == "table1-paper-held-out-0.1" and page(plain).name == "table1-paper"
    files = [
        {path.suffix: path.read_text() for path in page(grid).write(contents, tmp_path)} for grid in (apart, plain)
    ]
    texts, without = files
    assert "| held out | ours |" in texts[".md"] and "| 31.00 ± 1.00 | 1.00 ± 0.00 |" in texts[".md"]
    assert "training images held out: 0.1 of every class (paper none)" in texts[".md"]
    assert "held out" not in without[".md"].lower()
    first, second = csv.DictReader(texts[".csv"].splitlines())
    assert [(row["held_out"], row["held_out_spread"]) for row in (first, second)] == [("31", "1"), ("40", "0")]
    assert {row["held_out"] for row in csv.DictReader(without[".csv"].splitlines())} == {""}


def test_what_is_asked_for_is_there_whether_measured_or_not_and_the_rest_only_if_measured():
    asked = of_table_1("herding")
    assert told(asked, Contents()) == [("Herding", 10, MISSING, 0)]
    only_a_set = Contents(sets=store(of_table_1("random")).sets)
    assert told(asked, only_a_set) == [("Herding", 10, MISSING, 0)]
    assert len(page(TableRequest("1")).lines(Contents())) == 124


@pytest.mark.parametrize(
    "other",
    [{"preset": "cpu"}, {"protocol": "authors"}, {"store": "uint8"}, {"seed": 1}, {"overrides": {"train.lr": 0.5}}],
)
def test_what_was_measured_otherwise_is_on_a_page_of_its_own(other):
    usual, another = of_table_1("herding"), of_table_1("herding", **other)
    assert page(usual).name != page(another).name
    contents = store(of_table_1("random", **other))
    assert told(usual, contents) == [("Herding", 10, MISSING, 0)]
    assert told(another, contents) == [("Random", 10, MEASURED, 2), ("Herding", 10, MISSING, 0)]


def test_data_and_numbers_of_images_that_the_table_has_not_are_there_when_they_are_asked_for():
    contents = store(of_table_1("random", "whole", datasets=("digits",), ipc=(3,)))
    assert told(of_table_1("random"), contents) == [("Random", 10, MISSING, 0)]
    assert told(of_table_1("herding", datasets=("digits",), ipc=(3,)), contents) == [
        ("Random", 3, MEASURED, 2),
        ("Herding", 3, MISSING, 0),
        ("WholeDataset", None, MEASURED, 2),
    ]


def test_a_memory_of_one_s_own_comes_last_and_only_when_it_is_asked_for(tmp_path):
    path = str(own_recipe(tmp_path, yaml="label: Noisy\n"))
    changed = {"overrides": {"noise": 0.25}}  # a setting that the table's own memories do not have
    contents = store(of_table_1(path), of_table_1("random"), of_table_1(path, **changed), of_table_1("random"))
    assert [line[0] for line in told(of_table_1("herding"), contents)] == ["Random", "Herding"]
    for options in ({}, changed):
        expected = [("Random", 10, MEASURED, 2), ("Noisy", 10, MEASURED, 2)]
        assert told(of_table_1(path, **options), contents) == expected


def test_a_changed_setting_leaves_out_the_cells_that_stand_for_it():
    changed = {**SETTLED, "iterations": 7}
    contents = store(TableRequest("6", methods=("dm+icd",), sets=1, networks=1, overrides=changed))
    asked = TableRequest("6", methods=("dm",), images_per_class=(10,), sets=1, networks=1, overrides=changed)
    assert {line[0] for line in told(asked, contents)} == {"DM", "DM+ICD"}
    asked = TableRequest("6", methods=("dm",), sets=1, networks=1, overrides={**changed, "neighbours": 0.5})
    assert {line[0] for line in told(asked, contents)} == {"DM"}


# ---------------------------------------------------------------- how many networks


@pytest.mark.parametrize(
    ("measured", "asked", "shown"),
    [
        ({"sets": 5, "networks": 20}, {"sets": 1, "networks": 1}, (MEASURED, 100)),
        ({"sets": 1, "networks": 3}, {"sets": 1, "networks": 3}, (MEASURED, 3)),
        ({"sets": 1, "networks": 3}, {"sets": None, "networks": None}, (MEASURED, 3)),
        ({"sets": 5, "networks": 20}, {"sets": 10, "networks": 20}, (MEASURED, 100)),
    ],
)
def test_a_run_with_fewer_networks_does_not_take_away_what_others_measured(measured, asked, shown):
    lines = told(of_table_1("herding", **asked), store(of_table_1("random", **measured)))
    assert lines[0] == ("Random", 10, *shown)


def test_of_a_cell_that_is_not_asked_for_all_networks_count_and_their_number_is_shown():
    contents = store(of_table_1("random", sets=5, networks=20), networks=30)
    line = page(of_table_1("herding", sets=1, networks=1)).lines(contents)[0]
    assert (line.cell.method, line.state, line.done, line.wanted) == ("Random", MEASURED, 30, 30)
    assert line.condense_seconds == 6.0  # of the two sets that they were trained on


def test_the_search_shows_the_other_methods_that_were_searched():
    of_search = {"preset": "smoke", "architectures": 3}
    contents = store(
        TableRequest("7", methods=("random",), **of_search), of_table_1("herding", ipc=(50,), preset="smoke")
    )
    lines = page(TableRequest("7", methods=("whole",), **of_search)).lines(contents)
    assert [line.cell.method for line in lines if line.cell.metric == "time_cost"] == ["Random", "WholeDataset"]
    assert {line.state for line in lines if line.cell.method == "Random"} == {MEASURED}
    lines = page(TableRequest("7", methods=("dm",), overrides=SETTLED, **of_search)).lines(contents)
    assert {line.cell.method for line in lines} == {"Random", "DM", "WholeDataset"}


# ---------------------------------------------------------------- names and captions


def test_a_name_has_the_hash_of_what_is_changed_whatever_the_order():
    assert page(of_table_1("random")).name == "table1-paper"
    assert page(TableRequest("fig6", sets=1, preset="cpu", protocol="idc", store="uint8")).name == "fig6-cpu-idc-uint8"
    first, second = {"train.lr": 0.5, "train.updates": 3}, {"train.updates": 3, "train.lr": 0.5}
    names = [page(of_table_1("random", overrides=changed)).name for changed in (first, second)]
    assert names[0] == names[1] and len(names[0]) == len("table1-paper-") + 8
    both = page(of_table_1("random", overrides=first, seed=4))
    assert both.name not in ("table1-paper", names[0])
    assert both.caption.changed == "--set train.lr=0.5 train.updates=3 --seed 4"
    assert page(of_table_1("random")).caption.changed == ""


# ---------------------------------------------------------------- on the disk


def rows(path):
    with path.open(encoding="utf-8") as file:
        return [(row["method"], row["state"]) for row in csv.DictReader(file)]


def test_runs_over_parts_of_a_table_fill_one_page_and_changed_settings_another(tmp_path):
    def run(*flags):
        small = ["--preset", "smoke", "--networks", "1", "--device", "cpu", "--out", str(tmp_path)]
        assert main(["--table", "1", "--dataset", "digits", "--ipc", "1", *flags, *small]) == 0

    run("--method", "dm")
    run("--method", "random")
    whole = [("Random", MEASURED), ("DM", MEASURED)]
    assert rows(tmp_path / "table1-smoke.csv") == whole
    (tmp_path / "table1-smoke.csv").unlink()
    run("--method", "dm", "--render")
    assert rows(tmp_path / "table1-smoke.csv") == whole
    run("--method", "random", "--set", "train.updates=2", "--seed", "3")
    assert rows(tmp_path / "table1-smoke.csv") == whole
    (changed,) = tmp_path.glob("table1-smoke-*.csv")
    assert rows(changed) == [("Random", MEASURED)]
    for suffix, mark in ((".md", ""), (".tex", "% ")):
        assert f"\n{mark}Measured with --set train.updates=2 --seed 3.\n" in changed.with_suffix(suffix).read_text()
        assert "Measured with" not in (tmp_path / f"table1-smoke{suffix}").read_text()
