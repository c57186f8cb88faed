"""Recipes that build on a base, and terms of a loss by their nested and by their flat names."""

from dataclasses import replace

import pytest
import yaml
from own_helpers import NOISY, own_recipe

from clreplay.recipes.overrides import split_overrides
from clreplay.recipes.recipe import PRESETS, load_recipe, recipe_names, strategies_dir
from clreplay.recipes.typed_settings import RecipeError

DIGITS = {"dataset": "digits", "settings": {"siamese_augment": "crop"}}


def recipe(tmp_path, **content):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"base": "matching", "label": "Mine", **content}, sort_keys=False))
    return path


def test_a_recipe_of_a_base_alone_is_the_base(tmp_path):
    mine, dm = load_recipe(recipe(tmp_path)), load_recipe("dm")
    for preset in PRESETS:
        assert mine.settings(preset) == dm.settings(preset)
        assert mine.settings(preset, None, "digits", 10) == dm.settings(preset, None, "digits", 10)
    assert mine.method is dm.method


def test_bases_are_no_memories():
    bases = {path.stem for path in (strategies_dir() / "base").glob("*.yaml")}
    assert bases == {"matching", "gradient_matching"} and not bases & set(recipe_names())


def test_settings_and_presets_are_merged_by_key_and_one_s_own_count(tmp_path):
    mine = load_recipe(recipe(tmp_path, settings={"lr_img": 3.0}, presets={"cpu": {"width": 8}}))
    assert (mine.settings().lr_img, mine.settings().iterations) == (3.0, 20000)
    cpu = mine.settings("cpu")  # the base's preset counts more than the recipe's settings, as any preset does
    assert (cpu.width, cpu.iterations, cpu.lr_img) == (8, 120, 10.0)


def test_cases_of_the_base_come_first_so_that_one_s_own_count(tmp_path):
    assert load_recipe(recipe(tmp_path)).settings("paper", None, "digits").siamese_augment.endswith("scale_rotate")
    mine = load_recipe(recipe(tmp_path, cases=[DIGITS]))
    assert mine.settings("paper", None, "digits").siamese_augment == "crop"


def test_ddm_does_not_inherit_the_rate_of_dm_at_many_images():
    assert load_recipe("dm").settings("paper", None, "cifar10", 100).lr_img == 10.0
    assert load_recipe("ddm").settings("paper", None, "cifar10", 100).lr_img == 1.0


def test_terms_are_the_flat_names_in_another_spelling(tmp_path):
    nested = load_recipe(recipe(tmp_path, terms={"style": {"weight": 7, "moments": 0.5, "layers": [0]}})).settings()
    flat = load_recipe(recipe(tmp_path, settings={"style_weight": 7, "alpha": 0.5, "style_layers": [0]})).settings()
    assert nested == flat and (flat.style_weight, flat.alpha, flat.style_layers) == (7.0, 0.5, (0,))


def test_terms_of_a_base_and_of_a_recipe_are_merged_by_setting_in_either_spelling(tmp_path, monkeypatch):
    (tmp_path / "base").mkdir()
    shared = {"method": "matching", "terms": {"style": {"weight": 5, "layers": [0]}}}
    shared["presets"] = {"cpu": {"terms": {"style": {"weight": 2, "layers": [1]}}}}
    (tmp_path / "base" / "styled.yaml").write_text(yaml.safe_dump(shared))
    monkeypatch.setattr("clreplay.recipes.recipe.strategies_dir", lambda: tmp_path)
    for own in ({"terms": {"style": {"weight": 7}}}, {"settings": {"style_weight": 7}}):
        settings = load_recipe(recipe(tmp_path, base="styled", **own)).settings()
        assert (settings.style_weight, settings.style_layers) == (7.0, (0,))
    for own in ({"terms": {"style": {"weight": 9}}}, {"style_weight": 9}):
        settings = load_recipe(recipe(tmp_path, base="styled", presets={"cpu": own})).settings("cpu")
        assert (settings.style_weight, settings.style_layers) == (9.0, (1,))


def test_a_shipped_recipe_may_be_a_base_and_build_on_another(tmp_path):
    mine, idm = load_recipe(recipe(tmp_path, base="idm", terms={"style": {"weight": 3}})), load_recipe("idm")
    assert (mine.label, mine.method) == ("Mine", idm.method) and "source" not in mine.content
    for place in (("paper", None, None), ("smoke", "cifar10", 50), ("cpu", "cifar100", 1), ("paper", "digits", 1)):
        preset, *data = place
        assert mine.settings(preset, None, *data) == replace(idm.settings(preset, None, *data), style_weight=3.0)


