"""A term of the loss that somebody adds: one dataclass, then recipes, flags, records and checks know it."""

import json
import pickle
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
import torch
import yaml
from slow_losses import REAL, SYNTHETIC, assert_equals_slow, features

from clreplay import condense
from clreplay.condensation import METHODS, RealImages, condense_experience
from clreplay.condensation.matching.engine import MatchingEngine
from clreplay.condensation.matching.idm import IDMSettings
from clreplay.condensation.matching.settings import MatchingSettings
from clreplay.condensation.matching.terms import terms_of
from clreplay.data import NORMALIZATIONS
from clreplay.incremental.cli import continual_main
from clreplay.incremental.run_folder import read_settings
from clreplay.losses import TERMS, Term, register_term
from clreplay.memory.class_cache import ClassCache
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.recipes.overrides import parse_set, split_overrides
from clreplay.recipes.recipe import RecipeError, load_recipe

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "own_term"
CPU = torch.device("cpu")
TINY = {"width": 4, "depth": 2, "iterations": 2, "real_batch": 8, "lr_img": 1.0}
LEVEL = '''
from dataclasses import dataclass

from clreplay.losses import Term, register_term


@register_term("level")
@dataclass(frozen=True)
class Level(Term):
    """Squared distance of the mean feature from a level."""

    weight: float = 0.0
    height: float = 0.5
    reads_maps = False

    def loss(self, real, synthetic, features):
        return (features.embedding.mean((1, 2)) - self.height).square()
'''


@pytest.fixture
def level():
    """The term, registered for one test as somebody's script would do it."""

    @register_term("level")
    @dataclass(frozen=True)
    class Level(Term):
        """Squared distance of the mean feature from a level."""

        weight: float = 0.0
        height: float = 0.5
        reads_maps = False

        def __post_init__(self):
            super().__post_init__()
            if self.height <= 0:
                raise ValueError(f"height must be positive, got {self.height}")

        def loss(self, real, synthetic, features):
            return (features.embedding.mean((1, 2)) - self.height).square()

    yield Level
    del TERMS["level"]


def recipe(tmp_path, name="mine", **content):
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"base": "matching", "settings": TINY, **content}, sort_keys=False))
    return path


ALONE = {"level": {"weight": 1.0, "height": 0.25}, "mean": {"weight": 0.0}}


def velocity(settings, pixels):
    real = RealImages(*pixels(2, 8), NORMALIZATIONS["cifar10"])
    engine = MatchingEngine(real, {0: 3, 1: 3}, settings, 0, CPU)
    values = engine.step()
    return values, torch.cat([group.velocity for group in engine.groups])


# ---------------------------------------------------------------- the example


def test_the_page_shows_the_example_as_it_is():
    page = (ROOT / "docs" / "own_term.md").read_text(encoding="utf-8")
    code, text = ((EXAMPLE / f"variance.{kind}").read_text(encoding="utf-8") for kind in ("py", "yaml"))
    assert f"```python\n{code}```" in page and f"```yaml\n{text}```" in page
    assert "examples/own_term/variance.yaml --set terms.variance.weight=0.5" in page


@pytest.mark.parametrize("power", [2.0, 1.0])
def test_the_example_equals_a_slow_reference_in_value_and_gradient(power):
    settings = load_recipe(EXAMPLE / "variance.yaml").settings("paper", {"variance_power": power})
    (term,) = (term for term in terms_of(settings, SYNTHETIC) if term.name == "variance")

    def slow(theirs, ours):
        variances = [((x - x.mean(0)).square().sum(0) / (len(x) - 1)) for x in (theirs[0], ours[0])]
        return sum(abs(a - b) ** power for a, b in zip(*variances))

    assert_equals_slow(term, slow, features(REAL), features(SYNTHETIC, seed=1))
    assert [term.name for term in terms_of(settings, 1)] == ["mean_matching"]


def test_the_example_runs_beside_a_shipped_memory(tmp_path):
    arguments = [
        "--memory",
        "dm",
        str(EXAMPLE / "variance.yaml"),
        "--preset",
        "smoke",
        "--host",
        "none",
        "--steps",
        "2",
    ]
    tiny = ["--images-per-class", "2", "--set", "terms.variance.weight=0.5", "width=4", "iterations=2"]
    learner = ["train.width=4", "train.updates=2"]
    assert continual_main("digits", "", [*arguments, *tiny, *learner, "--out", str(tmp_path / "run")]) == 0
    memories = read_settings(tmp_path / "run")["memories"]
    assert (
        memories["variance"]["settings"]["variance_weight"] == 0.5
        and "variance_weight" not in memories["dm"]["settings"]
    )
    record = ReplayMemory.load(tmp_path / "run" / "memory-variance.safetensors").record
    assert {"mean_matching", "variance"} <= {*record[0]} and record[0]["variance"] > 0


