"""Recipes: what is shipped, and what a wrong file, key or value is answered."""

from dataclasses import asdict

import pytest
import yaml

from clreplay.condensation import METHODS
from clreplay.recipes.overrides import parse_set, split_overrides
from clreplay.recipes.recipe import PRESETS, RecipeError, load_recipe, recipe_names, strategies_dir, training_settings
from clreplay.training.settings import TrainingSettings

# ---------------------------------------------------------------- what is shipped


def test_the_line_up_is_shipped_and_training_is_not_a_memory():
    assert {"ddm", "dm", "herding", "random"} <= set(recipe_names())
    assert "training" not in recipe_names()
    assert recipe_names() == sorted(recipe_names())


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_is_valid_in_every_preset(name, preset):
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.label and recipe.content["source"]
    assert isinstance(recipe.settings(preset), METHODS[recipe.content["method"]].settings)
    assert set(recipe.content["presets"]) == set(PRESETS) and recipe.content["presets"]["paper"] == {}


def test_the_learner_s_recipe_is_the_default():
    content = yaml.safe_load((strategies_dir() / "training.yaml").read_text(encoding="utf-8"))
    assert content["presets"]["paper"] == {}
    assert training_settings() == TrainingSettings()


@pytest.mark.parametrize("name", ["dm", "ddm"])
def test_matching_recipes_have_the_paper_s_numbers(name):
    paper = asdict(load_recipe(name).settings())
    expected = {
        "width": 128,
        "depth": None,
        "norm": "instance",
        "iterations": 20_000,
        "lr_img": 1.0,
        "momentum_img": 0.5,
        "real_batch": 256,
        "init": "real",
        "siamese_augment": "color_crop_cutout_flip_scale_rotate",
        "network_reuse": 1,
        "mean_weight": 1.0,
        "style_weight": 5000.0 if name == "ddm" else 0.0,
        "alpha": 1.0,
        "correlation": 1.0,
        "diversity_weight": 10.0 if name == "ddm" else 0.0,
        "neighbours": 0.2,
        "sigma_of": "image",
        "spread": "std",
        "moment_channels": "mean",
        "gram_quarter": False,
        "style_layers": None,
        "diversity_reduction": "mean",
        "detach_neighbours": False,
    }
    assert {key: paper[key] for key in expected} == expected


def test_the_learner_has_the_protocol_s_numbers():
    paper = training_settings("paper")
    assert (paper.epochs, paper.updates, paper.lr, paper.lr_drop) == (1000, None, 0.01, 0.1)
    assert (paper.momentum, paper.weight_decay, paper.batch_size, paper.width) == (0.9, 5e-4, 256, 128)


def test_dm_and_ddm_differ_in_the_added_terms_alone():
    for preset in PRESETS:
        ddm, dm = (asdict(load_recipe(name).settings(preset)) for name in ("ddm", "dm"))
        assert {key for key in ddm if ddm[key] != dm[key]} == {"style_weight", "diversity_weight"}


def test_herding_does_not_drop_its_learning_rate_and_flips_and_crops():
    herding = load_recipe("herding").settings()
    assert (herding.epochs, herding.lr_drop, herding.augment, herding.unit_features) == (50, 1.0, "crop+flip", False)


@pytest.mark.parametrize("preset", ["cpu", "smoke"])
def test_small_presets_scale_training_by_updates(preset):
    assert training_settings(preset).updates and load_recipe("herding").settings(preset).updates
    assert load_recipe("ddm").settings(preset).iterations < 1000


