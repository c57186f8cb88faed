"""A memory of one's own: the shipped example, and what happens to the Python file that a recipe brings along."""

import re
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from own_helpers import NOISY, own_recipe

from clreplay import condense
from clreplay.condensation import METHODS, RealImages, condense_experience
from clreplay.condensation.registry import OWN_METHODS
from clreplay.data import NORMALIZATIONS, load_dataset
from clreplay.incremental.cli import continual_main
from clreplay.incremental.run import run_experiment
from clreplay.incremental.run_folder import SettingsMismatch, read_settings
from clreplay.incremental.settings import ContinualSettings
from clreplay.memory.class_cache import ClassCache
from clreplay.memory.decoders import DECODERS
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.recipes.recipe import RecipeError, load_recipe
from clreplay.runtime.progress import Reporter

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "own_memory"
CPU = torch.device("cpu")

# ---------------------------------------------------------------- the example


def test_the_example_runs_beside_a_shipped_memory(tmp_path, capsys):
    arguments = [
        "--memory",
        "random",
        str(EXAMPLE / "medoids.yaml"),
        "--preset",
        "smoke",
        "--host",
        "none",
        "--steps",
        "2",
    ]
    tiny = ["--set", "train.width=4", "train.updates=3", "medoids.side=5", "--out", str(tmp_path / "run")]
    assert continual_main("digits", "", arguments + tiny) == 0
    assert "Medoids, step 2/2" in capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "run" / "results.csv")
    assert len(rows) == 4 and rows[rows.memory == "medoids"].memory_images.tolist() == [25, 50]
    settings = read_settings(tmp_path / "run")["memories"]["medoids"]
    assert settings["settings"] == {"side": 5} and len(settings["code"]) == 16
    memory, digits = ReplayMemory.load(tmp_path / "run" / "memory-medoids.safetensors"), load_dataset("digits").train
    for label in range(10):
        real = {image.numpy().tobytes() for image in digits.class_images(label)}
        assert {image.numpy().tobytes() for image in memory.slots[label].codes} <= real


def medoids_by_hand(points, count):
    """Every image in turn as the next one: take the one that leaves the smallest sum of distances."""
    kept = []
    for _ in range(count):
        sums = {}
        for candidate in (i for i in range(len(points)) if i not in kept):
            chosen = [points[i] for i in (*kept, candidate)]
            sums[candidate] = sum(min(float((point - other).norm()) for other in chosen) for point in points)
        kept.append(min(sums, key=sums.get))
    return kept


def test_the_example_picks_what_a_slow_reference_picks(pixels):
    images, labels = pixels(classes=2, each=9)
    memory = condense(images, labels, EXAMPLE / "medoids.yaml", 4, normalization="cifar10", side=4)
    for label in range(2):
        mine = images[labels == label]
        points = NORMALIZATIONS["cifar10"].apply(mine).double().unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean((3, 5))
        assert torch.equal(memory.slots[label].codes, mine[medoids_by_hand(list(points.flatten(1)), 4)])


def test_the_example_takes_twins_once_and_others_too(pixels):
    images, labels = pixels(classes=1, each=4)
    images[1:3] = images[0]
    memory = condense(images, labels, EXAMPLE / "medoids.yaml", 4, normalization="cifar10")
    assert torch.equal(memory.slots[0].codes.flatten(1).sort(0).values, images.flatten(1).sort(0).values)


def test_the_page_shows_the_example_as_it_is():
    page = (ROOT / "docs" / "own_method.md").read_text(encoding="utf-8")
    code, recipe = ((EXAMPLE / f"medoids.{kind}").read_text(encoding="utf-8") for kind in ("py", "yaml"))
    assert f"```python\n{code}```" in page and f"```yaml\n{recipe}```" in page
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith(("import", "from", '"""'))]
    assert len(lines) <= 20
    assert re.search(r"digits_5step.py --memory .*examples/own_memory/medoids.yaml", page)


# ---------------------------------------------------------------- how the file is read