# ---------------------------------------------------------------- registered in Python


def test_a_recipe_names_the_term_and_its_gradient_moves_the_images(level, tmp_path, pixels):
    settings = load_recipe(recipe(tmp_path, terms=ALONE)).settings()
    assert (settings.level_weight, settings.level_height, settings.mean_weight) == (1.0, 0.25, 0.0)
    assert isinstance(settings, MatchingSettings) and {*asdict(settings)} > {"level_weight", "level_height", "lr_img"}
    values, moved = velocity(settings, pixels)
    assert [*values] == ["level"] and moved.abs().amax((2, 3, 4)).min() > 0
    torch.testing.assert_close(velocity(replace(settings, level_weight=4.0), pixels)[1], 4 * moved)
    both = velocity(replace(settings, mean_weight=1.0), pixels)
    assert [*both[0]] == ["mean_matching", "level"]
    torch.testing.assert_close(
        both[1] - moved, velocity(replace(settings, level_weight=0.0, mean_weight=1.0), pixels)[1], rtol=1e-4, atol=1e-6
    )


def test_a_script_condenses_with_it_and_the_record_shows_it(level, tmp_path, pixels):
    images, labels = pixels(2, 8)
    for method, more in ((recipe(tmp_path, terms=ALONE), {}), ("idm", {**TINY, "level_weight": 1.0})):
        memory = condense(images, labels, method, 2, normalization="cifar10", preset="smoke", **more)
        assert all(row["level"] >= 0 for row in memory.record) and len(memory.record) > 0


@pytest.mark.parametrize("key", ["terms.level.weight", "level_weight", "mine.terms.level.weight", "mine.level_weight"])
@pytest.mark.parametrize("terms", [ALONE, {}], ids=["in the recipe", "by --set alone"])
def test_it_is_set_by_any_of_its_names(level, tmp_path, key, terms):
    mine = load_recipe(recipe(tmp_path, terms=terms))
    _, overrides = split_overrides(parse_set([f"{key}=3"]), [mine, load_recipe("random")])
    assert overrides == {"mine": {"level_weight": 3}, "random": {}}
    assert mine.settings("paper", overrides["mine"]).level_weight == 3.0
    assert mine.settings("paper", {"terms": {"level": {"weight": 3}}}).level_weight == 3.0


def test_it_stands_in_presets_cases_and_on_top_of_a_shipped_recipe(level, tmp_path):
    terms = {"terms": {"level": {"weight": 2}}}
    case = {"dataset": "cifar10", "settings": terms}
    mine = load_recipe(recipe(tmp_path, base="idm", presets={"smoke": terms}, cases=[case]))
    assert type(mine.settings()) is IDMSettings
    assert mine.settings("smoke").level_weight == mine.settings("paper", None, "cifar10").level_weight == 2.0
    assert isinstance(mine.settings("smoke"), IDMSettings)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"height": -1}, r"mine.yaml: terms.level.height \(level_height\) must be positive, got -1.0"),
        ({"weight": -1}, r"terms.level.weight \(level_weight\) must not be negative, got -1.0"),
        ({"weight": "heavy"}, r"terms.level.weight \(level_weight\) must be float, got 'heavy'"),
        ({"wait": 1}, r"mine.yaml: terms: level: unknown key 'wait', did you mean 'weight'\? Allowed: weight, height"),
    ],
)
def test_what_is_wrong_is_told_by_the_name_it_has_in_recipes_and_flags(level, tmp_path, terms, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe(tmp_path, terms={"level": terms}))


def test_memories_that_do_not_use_it_have_the_settings_they_had(level, tmp_path):
    assert type(load_recipe("ddm").settings()) is MatchingSettings
    assert load_recipe("random").keys() == ["tiles", "redraw_per_order"]
    with pytest.raises(RecipeError, match="unknown key 'level_weight'"):
        load_recipe("random").settings("paper", {"level_weight": 1})


def test_a_term_that_is_no_longer_registered_is_unknown(tmp_path):
    with pytest.raises(RecipeError, match=r"terms: unknown term 'level'\. Known: .*style"):
        load_recipe(recipe(tmp_path, terms=ALONE))


def test_its_settings_are_of_one_class_documented_pickled_and_stored_as_values(level, tmp_path):
    mine = load_recipe(recipe(tmp_path, terms=ALONE))
    configured = mine.configured()
    assert type(mine.settings()) is type(configured.settings) and mine.settings() == configured.settings
    assert "terms.level.height (level_height): 0.5" in type(configured.settings).__doc__
    assert mine.rebuilt(json.loads(json.dumps(configured.values()))) == configured
    assert replace(configured.settings, level_weight=2.0).level_weight == 2.0