# ---------------------------------------------------------------- what is wrong


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_of_one_s_own_is_read_from_its_path(tmp_path):
    path = write(tmp_path, "method: matching\nsettings: {iterations: 7}\npresets: {smoke: {iterations: 2}}\n")
    recipe = load_recipe(path)
    assert (recipe.name, recipe.label) == ("mine", "mine")
    assert recipe.settings().iterations == recipe.settings("cpu").iterations == 7
    assert recipe.settings("smoke").iterations == 2
    assert recipe.settings("smoke", {"iterations": 3}).iterations == 3
    assert load_recipe(str(path)).settings() == recipe.settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: matching\nsettings: {iteration: 7}", r"'iteration', did you mean 'iterations'\? Allowed: .*lr_img"),
        ("method: matching\nsettings: {zzz: 7}", r"unknown key 'zzz'\. Allowed: "),
        ("method: matching\nsettings: {1: 7}", "unknown key 1. Allowed: "),
        ("method: matching\nsettings: {iterations: seven}", "iterations must be int, got 'seven'"),
        ("method: matching\nsettings: {iterations: 7.5}", "iterations must be int, got 7.5"),
        ("method: matching\nsettings: {iterations: true}", "iterations must be int, got True"),
        ("method: matching\nsettings: {lr_img: '1'}", "lr_img must be float, got '1'"),
        ("method: matching\nsettings: {lr_img: .nan}", "lr_img must be float, got nan"),
        ("method: matching\nsettings: {lr_img: .inf}", "lr_img must be float, got inf"),
        ("method: matching\nsettings: {lr_img: null}", "lr_img must be float, got None"),
        ("method: matching\nsettings: {gram_quarter: 1}", r"terms.style.quarter \(gram_quarter\) must be bool, got 1"),
        ("method: matching\nsettings: {depth: [3]}", r"depth must be int or null, got \[3\]"),
        (
            "method: matching\nsettings: {style_layers: 1}",
            r"terms.style.layers \(style_layers\) must be tuple or null, got 1",
        ),
        (
            "method: matching\nsettings: {style_layers: [a]}",
            r"terms.style.layers \(style_layers\) must be int, got 'a'",
        ),
        ("method: matching\nsettings: {init: zeros}", "init must be one of real, noise"),
        ("method: matching\nsettings: {norm: instanse}", "norm must be one of instance"),
        ("method: matching\nsettings: {siamese_augment: blur}", "siamese_augment must join operators"),
        ("method: matching\nsettings: [1, 2]", r"settings must be a mapping.*\[1, 2\]"),
        ("method: matching\npresets: [cpu]", r"presets must be a mapping.*\['cpu'\]"),
        ("method: matching\npresets: {cpu: 3}", "presets: cpu must be a mapping.*3"),
        ("method: matching\npresets: {laptop: {}, 3: {}}", "presets must be among paper, cpu, smoke, got 3, laptop"),
        ("method: matching\npresets: {smoke: {iterations: 0}}", "iterations must be at least 1, got 0"),
        (
            "method: matching\npreset: {}",
            "unknown key 'preset'. Allowed: base, cases, code, cost, label, method, presets",
        ),
        ("method: machting", "method must be one of .*matching.*, got 'machting'"),
        ("method: [matching]", r"method must be one of .*\['matching'\]"),
        ("settings: {}", "method must be one of .*None"),
        ("- method", "must hold a mapping with the keys"),
        ("", "must hold a mapping with the keys"),
        ("method: {matching", "is not YAML"),
    ],
)
def test_a_malformed_recipe_is_an_error_that_names_file_and_key(text, message, tmp_path):
    with pytest.raises(RecipeError, match=message) as error:
        load_recipe(write(tmp_path, text))
    assert "mine.yaml" in str(error.value)


@pytest.mark.parametrize(
    "key", ["momentum: 1.0", "weight_decay: -1.0", "lr_drop: -0.1", "lr: 0.0", "epochs: 0", "updates: 0"]
)
def test_a_feature_network_that_cannot_be_trained_is_refused(key, tmp_path):
    with pytest.raises(RecipeError, match=rf"mine.yaml: {key.split(':')[0]} must"):
        load_recipe(write(tmp_path, f"method: herding\nsettings: {{{key}}}"))


