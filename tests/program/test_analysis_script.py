"""runs/analysis.py as a user types it, on the digits."""

import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from clreplay import condense
from clreplay.analysis.paper_figures import known
from clreplay.data.sets.digits import load_digits
from clreplay.incremental.doors import door_main

SCRIPT = Path(__file__).parents[2] / "runs" / "analysis.py"


@pytest.fixture(scope="module")
def memories(tmp_path_factory):
    data, folder = load_digits(), tmp_path_factory.mktemp("memories")
    for name in ("random", "herding", "dm"):
        memory = condense(
            data.train.images, data.train.labels, name, 4, preset="smoke", normalization=data.normalization,
            dataset="digits", device="cpu",
        )  # fmt: skip
        memory.save(folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def main(tmp_path, capsys):
    def run(*flags, dataset="digits"):
        common = ["--dataset", dataset, "--preset", "smoke", "--device", "cpu", "--updates", "20", "--networks", "1"]
        code = runpy.run_path(str(SCRIPT))["main"]([*common, "--out", str(tmp_path / "out"), *map(str, flags)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.mark.slow
def test_every_figure_is_a_picture_a_table_and_a_line(main, memories, tmp_path):
    figures = ["1a", "1b", "4", "5d", "9", "1c"]
    paths = [memories / "random.safetensors", f"mine={memories / 'dm.safetensors'}", memories / "herding.safetensors"]
    flags = ["--memory", *paths, "--figure", *figures, "--set", "train.updates=4"]
    code, out, err = main(*flags)
    assert code == 0, err
    for figure in figures:
        (line,) = [line for line in out.splitlines() if line.startswith(f"figure {figure} ")]
        assert "(mine)" in line or "towards mine" in line
        with Image.open(tmp_path / "out" / f"figure{figure}.png") as picture:
            assert (
                picture.width > 500
                and len(picture.convert("L").histogram()) - picture.convert("L").histogram().count(0) > 10
            )
        texts = "".join(ElementTree.parse(tmp_path / "out" / f"figure{figure}.svg").getroot().itertext())
        assert texts.strip() or "use" in (tmp_path / "out" / f"figure{figure}.svg").read_text()
        rows = pd.read_csv(tmp_path / "out" / f"figure{figure}.csv")
        name = "towards" if figure == "1c" else "set"
        assert "mine" in set(rows[name]) and (name == "towards" or "real" in set(rows[name]))
    points = pd.read_csv(tmp_path / "out" / "figure1a.csv").groupby(["set", "label"]).size()
    assert points["mine"].to_dict() == {0: 4, 1: 4} and points["real"].to_dict() == {0: 100, 1: 100}
    numbers = pd.read_csv(tmp_path / "out" / "figure1b-numbers.csv")
    assert set(numbers["set"]) == {"real, others", "random", "mine", "herding"} and len(numbers) == 4 * 10
    drifted = pd.read_csv(tmp_path / "out" / "figure1c.csv")
    assert set(drifted.towards) == {"random", "mine"} and sorted(set(drifted.gamma)) == [0, 0.25, 0.5, 0.75, 1]
    assert drifted[drifted.gamma == 0].groupby("towards").accuracy.first().nunique() == 1


def test_all_memories_of_a_run_s_folder_are_taken(main, tmp_path):
    folder = tmp_path / "run"
    flags = ["--memory", "random", "dm", "--preset", "smoke", "--device", "cpu", "--networks", "1", "--no-cache"]
    assert door_main("digits-5step", [*flags, "--out", str(folder)]) == 0
    code, out, err = main("--memory", folder, "--figure", "4", "--classes", "3", "7")
    assert code == 0, err
    rows = pd.read_csv(tmp_path / "out" / "figure4.csv")
    assert set(rows["set"]) == {"real", "random", "dm"} and set(rows.label) == {3, 7}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--figure", "2"], f"--figure must be among {', '.join(known())}, got 2"),
        (["--memory", "gone.safetensors"], "--memory: there is no file or folder gone.safetensors"),
        (["--figure", "1c", "--trained-on", "kmeans"], "figure 1c is trained on a memory 'kmeans'; give it"),
        (["--set", "train.lrr=1"], "lrr"),
    ],
)
def test_what_cannot_be_is_one_line(main, memories, flags, message):
    code, _, err = main("--memory", memories / "dm.safetensors", *flags)
    assert code == 2 and message in err and err.count("\n") == 1


def test_a_memory_of_other_data_and_a_name_twice_are_refused(main, memories):
    dm = memories / "dm.safetensors"
    code, _, err = main("--memory", dm, dm)
    assert code == 2 and "two memories are called dm; give one a name of its own: --memory NAME=" in err
    code, _, err = main("--memory", f"a={dm}", f"b={dm}", "--classes", "11")
    assert code == 2 and "11" in err