@pytest.mark.parametrize("names", [("round",), ("one", "other")])
def test_bases_that_build_on_one_another_in_a_circle_are_an_error(tmp_path, monkeypatch, names):
    (tmp_path / "base").mkdir()
    for name, below in zip(names, (*names[1:], names[0])):
        (tmp_path / "base" / f"{name}.yaml").write_text(f"{{base: {below}, method: matching}}")
    monkeypatch.setattr("clreplay.recipes.recipe.strategies_dir", lambda: tmp_path)
    with pytest.raises(RecipeError, match=f"mine.yaml: base: {' builds on '.join([*names, names[0]])}, in a circle"):
        load_recipe(recipe(tmp_path, base=names[0]))


def test_a_method_of_one_s_own_may_have_a_setting_called_terms(tmp_path):
    code = NOISY.format(options="", result="").replace("rank: int = 0", "rank: int = 0\n    terms: int = 3")
    own = load_recipe(own_recipe(tmp_path, code=code, yaml="settings: {terms: 4}"))
    assert own.settings().terms == 4
    assert own.settings("paper", {"terms": 5}).terms == 5


def test_terms_stand_in_cases_and_presets_too(tmp_path):
    terms = {"terms": {"style": {"weight": 9}}}
    mine = load_recipe(recipe(tmp_path, cases=[{"dataset": "cifar10", "settings": terms}], presets={"smoke": terms}))
    assert mine.settings().style_weight == 0.0
    assert mine.settings("paper", None, "cifar10").style_weight == mine.settings("smoke").style_weight == 9.0


@pytest.mark.parametrize("key", ["style_weight", "terms.style.weight", "ddm.style_weight", "ddm.terms.style.weight"])
def test_a_weight_is_set_by_any_of_its_names(key):
    _, by_recipe = split_overrides({key: 3.0}, [load_recipe("ddm")])
    assert by_recipe == {"ddm": {"style_weight": 3.0}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"base": "matchin"},
            "mine.yaml: base must be one of best, cafe, .*matching, random, random\\+tiles, tgdd, got 'matchin'",
        ),
        ({"base": "training"}, "base must be one of .*, got 'training'"),
        ({"base": ["dm"]}, "base must be one of .*, got .'dm'."),
        ({"base": None}, "base must be one of .*, got None"),
        ({"terms": {"stile": {"weight": 1}}}, "terms: unknown term 'stile', did you mean 'style'"),
        ({"terms": {"style": {"wait": 1}}}, "terms: style: unknown key 'wait', did you mean 'weight'"),
        ({"terms": {"style": 5}}, "terms: style must be a mapping of keys to values, got 5"),
        ({"terms": {"style": {"weight": -1}}}, r"terms.style.weight \(style_weight\) must not be negative, got -1"),
        ({"presets": {"cpu": {"terms": {"dive": {"weight": 1}}}}}, "terms: unknown term 'dive'"),
        ({"presets": [1]}, r"presets must be a mapping of keys to values, got \[1\]"),
        ({"settings": 3}, "settings must be a mapping of keys to values, got 3"),
        ({"terms": 0}, "terms must be a mapping of keys to values, got 0"),
        ({"settings": {"terms": 3}}, "unknown key 'terms'"),
        ({"cases": 3}, "cases must be a list of entries like .*, got 3"),
        ({"cases": DIGITS}, "cases must be a list of entries like .*, got {'dataset': 'digits'"),
        ({"cases": [DIGITS, 5]}, "mine.yaml: cases: entry 2: must be a mapping"),
        ({"cases": [DIGITS, {"settings": {"lr_imgg": 2}}]}, "mine.yaml: cases: entry 2: unknown key 'lr_imgg'"),
        ({"method": "random"}, "unknown key 'network'"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(tmp_path, content, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe(tmp_path, **content))


@pytest.mark.parametrize("key", ["terms.stile.weight", "terms.style.wait", "terms.style", "ddm.terms.style.wait"])
def test_a_term_that_is_misspelled_on_the_command_line_is_named(key):
    with pytest.raises(RecipeError, match=f"--set {key}: .*unknown (term|key)"):
        split_overrides({key: 3.0}, [load_recipe("ddm")])