def test_a_class_is_not_cached_where_a_change_of_the_term_would_go_unseen(level, tmp_path):
    assert not load_recipe(recipe(tmp_path, terms=ALONE)).configured().separable()
    assert load_recipe("dm").configured().separable()


def test_terms_that_share_a_name_in_records_are_refused(level, tmp_path, monkeypatch, pixels):
    monkeypatch.setattr(level, "name", "mean_matching")
    both = load_recipe(recipe(tmp_path, terms={"level": {"weight": 1}})).settings()
    with pytest.raises(ValueError, match="terms must differ in their names in records, got mean_matching, mean_match"):
        velocity(both, pixels)


# ---------------------------------------------------------------- in the file that a recipe names


def own_term(tmp_path, name="mine", text=LEVEL, **content):
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / f"{name}.py").write_text(text)
    return recipe(tmp_path, name, code=f"{name}.py", **{"terms": ALONE, **content})


def condensed(path, pixels, cache=None):
    memory = ReplayMemory(images_per_class=2, normalization=NORMALIZATIONS["cifar10"])
    real = RealImages(*pixels(2, 8), NORMALIZATIONS["cifar10"])
    condense_experience(memory, real, load_recipe(path).configured(), seed=0, device=CPU, cache=cache)
    return memory


def test_a_recipe_brings_its_term_along_for_itself_alone(tmp_path, pixels):
    one = own_term(tmp_path / "one")
    other = own_term(
        tmp_path / "other", text=LEVEL.replace("height: float = 0.5", "depth: int = 1\n    height: float = 1")
    )
    assert load_recipe(one).settings().level_height == 0.25 and "level" not in TERMS
    assert load_recipe(one).method is not METHODS["matching"] and load_recipe("dm").method is METHODS["matching"]
    assert load_recipe(other).keys().count("level_depth") == 1 and "level_depth" not in load_recipe(one).keys()
    assert [row["level"] > 0 for row in condensed(one, pixels).record] == [True] * 2
    on_idm = load_recipe(own_term(tmp_path / "third", base="idm", settings={}))
    assert isinstance(on_idm.settings(), IDMSettings) and on_idm.settings().level_weight == 1.0


def test_a_changed_term_never_hits_the_cache(tmp_path, pixels):
    cache = ClassCache(tmp_path / "cache")
    hits = []
    for text in (LEVEL, LEVEL, LEVEL.replace("square()", "abs()")):
        memory = condensed(own_term(tmp_path, text=text), pixels, cache)
        hits.append(memory.info["chosen"]["classes_from_cache"])
    assert hits == [0, 2, 0]


def test_settings_with_a_term_are_unpickled_in_another_process_that_read_the_recipe(tmp_path):
    path = own_term(tmp_path)
    (tmp_path / "configured.pickle").write_bytes(pickle.dumps(load_recipe(path).configured()))
    code = (
        "import pickle, sys; from clreplay.recipes import load_recipe; recipe = load_recipe(sys.argv[1]); "
        "found = pickle.load(open(sys.argv[2], 'rb')); assert found == recipe.configured(); "
        "print(found.settings.level_height)"
    )
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "configured.pickle")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "0.25\n"


@pytest.mark.parametrize(
    ("text", "content", "message"),
    [
        (LEVEL + LEVEL, {}, "mine.py fails at line .*term 'level' is registered already"),
        (
            LEVEL.replace('"level"', '"style"'),
            {"terms": {}},
            r"terms.style.weight \(style_weight\) has the name of anot",
        ),
        (LEVEL.replace('"level"', '"lr"').replace("height", "img"), {"terms": {}}, r"lr_img\) has the name of another"),
        (LEVEL.replace(" = 0.5", ""), {}, "term 'level' needs a default for height|non-default argument"),
        (LEVEL, {"method": "random"}, "does not register the method 'random', it registers idm, matching"),
        ("x = 1\n", {}, "mine.py does not register the method 'matching', it registers no method"),
    ],
)
def test_what_is_wrong_with_the_file_is_told(tmp_path, text, content, message):
    modules = dict(sys.modules)
    with pytest.raises(RecipeError, match=message):
        load_recipe(own_term(tmp_path, text=text, **content))
    assert "level" not in TERMS and {*METHODS["matching"].settings.term_classes} == {*TERMS}
    assert sys.modules.keys() - modules.keys() <= {name for name in sys.modules if name.startswith("_clreplay_own_")}
