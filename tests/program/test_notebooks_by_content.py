"""What the notebooks of memories, style, own data and tables show: figures by content, numbers by their source."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("IPython", reason="executing notebooks needs IPython: pip install ipykernel")
pytest.importorskip("nbformat", reason="executing notebooks needs nbformat")
from notebook_helpers import axes_called, execute, overlapping_texts

from clreplay.analysis.forgetting import forgetting, old_and_new
from clreplay.incremental.run_folder import read_confusion, read_results

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"


def check_figures(figures):
    """No text lies on another, nothing is empty."""
    for figure in figures:
        assert not overlapping_texts(figure)
        for axes in figure.axes:
            assert axes.images or axes.lines or axes.collections or axes.patches, "something is drawn"
            assert not axes.axison or axes.get_xlabel() or axes.get_ylabel() or len(axes.get_xticklabels())


def blocks(figure):
    """Titles of a picture of images, and whether all blocks hold some."""
    assert all(np.asarray(axes.images[0].get_array()).std() > 0.05 for axes in figure.axes)
    return [axes.get_title(loc="left") for axes in figure.axes]


def shares(texts):
    return [float(text.split(" ")[0]) for text in texts]


@pytest.mark.parametrize("place", ["root", "folder"])
def test_tables_stand_beside_the_published_ones(place, monkeypatch):
    monkeypatch.chdir(ROOT if place == "root" else NOTEBOOKS)
    done = execute(NOTEBOOKS / "05_tables.ipynb", monkeypatch)
    check_figures(done.figures)
    both, wide = done.figures
    assert [axes.get_title() for axes in both.axes] == [
        "CIFAR-10, 1 image a class, reduced", "CIFAR-10, 10 images a class, reduced",
    ]  # fmt: skip
    for axes, names in zip(both.axes, (("Random", "Herding", "DM", "DDM"),) * 2):
        assert [label.get_text() for label in axes.get_xticklabels()] == list(names)
        assert len(axes.containers) == 2 and len(axes.containers[0].lines[0].get_xdata()) == 4
    assert axes_called(wide) == [("", "accuracy, % of test images")]
    rows = pd.read_csv(ROOT / "results" / "static_tables_cpu" / "table1.csv")
    beside, at_width = done.shown
    assert shares(beside["ours"]) == list(rows.ours.round(1)) and shares(beside["published"]) == list(rows.published)
    assert list(at_width.index) == [
        "random",
        "dm",
        "dm+patch",
        "ddm-second",
        "dm+sm-second",
        "ddm-scripts",
        "ddm-paper",
    ]
    assert at_width["published"]["dm+patch"] == "-" and at_width["ours, test"]["ddm-paper"].startswith("51.6")
    known = pd.read_csv(ROOT / "clreplay" / "benchmark" / "published" / "table1.csv")
    known = known[(known.dataset == "CIFAR10") & (known.ipc == "10")].set_index("method")["mean"]
    for name, method in (("random", "Random"), ("dm", "DM"), ("ddm-paper", "DDM")):
        assert float(at_width["published"][name].split(" ")[0]) == known[method]


def test_accuracy_of_two_runs_and_what_is_forgotten(monkeypatch):
    monkeypatch.chdir(NOTEBOOKS)
    done = execute(NOTEBOOKS / "01_accuracy_per_step.ipynb", monkeypatch)
    check_figures(done.figures)
    accuracy, costs, drop, classes, mistakes, *rest = done.figures
    assert (
        len(rest) == 4 and [blocks(figure) for figure in rest[:2]] == [["Real", "Random", "Herding", "DM", "DDM"]] * 2
    )
    assert axes_called(costs) == [("memory, kB", "accuracy after the last step, %")]
    results = pd.concat([read_results(NOTEBOOKS / run) for run in ("digits_run", "digits_2_images")])
    assert len(costs.axes[0].containers) == 4
    for line in costs.axes[0].containers:
        name = {label: memory for memory, label in done.names["labels"].items()}[line.get_label()]
        of = results[(results.memory == name) & (results.step == 4)].groupby("run", sort=False)
        assert sorted(line.lines[0].get_xdata()) == sorted(of.memory_bytes.max() / 1000)
        assert sorted(line.lines[0].get_ydata()) == pytest.approx(sorted(of.accuracy.mean()))
    assert [axes.get_title() for axes in classes.axes] == ["Random", "Herding", "DM", "DDM"]
    confusions = read_confusion(NOTEBOOKS / "digits_2_images")
    last = confusions[(confusions.memory == "ddm") & (confusions.step == 4)]
    right = 100 * last[last.label == last.taken_for]["count"].sum() / last["count"].sum()
    shown = results[
        (results.run == "digits_2_images") & (results.memory == "ddm") & (results.step == 4)
    ].accuracy.mean()
    assert right == pytest.approx(shown), "the record is that of the results"
    written = [float(text.get_text()) for text in classes.axes[3].texts]
    assert len(written) == 2 + 4 + 6 + 8 + 10 and max(written) <= 100
    assert [axes.get_title() for axes in mistakes.axes] == ["test images of old classes", "test images of new classes"]
    wrong = old_and_new(confusions).query("step == 4 and of == 'old'").set_index("memory")
    heights = [bar.get_height() for bar in mistakes.axes[0].patches]
    assert sum(heights) == pytest.approx((wrong.other_old + wrong.other_new).sum())
    lost = forgetting(confusions).query("memory == 'random' and step == 4").forgetting.item()
    tables = [value for value in done.shown if isinstance(value, pd.DataFrame)]
    assert f"{lost:.1f} ± " in tables[-1].loc[("digits_2_images", "Random"), 10]


def test_a_run_on_images_of_one_s_own_is_read_with_and_without_them(monkeypatch, tmp_path, capsys):
    from PIL import Image

    from clreplay.incremental.run import run_experiment
    from clreplay.incremental.settings import ContinualSettings
    from clreplay.runtime.progress import Reporter

    for split in ("train", "test"):
        for shade, name in ((20, "rose"), (200, "tulip")):
            (tmp_path / "flowers" / split / name).mkdir(parents=True)
            for number in range(4):
                pixels = np.full((8, 8, 3), shade + 10 * number, dtype=np.uint8)
                pixels[number:, : number + 2] //= 2
                Image.fromarray(pixels).save(tmp_path / "flowers" / split / name / f"{number}.png")
    settings = ContinualSettings(
        dataset=f"folder:{tmp_path / 'flowers'}", memories=("random",), images_per_class=2, steps=2, preset="smoke",
        host="none", device="cpu", networks=1, overrides={"train.width": 4, "train.updates": 2},
    )  # fmt: skip
    run_experiment(settings, tmp_path / "mine", Reporter(None))
    notebook, runs = NOTEBOOKS / "01_accuracy_per_step.ipynb", 'RUNS = ["digits_run", "digits_2_images"]'
    for data, expected in (({}, ["Random"]), ({"mine": f"folder:{tmp_path / 'flowers'}"}, ["Real", "Random"])):
        changes = [(runs, f"RUNS = [{str(tmp_path / 'mine')!r}]"), ("DATA = {}", f"DATA = {data}")]
        done = execute(notebook, monkeypatch, changes)
        assert blocks(done.figures[-1]) == expected
        assert {"rose", "tulip"} <= {text.get_text() for text in done.figures[-1].texts}
        assert ("without real images" in capsys.readouterr().out) is (not data)
    check_figures(done.figures)


@pytest.mark.slow
def test_a_memory_is_opened(monkeypatch):
    monkeypatch.chdir(NOTEBOOKS)
    done = execute(NOTEBOOKS / "02_inside_the_memory.ipynb", monkeypatch)
    check_figures(done.figures)
    beside, moments, nearest, losses = done.figures
    assert blocks(beside) == ["Real", "Herding", "DM", "DDM"]
    assert blocks(moments) == ["Real", "After 1", "After 10", "After 40", "After 160"]
    assert blocks(nearest) == ["In memory", "Nearest real, by pixels", "Nearest real, to a network"]
    assert [label for _, label in axes_called(losses)] == [
        "mean matching", "moment matching", "correlation matching", "diversity",
    ]  # fmt: skip
    assert [len(axes.lines) for axes in losses.axes] == [2, 1, 1, 1]
    records = [{row["iteration"]: row for row in memory.record} for memory in done.names["moments"].values()]
    assert all(records[-1][i] == records[2][i] for i in records[2] if i in records[-1]), "a shorter run is a beginning"
    distances, costs = done.shown
    assert (distances.loc[["Random", "Herding"]] < 0.01).all(axis=None), "selected images are real"
    assert (distances.loc[["DM", "DDM"], "by pixels"] > 1).all()
    assert list(costs["bytes"]) == [51200, 51200, 51600, 51600]


@pytest.mark.slow
def test_style_and_diversity_are_told_apart(monkeypatch):
    pytest.importorskip("skimage", reason="texture needs scikit-image")
    monkeypatch.chdir(NOTEBOOKS)
    done = execute(NOTEBOOKS / "03_style_and_diversity.ipynb", monkeypatch)
    check_figures(done.figures)
    style, content, texture, drift, accuracy = done.figures
    for figure in (style, content):
        texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert texts == [
            "real, 120 images",
            *(f"{name}, 10 images" for name in done.names["memories"]),
            "class 3",
            "class 8",
        ]
    assert [label for _, label in axes_called(texture)] == ["dissimilarity, grey levels", "entropy, nats"]
    assert [text.get_text() for text in drift.axes[0].get_legend().get_texts()] == ["towards dm", "towards ddm"]
    assert axes_called(accuracy) == [("style: shift from real images", "accuracy, % of test images")]
    shift, layers, spread, digits, cifar = done.shown
    # What the text says.
    assert shift["shift"]["ddm"] < 0.7 * shift["shift"]["dm"] and shift["shift"]["ddm"] < shift["shift"]["real, others"]
    gram = layers["Gram gap"].astype(float)
    assert (gram.loc["ddm", [2, 3]] < gram.loc["dm", [2, 3]]).all() and gram.loc["ddm", 1] > gram.loc["dm", 1] > 1
    contrast = layers["contrast"].astype(float)
    assert contrast.loc["ddm", 1] > contrast.loc["dm", 1] > 1.2
    assert spread["spread"].idxmin() == "herding"
    assert spread["nearest"][["dm", "ddm"]].max() < spread["nearest"]["random"]
    assert abs(digits["accuracy"]["dm"] - digits["accuracy"]["ddm"]) < digits["std"].max() + 0.1
    assert cifar.index[-1] == "ddm-paper" and cifar["shift"].idxmin() == "ddm-paper"


@pytest.mark.slow
def test_a_folder_of_one_s_own_becomes_a_memory_and_a_learner(monkeypatch, capsys):
    monkeypatch.chdir(NOTEBOOKS)
    done = execute(NOTEBOOKS / "04_your_own_data.ipynb", monkeypatch)
    check_figures(done.figures)
    assert blocks(done.figures[0]) == ["Real", "DDM"]
    names, scores = done.shown
    assert names == ["five", "four", "one", "three", "two", "zero"]
    accuracies = scores["accuracy, %"].str.split(" ").str[0].astype(float)
    assert accuracies["DDM"] > accuracies["Random"] > 50
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert [line.split(",")[0] for line in lines] == ["step 1: 2 classes", "step 2: 4 classes", "step 3: 6 classes"]
    assert int(lines[-1].split(", ")[2].split(" ")[0]) > 60
    assert len(done.names["plugin"].memory.classes) == 6


def test_of_ten_cells(monkeypatch):
    import nbformat

    cells = nbformat.read(NOTEBOOKS / "04_your_own_data.ipynb", as_version=4).cells
    assert len([cell for cell in cells if cell.cell_type == "code"]) <= 10


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_s_file_is_small(path):
    assert path.stat().st_size < 400_000
