"""``clreplay show`` and ``clreplay memories``: what there is, in words."""

import pytest
import torch
import yaml

from clreplay import condense
from clreplay.command.main import main
from clreplay.incremental.plan import plan_experiment
from clreplay.incremental.run import run_planned
from clreplay.incremental.settings import ContinualSettings
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.recipes.recipe import load_recipe, recipe_names, strategies_dir
from clreplay.runtime.progress import Reporter


@pytest.fixture
def run(capsys):
    """The exit code, standard error, and what was printed: its title, and its rows by name."""

    def command(*words):
        code = main(list(words))
        out, err = capsys.readouterr()
        return code, err, out

    return command


def rows(text):
    """Rows of ``show`` by their names; lines that go on are joined."""
    found, name = {}, ""
    for line in text.splitlines()[1:]:
        if line.startswith("  ") and line[2] != " ":
            name, _, rest = line[2:].partition("  ")
            found[name] = rest.strip()
        elif name:
            found[name] += " " + line.strip()
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run of two memories."""
    settings = ContinualSettings(
        dataset="digits", memories=("random", "dm"), images_per_class=2, steps=2, networks=1, preset="smoke",
        host="none", device="cpu", overrides={"iterations": 3, "width": 4, "real_batch": 6, "train.updates": 2},
    )  # fmt: skip
    return run_planned(plan_experiment(settings), tmp_path_factory.mktemp("run") / "run", Reporter(None))


def test_a_memory_is_counted_and_says_where_it_comes_from(run, folder, tmp_path):
    path = folder / "memory-dm.safetensors"
    memory = ReplayMemory.load(path)
    code, err, out = run("show", str(path), "--picture", str(tmp_path / "dm.png"))
    said = rows(out)
    assert (code, err) == (0, "") and out.startswith(f"{path}: a memory\n")
    assert said["images"] == "20: 2 of each of 10 classes" and said["size"] == "1 channel, 32 x 32 pixels"
    assert said["bytes"].startswith(f"{memory.memory_bytes:,}; the file holds ")
    assert (said["method"], said["data"], said["budget"]) == ("dm", "digits", "2 images a class")
    # What it was made by is found in the run's folder.
    assert said["preset"] == "smoke, seed 0" and said["settings"] == "width=4, iterations=3, real_batch=6"
    assert said["made with"].startswith("clreplay=")
    assert (tmp_path / "dm.png").read_bytes().startswith(b"\x89PNG")
    assert "settings" in rows(run("show", str(folder / "checkpoint" / "dm-order0.safetensors"))[2])


def test_a_memory_alone_says_what_it_knows(run, pixels, tmp_path):
    images, labels = pixels()
    made = condense(images, labels, "random+tiles", 2, store="png", normalization="cifar10")
    made.save(tmp_path / "own.safetensors")
    code, _, out = run("show", str(tmp_path / "own.safetensors"), "--picture", str(tmp_path / "own.png"))
    said = rows(out)
    assert code == 0 and said["images"] == "6, decoded to 24: 2 of each of 3 classes" and said["store"] == "png"
    assert (
        "data" not in said
        and "preset" not in said
        and "tiles=2" in said["settings"]
        and (tmp_path / "own.png").is_file()
    )


def test_a_run_says_what_was_asked_and_what_came_of_it(run, folder):
    code, err, out = run("show", str(folder))
    said = rows(out)
    assert (code, err) == (0, "")
    assert (said["data"], said["steps"], said["budget"]) == ("digits", "2", "images_per_class 2")
    assert said["repeats"] == "1 class order, 1 network a step" and said["learner"] == "updates=2"
    assert said["random"] == "Random: those of the recipe random"
    assert said["dm"] == "DM: width=4, iterations=3, real_batch=6"
    assert said["dm: results"].startswith("finished; ") and said["dm: results"].endswith(" % after the last step")
    assert rows(run("show", str(folder / "settings.yaml"))[2]) == said


def test_settings_alone_are_shown_without_results(run, folder, tmp_path):
    copy = tmp_path / "copied.settings.yaml"
    copy.write_text((folder / "settings.yaml").read_text())
    code, _, out = run("show", str(copy))
    assert code == 0 and "dm: results" not in out and rows(out)["data"] == "digits"


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_shown_and_listed(run, name):
    code, err, out = run("show", name)
    recipe, said = load_recipe(name), rows(out)
    assert (code, err) == (0, "") and out.startswith(f"{name}: a recipe ({recipe.label})")
    assert said["keeps"] == recipe.summary != recipe.label and said["source"] == recipe.source
    assert {"paper", "cpu", "smoke"} <= set(said)


def test_settings_that_differ_are_shown_by_preset_and_case(run):
    said = rows(run("show", "dm")[2])
    assert "lr_img" not in said["paper"] and "iterations=120" in said["cpu"] and "width=32" in said["cpu"]
    assert "lr_img=10.0" in said["case"] and said["cost"].startswith("an iteration takes 1 times one of dm")


def test_a_recipe_of_one_s_own_is_shown_by_its_path(run, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"base": "dm", "settings": {"iterations": 7}}))
    code, _, out = run("show", str(path))
    assert code == 0 and rows(out)["paper"] == "iterations=7, precision=tf32" and rows(out)["keeps"] == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["herdin"], "did you mean 'herding'?"),
        (["{folder}"], "{folder}"),
        (["{folder}/text.txt"], "is neither a memory's file (.safetensors), a run's folder nor a recipe (.yaml)"),
        (["{folder}/other.settings.yaml"], "does not hold the settings of a class-incremental run"),
        (["dm", "--picture", "dm.png"], "--picture is of a memory, and dm is none"),
    ],
)
def test_anything_else_is_refused_in_one_line(run, tmp_path, words, message):
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "other.settings.yaml").write_text("a: 1")
    code, err, out = run("show", *(word.format(folder=tmp_path) for word in words))
    assert (code, out) == (2, "") and message.format(folder=tmp_path) in err and err.count("\n") == 1


def test_memories_lists_all_with_what_they_keep_and_measured_costs(run):
    code, err, out = run("memories")
    assert (code, err) == (0, "")
    for name in recipe_names():
        assert any(line.startswith(f"{name} ") and load_recipe(name).summary in line for line in out.splitlines()), name
    assert "[1.55 x dm]" in out and max(map(len, out.splitlines())) <= 120
    selected = out[: out.index("Images that are made")]
    assert "herding" in selected and "datadam" not in selected
    assert run("memories", "--names")[2].split() == recipe_names()


def test_every_shipped_recipe_says_what_it_keeps():
    for path in strategies_dir().glob("*.yaml"):
        if path.stem != "training":
            content = yaml.safe_load(path.read_text())
            assert isinstance(content["summary"], str) and len(content["summary"]) < 110
            assert isinstance(content.get("cost", 1.0), float)


def test_names_of_classes_that_are_not_numbered_from_0_are_shown(run, tmp_path):
    memory = ReplayMemory(1)
    memory.add({label: torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(label)) for label in (7, 3)})
    memory.name_classes({7: "owl", 3: "eel"})
    memory.save(tmp_path / "m.safetensors")
    code, err, out = run("show", str(tmp_path / "m.safetensors"), "--picture", str(tmp_path / "m.png"))
    assert (code, err) == (0, "") and (tmp_path / "m.png").is_file()
    assert rows(out)["classes"].startswith("owl, eel Picture: ")
