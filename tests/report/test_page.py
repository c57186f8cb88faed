"""What a report says: numbers of the run's own files, published ones with their differences, nothing from elsewhere."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace

import pandas as pd
import pytest
import yaml
from report_helpers import small_run

from clreplay.command.main import main
from clreplay.incremental.report_page import leave_report, reported
from clreplay.incremental.run_folder import RunFolder
from clreplay.report import MissingLibrary, Reported, write_report
from clreplay.report.tables import differences_from_the_paper, final_lines, published_numbers, warnings


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("report") / "digits")


def charts_of(page: str) -> dict[str, dict]:
    found = re.findall(r'<script type="application/json" id="chart-([^"]+)">(.*?)</script>', page, re.S)
    return {name: json.loads(text) for name, text in found}


def values_of(chart: dict) -> list[list[dict]]:
    return list(chart["datasets"].values())


def test_a_run_ends_with_its_report(run):
    page = (run / "report.html").read_text()
    rows = pd.read_csv(run / "results.csv")
    last = rows[rows.step == 4].groupby("memory").accuracy
    for memory, values in last:
        assert f"{values.mean():.1f} ± {values.std(ddof=0):.1f}" in page, memory
    settings = yaml.safe_load((run / "settings.yaml").read_text())
    assert f"commit {settings['commit']}" in page and "The smoke preset only shows" in page
    assert "<td>DDM</td>" in page and "<td>Random</td>" in page


def test_the_charts_hold_what_the_files_say(run):
    charts = charts_of((run / "report.html").read_text())
    assert {"accuracy", "forgetting", "classes-0-0", "classes-0-1", "loss-0-0", "loss-0-4"} <= set(charts)
    rows = pd.read_csv(run / "results.csv")
    (points,) = values_of(charts["accuracy"])
    assert len(points) == 2 * 5 and {point["line"] for point in points} == {"DDM", "Random"}
    for point in points:
        memory = {"DDM": "ddm", "Random": "random"}[point["line"]]
        wanted = rows[(rows.memory == memory) & (rows.step == point["step"] - 1)].accuracy
        assert point["accuracy"] == pytest.approx(wanted.mean(), abs=2e-3)
        assert point["high"] - point["low"] == pytest.approx(2 * wanted.std(ddof=0), abs=4e-3)
    (cells,) = values_of(charts["classes-0-0"])
    assert len(cells) == 2 + 4 + 6 + 8 + 10
    (losses,) = values_of(charts["loss-0-0"])
    assert {row["memory"] for row in losses} == {"DDM"}
    assert {"mean matching", "diversity"} <= {row["term"] for row in losses}


def test_the_page_needs_nothing_from_elsewhere(run):
    page = (run / "report.html").read_text()
    head, _, _ = page.partition('<script type="module">')
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:)""", head)
    assert "@import" not in head and "url(" not in head
    assert head.count("data:image/webp;base64,") == 10 * 3  # real, random and condensed images of ten classes


def test_every_image_and_chart_has_words_for_who_cannot_see_it(run):
    head, _, _ = (run / "report.html").read_text().partition('<script type="module">')
    assert all('alt="' in tag for tag in re.findall(r"<img [^>]*>", head))
    assert all('aria-label="' in tag for tag in re.findall(r"<div data-chart[^>]*>", head))


def test_names_are_text_wherever_they_come_from(run, tmp_path):
    found, evil = reported(run), "<img src=x onerror=alert(1)></script>"
    settings = yaml.safe_load(yaml.safe_dump(found.settings))
    settings["memories"]["ddm"]["label"] = evil
    settings["command"] = evil
    other = Reported(evil, settings, found.results, found.memories, found.confusions, None, {0: evil})
    write_report([other], tmp_path / "report.html")
    head, _, _ = (tmp_path / "report.html").read_text().partition('<script type="module">')
    assert "<img src=x" not in head and "&lt;img src=x onerror" in head
    assert charts_of(head)["accuracy"]  # no name has ended a script element early


def test_published_numbers_stand_beside_ours_with_what_was_measured_otherwise(run):
    found = reported(run)
    settings = {**found.settings, "dataset": "cifar100", "images_per_class": 20, "networks": 3, "class_orders": 1}
    lines = final_lines(Reported("cifar", settings, found.results))
    assert {line.label: line.published for line in lines} == {"DDM": 39.9, "Random": 24.8}
    (ddm,) = (line for line in lines if line.label == "DDM")
    assert "Figure 3b" in ddm.source
    assert "learner of width 4, theirs 128" in ddm.differences and "iterations 2, theirs 20,000" in ddm.differences
    assert "class orders 1, theirs 5" in ddm.differences and not any("networks" in one for one in ddm.differences)
    assert all(line.published is None for line in final_lines(found))
    paper = {
        "training": {"width": 128, "epochs": 1000, "updates": None},
        "class_orders": 5,
        "networks": 3,
        "memories": {},
    }
    assert differences_from_the_paper(Reported("p", paper, found.results), "ddm") == []
    assert len(published_numbers()) == 5