def test_whole_floats_become_ints_and_ints_floats(tmp_path):
    path = write(tmp_path, "method: matching\nsettings: {iterations: 7.0, lr_img: 2, style_layers: [0, 2.0]}")
    settings = load_recipe(path).settings()
    assert (settings.iterations, settings.lr_img, settings.style_layers) == (7, 2.0, (0, 2))
    assert [type(v) for v in (settings.iterations, settings.lr_img, settings.style_layers[1])] == [int, float, int]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dmm", r"unknown memory 'dmm'; did you mean 'd.*m'\? Known: .*ddm, .*\.yaml recipe"),
        ("DDM", "unknown memory 'DDM'; did you mean 'ddm'"),
        ("herdng", "did you mean 'herding'"),
        ("qqqq", r"unknown memory 'qqqq'\. Known: "),
        ("training", "unknown memory 'training'"),
    ],
)
def test_an_unknown_memory_is_an_error_with_a_suggestion(name, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(name)


def test_an_absent_file_is_an_error(tmp_path):
    with pytest.raises(RecipeError, match="no recipe at .*absent.yaml"):
        load_recipe(tmp_path / "absent.yaml")


def test_an_unknown_preset_is_an_error():
    for resolve in (load_recipe("ddm").settings, training_settings):
        with pytest.raises(RecipeError, match="preset must be one of paper, cpu, smoke, got 'laptop'"):
            resolve("laptop")


# ---------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr_img=0.5", {"lr_img": 0.5}),
        ("lr_img=1e-3", {"lr_img": 1e-3}),
        ("lr_img=1E3", {"lr_img": 1000.0}),
        ("iterations=500", {"iterations": 500}),
        ("style_layers=[0, 1]", {"style_layers": [0, 1]}),
        ("style_layers=null", {"style_layers": None}),
        ("depth=", {"depth": None}),
        ("gram_quarter=true", {"gram_quarter": True}),
        ("augment=crop+flip", {"augment": "crop+flip"}),
        ("augment='none'", {"augment": "none"}),
        (" train.updates = 100 ", {"train.updates": 100}),
        ("label=a=b", {"label": "a=b"}),
    ],
)
def test_set_is_read_as_yaml(text, expected):
    found = parse_set([text])
    assert found == expected
    assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]


def test_the_last_of_two_equal_keys_counts():
    assert parse_set(["a=1", "b=2", "a=3"]) == {"a": 3, "b": 2}


@pytest.mark.parametrize("text", ["lr_img", "=3", " =3", ""])
def test_set_without_a_key_or_a_value_is_an_error(text):
    with pytest.raises(RecipeError, match=f"--set takes key=value, got {text!r}"):
        parse_set([text])


def test_set_that_is_not_yaml_is_an_error():
    with pytest.raises(RecipeError, match=r"--set style_layers: '\[0, 1' is not YAML"):
        parse_set(["style_layers=[0, 1"])


def test_numbers_of_the_form_1e_3_reach_the_settings():
    assert load_recipe("ddm").settings("smoke", parse_set(["lr_img=1e-3", "iterations=1e2"])).iterations == 100


def test_overrides_go_where_they_belong():
    recipes = [load_recipe(name) for name in ("ddm", "dm", "herding")]
    overrides = {"train.updates": 9, "iterations": 5, "width": 8, "dm.iterations": 6, "herding.lr": 0.5}
    learner, by_recipe = split_overrides(overrides, recipes)
    assert learner == {"updates": 9}
    assert by_recipe == {
        "ddm": {"iterations": 5, "width": 8},
        "dm": {"iterations": 6, "width": 8},
        "herding": {"width": 8, "lr": 0.5},
    }


def test_a_name_s_own_override_wins_whatever_the_order():
    recipes = [load_recipe(name) for name in ("ddm", "dm")]
    for overrides in ({"dm.iterations": 6, "iterations": 5}, {"iterations": 5, "dm.iterations": 6}):
        assert split_overrides(overrides, recipes)[1] == {"ddm": {"iterations": 5}, "dm": {"iterations": 6}}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("iteratons", r"no chosen memory has a setting 'iteratons', did you mean 'iterations'\?.*train.KEY"),
        ("unit_features", "no chosen memory has a setting 'unit_features'"),
        ("herding.lr", r"'herding' is neither 'train' nor a chosen memory \(ddm, dm\)"),
    ],
)
def test_an_override_that_belongs_nowhere_is_an_error(key, message):
    with pytest.raises(RecipeError, match=message):
        split_overrides({key: 1}, [load_recipe("ddm"), load_recipe("dm")])


def test_a_wrong_override_is_an_error_that_names_the_recipe():
    with pytest.raises(RecipeError, match=r"ddm.yaml: iterations must be int, got 'many'"):
        load_recipe("ddm").settings("smoke", {"iterations": "many"})
    with pytest.raises(RecipeError, match=r"training.yaml: unknown key 'epoch', did you mean 'epochs'\?"):
        training_settings("smoke", {"epoch": 3})
    with pytest.raises(RecipeError, match="training.yaml: norm must be one of"):
        training_settings("smoke", {"norm": "instanse"})