def condensed(path, pixels, cache=None):
    recipe, memory = load_recipe(path), ReplayMemory(images_per_class=2, normalization=NORMALIZATIONS["cifar10"])
    real = RealImages(*pixels(), NORMALIZATIONS["cifar10"])
    condense_experience(memory, real, recipe.configured(), seed=0, device=CPU, cache=cache)
    return memory


COUNTING = NOISY.format(options="", result="") + "\nimport sys\nsys.own_runs = getattr(sys, 'own_runs', 0) + 1\n"


@pytest.fixture
def runs(monkeypatch):
    """How often the counting file has been run."""
    monkeypatch.setattr(sys, "own_runs", 0, raising=False)
    return lambda: sys.own_runs


def test_the_file_is_run_once_under_a_private_name(tmp_path, runs, monkeypatch):
    path, before, places = own_recipe(tmp_path, code=COUNTING), set(sys.modules), list(sys.path)
    methods = [load_recipe(path).method for _ in range(2)]
    monkeypatch.chdir(tmp_path)
    methods += [load_recipe("noisy.yaml").method, load_recipe(own_recipe(tmp_path, code=COUNTING)).method]
    assert runs() == 1 and all(method is methods[0] for method in methods)
    (name,) = (name for name in set(sys.modules) - before if "noisy" in name)
    assert name.startswith("_clreplay_own_noisy_") and "noisy" not in sys.modules
    assert sys.path == places and [file.name for file in sorted(tmp_path.iterdir())] == ["noisy.py", "noisy.yaml"]


def test_a_changed_file_is_run_again_and_its_recipe_has_the_new_method(tmp_path, runs):
    path = own_recipe(tmp_path, code=COUNTING)
    before = load_recipe(path)
    own_recipe(tmp_path, code=COUNTING.replace("rank: int = 0", "rank: int = 5"))
    after = load_recipe(path)
    assert runs() == 2
    assert (before.settings().rank, after.settings().rank) == (0, 5)
    assert before.method.code != after.method.code


def test_a_change_that_fails_leaves_the_method_that_worked(tmp_path, runs):
    path = own_recipe(tmp_path, code=COUNTING)
    worked = load_recipe(path)
    own_recipe(tmp_path, code=COUNTING + "\n1 / 0\n")
    modules = dict(sys.modules)
    with pytest.raises(RecipeError, match="ZeroDivisionError"):
        load_recipe(path)
    assert sys.modules == modules
    assert worked.configured().method is worked.method
    own_recipe(tmp_path, code=COUNTING)
    assert load_recipe(path).method is worked.method


def test_names_count_inside_their_file_only(tmp_path, pixels):
    shipped = dict(METHODS)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    one = own_recipe(tmp_path / "one")
    two = own_recipe(
        tmp_path / "two", code=NOISY.format(options="", result="").replace("noise: float = 0.5", "noise: float = 0")
    )
    mine = own_recipe(tmp_path, code=NOISY.format(options="", result="").replace('"noisy"', '"matching"'))
    mine.write_text("method: matching\ncode: noisy.py\n")
    assert not torch.equal(condensed(one, pixels).images, condensed(two, pixels).images)
    assert load_recipe(mine).keys() == ["noise", "rank"]
    assert METHODS == shipped and load_recipe("dm").method is METHODS["matching"]
    with pytest.raises(RecipeError, match="method must be one of .*got 'noisy'"):
        (tmp_path / "plain.yaml").write_text("method: noisy\n")
        load_recipe(tmp_path / "plain.yaml")


def test_settings_may_have_postponed_annotations_and_code_may_lie_elsewhere(tmp_path):
    text = "from __future__ import annotations\n" + NOISY.format(options="", result="")
    own_recipe(tmp_path, code=text)
    (tmp_path / "recipes").mkdir()
    path = tmp_path / "recipes" / "mine.yaml"
    path.write_text("method: noisy\ncode: ../noisy.py\nlabel: Mine\n")
    recipe = load_recipe(path)
    assert (recipe.name, recipe.label, recipe.settings("cpu", {"rank": 2.0}).rank) == ("mine", "Mine", 2)


