"""Digits are not mirrored: neither where memories are condensed nor where networks are trained on them."""

from dataclasses import asdict, replace

import pytest

from clreplay import condense
from clreplay.benchmark.cells import SEARCH
from clreplay.benchmark.plan import plan as plan_table
from clreplay.benchmark.protocols import PROTOCOLS, search_trainings, training_of
from clreplay.benchmark.request import TableRequest
from clreplay.data import DATASETS
from clreplay.incremental.plan import plan_experiment
from clreplay.incremental.run import run_experiment
from clreplay.incremental.settings import ContinualSettings
from clreplay.recipes.recipe import PRESETS, load_recipe, recipe_names, training_settings
from clreplay.runtime.progress import Reporter
from clreplay.training import augmentation as augment
from clreplay.training.augmentation import DSA_STRATEGY, parse_strategy

DIGITS = ("digits", "mnist", "svhn")
OTHERS = tuple(name for name in DATASETS if name not in DIGITS)
UNMIRRORED = "color_crop_cutout_scale_rotate"


def strategies(settings):
    """The operators of every augmentation that settings name, by the setting's name."""
    values = asdict(settings)
    return {name: parse_strategy(value).names for name, value in values.items() if name.endswith("augment")}


def without_flip(found):
    return {name: tuple(operator for operator in names if operator != "flip") for name, names in found.items()}


# ---------------------------------------------------------------- recipes


@pytest.mark.parametrize("dataset", DIGITS)
@pytest.mark.parametrize("name", recipe_names())
def test_every_memory_of_digits_is_made_without_flip_and_otherwise_as_ever(name, dataset):
    recipe = load_recipe(name)
    for preset in PRESETS:
        for count in (None, 1, 10, 100):
            usual = strategies(recipe.settings(preset, None, None, count))
            assert strategies(recipe.settings(preset, None, dataset, count)) == without_flip(usual)


@pytest.mark.parametrize("dataset", [*OTHERS, "folder:flowers", None])
def test_other_data_is_mirrored_as_ever(dataset):
    used = {name: strategies(load_recipe(name).settings("paper", None, dataset)).values() for name in recipe_names()}
    mirrored = {name for name, found in used.items() if any("flip" in names for names in found)}
    assert mirrored == set(recipe_names()) - {"random", "random+tiles", "forgetting", "dd", "dc"}
    assert training_settings("paper", None, dataset).augment == DSA_STRATEGY


def test_an_augmentation_that_is_asked_for_is_taken():
    for dataset in DIGITS:
        chosen = load_recipe("dsa").settings("cpu", {"siamese_augment": DSA_STRATEGY}, dataset)
        assert (chosen.siamese_augment, chosen.inner_augment) == (DSA_STRATEGY, UNMIRRORED)
        assert training_settings("cpu", {"augment": "crop+flip"}, dataset).augment == "crop+flip"
        assert training_settings("cpu", {"augment": None}, dataset).augment is None


# ---------------------------------------------------------------- class-incremental runs


SMALL = ContinualSettings(
    "digits", ("random",), 3, preset="smoke", device="cpu", networks=1, class_orders=1, steps=2, host="none",
    overrides={"train.width": 4, "train.updates": 40, "train.batch_size": 8},
)  # fmt: skip


def test_a_run_on_digits_condenses_and_trains_without_flip():
    made = plan_experiment(replace(SMALL, memories=("ddm", "dsa"), overrides={}))
    assert made.learner.augment == UNMIRRORED
    assert {method.settings.siamese_augment for method in made.methods.values()} == {UNMIRRORED}
    asked = plan_experiment(replace(SMALL, memories=("ddm",), overrides={"train.augment": DSA_STRATEGY}))
    assert asked.learner.augment == DSA_STRATEGY and asked.methods["ddm"].settings.siamese_augment == UNMIRRORED


@pytest.fixture
def applied(monkeypatch):
    """The names of the operators that are applied to images of a training, one after another."""
    names = []
    for name, operator in dict(augment.OPERATORS).items():
        spy = lambda images, u, name=name, operator=operator: names.append(name) or operator(images, u)  # noqa: E731
        monkeypatch.setitem(augment.OPERATORS, name, spy)
    return names