def test_what_makes_numbers_doubtful_is_said(run):
    found = reported(run)
    said = warnings(Reported("one", {**found.settings, "preset": "paper"}, found.results[found.results.network == 0]))
    assert any("One network a step" in text for text in said)
    low = found.results.assign(accuracy=10.0)
    assert any(
        "2 of 2 networks end at chance (10.0 %)" in text for text in warnings(Reported("x", found.settings, low))
    )
    early = found.results[found.results.step < 3]
    assert any("has not finished" in text for text in warnings(Reported("x", found.settings, early)))
    bright = next(iter(found.memories.values()))
    bright.slots[bright.classes[0]].codes[:] = 255
    assert not any("outside the range" in text for text in warnings(found) if "Random" in text)


# ---------------------------------------------------------------- the command


def test_two_runs_are_compared_and_their_differences_named(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = small_run(tmp_path / "more", images_per_class=4)
    assert main(["report", str(run), str(other)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert capsys.readouterr().out == "Report: report.html\n"
    (points,) = values_of(charts_of(page)["accuracy"])
    assert {point["line"] for point in points} == {f"{m} ({r})" for m in ("DDM", "Random") for r in ("digits", "more")}
    assert re.search(r"<td>images_per_class</td><td>3</td><td>4</td>", page)
    assert "cannot be compared" not in page


def test_runs_on_different_data_are_compared_and_it_is_said(run, tmp_path):
    found = reported(run)
    other = Reported("other", {**found.settings, "dataset": "mnist"}, found.results, {}, None)
    write_report([found, other], tmp_path / "r.html")
    assert "on different data (digits, mnist): their accuracies cannot be compared" in (tmp_path / "r.html").read_text()


def test_a_run_of_an_earlier_version_is_reported_without_what_it_lacks(run, tmp_path, caplog):
    old = tmp_path / "old"
    old.mkdir()
    for name in ("results.csv", "settings.yaml"):
        (old / name).write_bytes((run / name).read_bytes())
    assert main(["report", str(old)]) == 0
    page = (old / "report.html").read_text()
    assert set(charts_of(page)) == {"accuracy"} and "The memory by class" not in page


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda place: place, "is no run's folder: it has no settings.yaml"),
        (lambda place: (place / "settings.yaml").write_text("steps: 5\nmemories: {}\n") and place, "no results.csv in"),
    ],
)
def test_what_is_no_run_is_an_error(make, message, tmp_path, capsys):
    place = tmp_path / "x"
    place.mkdir()
    assert main(["report", str(make(place) and place)]) == 2
    assert message in capsys.readouterr().err
    assert not (place / "report.html").exists()


def test_two_folders_of_one_name_are_refused(run, tmp_path, capsys):
    twin = tmp_path / run.name
    twin.mkdir()
    assert main(["report", str(run), str(twin), "-o", str(tmp_path / "r.html")]) == 2
    assert "two runs are called digits; rename a folder" in capsys.readouterr().err


def test_a_run_without_the_libraries_is_told_and_not_lost(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(MissingLibrary, match="pip install altair vl-convert-python jinja2"):
        write_report([reported(run)], tmp_path / "r.html")
    from clreplay.data.load import load_dataset

    said = leave_report(RunFolder(run), load_dataset("digits"))
    assert said.startswith("Report:   none: altair")


# ---------------------------------------------------------------- domains


def test_a_domain_incremental_run_is_told_by_domains(tmp_path):
    from run_helpers import QUIET, tiny_settings

    from clreplay.incremental.run import run_experiment

    wanted = replace(tiny_settings(), class_orders=1, steps=3, domains=("none", "rotate:40", "invert"))
    folder = run_experiment(wanted, tmp_path / "domains", QUIET)
    page = (folder / "report.html").read_text()
    assert "sees the same 10 classes in another domain at each of 3 steps" in page and "Every domain" in page
    charts, rows = charts_of(page), pd.read_csv(folder / "domains.csv")
    (points,) = values_of(charts["accuracy"])
    assert sorted({point["seen"] for point in points}) == [1, 2, 3]
    (cells,) = values_of(charts["classes-0-1"])
    assert {(cell["name"], cell["after"]) for cell in cells} == {
        ("none", 1), ("none", 2), ("none", 3), ("rotate:40", 2), ("rotate:40", 3), ("invert", 3),
    }  # fmt: skip
    (forgotten,) = values_of(charts["forgetting"])
    ddm = rows[rows.memory == "ddm"].pivot_table(index=["network", "domain"], columns="step", values="accuracy")
    drops = [max(ddm.loc[n, d][d:2]) - ddm.loc[n, d][2] for n in range(2) for d in range(2)]
    (found,) = [one["forgetting"] for one in forgotten if one["line"] == "DDM" and one["seen"] == 3]
    assert found == pytest.approx(sum(drops) / 4, abs=2e-3)