def test_the_file_s_own_postponed_annotations_only(tmp_path):
    """What this library's files import from ``__future__`` must not leak into the file."""
    code = NOISY.format(options="", result="") + "\nassert NoisySettings.__annotations__['rank'] is int\n"
    assert load_recipe(own_recipe(tmp_path, code=code)).keys() == ["noise", "rank"]


# ---------------------------------------------------------------- what is wrong


def broken(tmp_path, recipe, code=None):
    (tmp_path / "mine.yaml").write_text(recipe)
    if code is not None:
        (tmp_path / "mine.py").write_text(code)
    return tmp_path / "mine.yaml"


PLAIN = NOISY.format(options="", result="")


@pytest.mark.parametrize(
    ("recipe", "code", "message"),
    [
        ("method: noisy\ncode: absent.py", None, r"no file .*absent.py to read \(No such file.*relative to the recipe"),
        ("method: noisy\ncode: folder.py", None, r"no file .*folder.py to read \(Is a directory\)"),
        ("method: noisy\ncode: mine", PLAIN, r"code must be the path of a .py file, relative .*got 'mine'"),
        ("method: noisy\ncode: 3", PLAIN, "code must be the path of a .py file, .*got 3"),
        ("method: noisy\ncode:", PLAIN, "code must be the path of a .py file, .*got None"),
        ("method: other\ncode: mine.py", PLAIN, r"mine.py does not register the method 'other', it registers noisy;"),
        ("method: random\ncode: mine.py", PLAIN, "mine.py does not register the method 'random', it registers noisy"),
        ("method: noisy\ncode: mine.py", "x = 1\n", "not register the method 'noisy', it registers no method; put"),
        ("code: mine.py", PLAIN, "method must be one of noisy, got None"),
        ("method: noisy\ncode: mine.py", "def (:\n", r"mine.py fails.*: SyntaxError: .*line 1"),
        ("method: noisy\ncode: mine.py", "\n\nimport no_such_module\n", "fails at line 3: ModuleNotFoundError: No mod"),
        ("method: noisy\ncode: mine.py", "def f():\n    return 1 / 0\nf()\n", "fails at line 2: ZeroDivisionError"),
        ("method: noisy\ncode: mine.py", "import sys\nsys.exit('bye')\n", "fails at line 2: SystemExit: bye"),
        ("method: noisy\ncode: mine.py", PLAIN + PLAIN, "ValueError: method 'noisy' is registered already"),
        ("method: noisy\ncode: mine.py", PLAIN.replace("@dataclass(frozen=True)", ""),
         "ValueError: the settings of method 'noisy' must be a dataclass, got .*NoisySettings"),
        ("method: noisy\ncode: mine.py", PLAIN.replace("rank: int = 0", "rank: int").replace("0.5", ""
         ).replace("noise: float = ", "noise: float"), r"mine.yaml: .*missing 2 required positional arguments"),
        ("method: noisy\ncode: mine.py\nsettings: {rang: 1}", PLAIN, r"unknown key 'rang', did you mean 'rank'\?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_the_recipe_s_file(recipe, code, message, tmp_path):
    (tmp_path / "folder.py").mkdir()
    modules, shipped, own = dict(sys.modules), dict(METHODS), len(OWN_METHODS)
    with pytest.raises(RecipeError, match=message) as error:
        load_recipe(broken(tmp_path, recipe, code))
    assert str(error.value).startswith(str(tmp_path / "mine.yaml"))
    assert METHODS == shipped
    if "fails" in str(error.value):
        assert sys.modules == modules and len(OWN_METHODS) == own


def test_a_file_that_fails_registers_no_decoder_either(tmp_path):
    code = "from clreplay.memory.decoders import register_decoder\nregister_decoder('mine')(lambda x: x)\n1 / 0\n"
    with pytest.raises(RecipeError, match="fails at line 3"):
        load_recipe(broken(tmp_path, "method: noisy\ncode: mine.py", code))
    assert "mine" not in DECODERS


def test_ctrl_c_while_the_file_runs_is_not_an_error_of_the_recipe(tmp_path):
    modules = dict(sys.modules)
    with pytest.raises(KeyboardInterrupt):
        load_recipe(broken(tmp_path, "method: noisy\ncode: mine.py", "raise KeyboardInterrupt\n"))
    assert sys.modules == modules


def test_the_command_line_tells_it_in_one_line(tmp_path, capsys):
    path = broken(tmp_path, "method: noisy\ncode: absent.py")
    assert continual_main("digits", "", ["--memory", str(path), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and "absent.py" in said
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- caches, runs, the plugin


def test_changed_code_never_hits_the_cache(tmp_path, pixels):
    cache, separable = ClassCache(tmp_path / "cache"), ", separable=lambda settings: True"
    path = own_recipe(tmp_path, options=separable)
    first = condensed(path, pixels, cache)
    assert condensed(path, pixels, cache).info["chosen"]["classes_from_cache"] == 3
    twice = NOISY.format(options=separable, result="").replace("settings.noise * torch", "2 * settings.noise * torch")
    changed = condensed(own_recipe(tmp_path, code=twice), pixels, cache)
    assert changed.info["chosen"]["classes_from_cache"] == 0
    assert not torch.equal(changed.images, first.images)


TINY = {"train.width": 4, "train.updates": 2}


def tiny(path, **changes):
    options = {"images_per_class": 2, "networks": 1, "class_orders": 1, "overrides": TINY, **changes}
    return ContinualSettings("digits", (str(path),), steps=2, preset="smoke", host="none", device="cpu", **options)


def test_a_run_does_not_go_on_with_changed_code(tmp_path):
    path = own_recipe(tmp_path)
    run_experiment(tiny(path), tmp_path / "run", Reporter(None))
    run_experiment(tiny(path), tmp_path / "run", Reporter(None))
    own_recipe(tmp_path, code=NOISY.format(options="", result="") + "# changed\n")
    with pytest.raises(SettingsMismatch, match="memories.noisy.code is '.*' there and '.*' here"):
        run_experiment(tiny(path), tmp_path / "run", Reporter(None))


def test_both_hosts_use_the_method_that_was_read_when_the_run_began(tmp_path, monkeypatch):
    from clreplay.incremental import run

    path, row, rows = own_recipe(tmp_path), run._rows, []

    def spoil(*arguments):
        (tmp_path / "noisy.py").write_text("1 / 0\n")
        rows.append(1)
        return row(*arguments)

    monkeypatch.setattr(run, "_rows", spoil)
    memories = []
    for host in ("none", "avalanche"):
        own_recipe(tmp_path)
        settings = ContinualSettings("digits", (str(path),), 2, steps=2, preset="smoke", host=host, device="cpu",
                                     networks=1, class_orders=2, overrides=TINY)  # fmt: skip
        folder = run_experiment(settings, tmp_path / host, Reporter(None))
        memories.append(ReplayMemory.load(folder / "memory.safetensors").images)
    assert len(rows) == 2 * 2 * 2 and torch.equal(*memories)


def test_the_plugin_takes_a_recipe_of_one_s_own_by_path_and_loaded(tmp_path):
    from plugin_helpers import CondensedReplayPlugin, memory_bytes, plain_benchmark
    from plugin_helpers import run as train

    path, memories = own_recipe(tmp_path), []
    for recipe in (path, str(path), load_recipe(path)):
        plugin = CondensedReplayPlugin(recipe, images_per_class=2, noise=0.25)
        assert plugin.name == "noisy" and plugin.settings.noise == 0.25
        train(plain_benchmark(), plugin, train_epochs=1)
        memories.append(memory_bytes(plugin.memory))
    assert memories[0] == memories[1] == memories[2]