@pytest.mark.parametrize("host", ["none", "avalanche"])
def test_learners_see_no_mirrored_digit_in_either_host_unless_asked_to(host, applied, tmp_path):
    run_experiment(replace(SMALL, host=host), tmp_path / "run", Reporter(None))
    assert set(applied) == set(UNMIRRORED.split("_"))
    applied.clear()
    overrides = {**SMALL.overrides, "train.augment": DSA_STRATEGY}
    run_experiment(replace(SMALL, host=host, overrides=overrides), tmp_path / "asked", Reporter(None))
    assert set(applied) == set(DSA_STRATEGY.split("_"))


# ---------------------------------------------------------------- the plugin and the function


def test_the_plugin_s_own_augmentation_follows_the_data_set_it_is_told():
    from plugin_helpers import CondensedReplayPlugin  # it silences Avalanche's warnings

    from clreplay import DDMReplayPlugin

    def told(**options):
        return CondensedReplayPlugin("random", 2, **options).augment

    assert told() == told(dataset="fashionmnist") == told(dataset="cifar10") == DSA_STRATEGY
    assert {told(dataset=name) for name in DIGITS} == {UNMIRRORED}
    assert told(dataset="mnist", augment=DSA_STRATEGY) == DSA_STRATEGY
    assert told(dataset="mnist", augment=None) is None
    ddm = DDMReplayPlugin(mem_size=20, dataset="svhn")
    assert (ddm.augment, ddm.settings.siamese_augment) == (UNMIRRORED, UNMIRRORED)
    assert DDMReplayPlugin(2, dataset="svhn", siamese_augment="color").settings.siamese_augment == "color"


def test_condense_follows_the_data_set_it_is_told(pixels):
    def condensed(**options):
        tiny = {"preset": "smoke", "width": 4, "iterations": 8}
        return condense(*pixels(each=20, channels=1), "dm", 2, normalization="mnist", **tiny, **options).images

    unmirrored = condensed(siamese_augment=UNMIRRORED)
    assert condensed(dataset="mnist").equal(unmirrored)
    assert condensed(dataset="fashionmnist").equal(condensed()) and not condensed().equal(unmirrored)


# ---------------------------------------------------------------- the static tables


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dataset", DIGITS)
def test_tables_of_digits_condense_and_train_without_flip_and_call_that_no_reduction(dataset, protocol):
    for one in plan_table(TableRequest("5", (dataset,), (10,), protocol=protocol)):
        assert one.problem == "" and one.reduced == ()
        found = [load_recipe(one.cell.recipe).settings("paper", spec.settings) for spec in one.specs]
        for settings in (*found, *(trained.training.settings for trained in one.trained)):
            assert all("flip" not in names for names in strategies(settings).values())


def test_small_presets_on_digits_differ_from_the_paper_in_no_augmentation():
    for one in plan_table(TableRequest("1", ("digits",), (10,), preset="smoke")):
        assert one.reduced and "augment" not in "; ".join(one.reduced)


def test_an_augmentation_that_is_asked_for_is_taken_in_tables_and_told():
    (one,) = plan_table(TableRequest("1", ("mnist",), (10,), ("dm",), overrides={"train.augment": DSA_STRATEGY}))
    assert one.trained[0].training.settings.augment == DSA_STRATEGY
    assert f"augment {DSA_STRATEGY} (paper {UNMIRRORED})" in "; ".join(one.reduced)
    (one,) = plan_table(
        TableRequest("1", ("mnist",), (10,), ("dm",), protocol="idc", overrides={"train.augment": "flip"})
    )
    assert one.trained[0].training.settings.augment == "flip"


def test_all_real_digits_and_the_search_train_without_flip():
    assert training_of("common", "whole", "ConvNet", "paper", None, "mnist").settings.augment == UNMIRRORED
    assert {one.settings.augment for one in search_trainings({}, "paper", None, "svhn", 50)} == {UNMIRRORED}
    for one in plan_table(TableRequest(SEARCH, ("digits",), methods=("dm", "whole"), architectures=720)):
        assert one.problem == "" and one.reduced == ()
        assert {trained.training.settings.augment for trained in (*one.trained, *one.real)} == {UNMIRRORED}


def test_idc_s_evaluation_mirrors_what_the_common_one_does():
    assert (
        training_of("idc", "dm", "ConvNet", "paper", None, "cifar10").settings.augment == "color_crop_flip_scale_rotate"
    )
    assert training_of("idc", "dm", "ConvNet", "paper", None, "svhn").settings.augment == "color_crop_scale_rotate"
