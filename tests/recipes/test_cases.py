"""Settings of a recipe for some data sets or numbers of images a class only, and who tells it what is known."""

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from own_helpers import own_recipe

from clreplay import condense
from clreplay.data import DATASETS
from clreplay.incremental.plan import plan_experiment
from clreplay.incremental.settings import ContinualSettings
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.recipes.cases import read_cases
from clreplay.recipes.recipe import PRESETS, RecipeError, load_recipe, training_settings
from clreplay.training.settings import TrainingSettings

SIGNS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}
CASES = """
settings: {noise: 1.0, rank: 1}
cases:
  - {dataset: digits, settings: {noise: 2.0, rank: 2}}
  - {images_per_class: 3, settings: {noise: 3.0}}
  - {dataset: [cifar10, cifar100], images_per_class: [1, "> 5"], settings: {noise: 4.0}}
presets: {smoke: {rank: 9}}
"""


@pytest.fixture
def recipe(tmp_path):
    return load_recipe(own_recipe(tmp_path, yaml=CASES))


def counts_of(value):
    (case,) = read_cases([{"images_per_class": value, "settings": {"noise": 1}}], "here")
    return case


# ---------------------------------------------------------------- which entries apply


@given(st.sampled_from(sorted(SIGNS)), st.integers(2, 60), st.integers(1, 60), st.sampled_from(["", " ", "  "]))
def test_a_range_holds_what_its_sign_says(sign, bound, number, gap):
    assert counts_of(f"{sign}{gap}{bound}").applies(None, number) == SIGNS[sign](number, bound)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.integers(1, 60))
def test_a_list_of_numbers_holds_just_these(numbers, number):
    assert counts_of(numbers).applies(None, number) == (number in numbers)


@given(
    st.sampled_from(sorted(SIGNS)), st.integers(2, 60), st.sampled_from([None, "digits", ["cifar10", "my pictures"]])
)
def test_a_case_applies_to_its_own_examples(sign, bound, dataset):
    entry = {"images_per_class": [f"{sign} {bound}", bound], "settings": {"noise": 1}}
    (case,) = read_cases([{**entry, **({"dataset": dataset} if dataset else {})}], "here")
    examples = list(case.examples())
    assert examples and all(case.applies(*example) for example in examples)


@pytest.mark.parametrize(
    ("dataset", "count", "noise", "rank"),
    [
        (None, None, 1.0, 1),
        ("digits", None, 2.0, 2),
        (None, 3, 3.0, 1),
        ("digits", 3, 3.0, 2),  # both apply: the later one has the last word, the earlier one's rank stays
        ("cifar10", 5, 1.0, 1),
        ("cifar10", 6, 4.0, 1),
        ("cifar100", 1, 4.0, 1),
        ("cifar100", None, 1.0, 1),  # what is not known does not fit
        (None, 1, 1.0, 1),
        ("my pictures", 3, 3.0, 1),
    ],
)
def test_entries_apply_in_order_where_all_they_name_fits(recipe, dataset, count, noise, rank):
    settings = recipe.settings("paper", None, dataset, count)
    assert (settings.noise, settings.rank) == (noise, rank)


def test_the_preset_comes_after_the_cases_and_overrides_come_last(recipe):
    assert recipe.settings("cpu", {}, "digits").rank == 2
    assert recipe.settings("smoke", {}, "digits").rank == 9
    assert recipe.settings("smoke", {"rank": 5, "noise": 7}, "digits", 3) == recipe.method.settings(7.0, 5)


def test_an_entry_that_names_nothing_always_applies(tmp_path):
    assert load_recipe(own_recipe(tmp_path, yaml="cases: [{settings: {rank: 4}}]")).settings().rank == 4


@pytest.mark.parametrize(
    ("dataset", "count", "rate"),
    [
        ("cifar10", 10, 1.0),
        ("cifar10", 99, 1.0),
        ("cifar10", 100, 10.0),
        ("cifar10", 1250, 10.0),
        ("cifar100", 100, 1.0),
        ("cifar10", None, 1.0),
        (None, 100, 1.0),
    ],
)
def test_dm_has_the_authors_rate_for_many_images_of_cifar10(dataset, count, rate):
    assert load_recipe("dm").settings("paper", None, dataset, count).lr_img == rate


@pytest.mark.parametrize("name", ["datadam", "datadam+sm"])
def test_datadam_has_the_authors_lambda_at_high_resolution(name):
    weights = {d: load_recipe(name).settings("paper", None, d).mean_weight for d in (*DATASETS, None)}
    high = {dataset for dataset, weight in weights.items() if weight != 100 * 0.01}
    assert high == {"imagenette", "imagewoof", "imagenette1k", "imagewoof1k"}
    assert {weights[dataset] for dataset in high} == {100 * 0.02}


def test_dd_begins_with_the_authors_step_size_for_cifar10_and_small_presets_with_their_own():
    step_size = {(p, d): load_recipe("dd").settings(p, None, d).step_size for p in PRESETS for d in (*DATASETS, None)}
    assert step_size["paper", "cifar10"] == 0.001
    assert {size for (preset, dataset), size in step_size.items() if preset == "paper" and dataset != "cifar10"} == {
        0.02
    }
    assert {size for (preset, _), size in step_size.items() if preset != "paper"} == {0.1}


# ---------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("{dataset: digits}", r"cases must be a list of entries like \{dataset: cifar10, .*got \{'dataset': 'digits'"),
        ("[digits]", r"entry 1: must be a mapping, entries like .*got 'digits'"),
        ("[{settings: {rank: 1}}, {dataset: digits}]", r"entry 2: settings must be a mapping .*got None"),
        ("[{settings: {}}]", r"entry 1: settings must be a mapping .*got \{\}"),
        ("[{settings: [rank]}]", r"entry 1: settings must be a mapping .*got \['rank'\]"),
        ("[{data_set: digits, settings: {rank: 1}}]", r"unknown key 'data_set', did you mean 'dataset'\? Allowed: dat"),
        ("[{1: digits, settings: {rank: 1}}]", r"unknown key 1\. Allowed: dataset, images_per_class, settings"),
        ("[{dataset: 10, settings: {rank: 1}}]", "dataset must be a name such as cifar10, .* a list of names, got 10"),
        ("[{dataset: null, settings: {rank: 1}}]", "dataset must be a name .* got None"),
        ("[{dataset: [], settings: {rank: 1}}]", "dataset must name at least one value, got an empty list"),
        ("[{dataset: CIFAR-10, settings: {rank: 1}}]", "dataset 'CIFAR-10' is written 'cifar10'"),
        ("[{images_per_class: 0, settings: {rank: 1}}]", "images_per_class must be a whole number .* got 0"),
        ("[{images_per_class: true, settings: {rank: 1}}]", "images_per_class must be .* got True"),
        ("[{images_per_class: 2.5, settings: {rank: 1}}]", "images_per_class must be .* got 2.5"),
        ("[{images_per_class: '< 1', settings: {rank: 1}}]", "images_per_class must be .* got '< 1'"),
        ("[{images_per_class: '=> 1', settings: {rank: 1}}]", "images_per_class must be .* got '=> 1'"),
        ("[{images_per_class: [1, many], settings: {rank: 1}}]", "images_per_class must be .* got 'many'"),
        ("[{dataset: digits, settings: {ranc: 1}}]", r"entry 1: unknown key 'ranc', did you mean 'rank'\? Allowed: no"),
        ("[{dataset: digits, settings: {rank: one}}]", "entry 1: rank must be int, got 'one'"),
    ],
)
def test_a_wrong_entry_is_told_with_file_entry_and_what_is_allowed(entries, message, tmp_path):
    with pytest.raises(RecipeError, match=message) as error:
        load_recipe(own_recipe(tmp_path, yaml=f"cases: {entries}"))
    assert str(error.value).startswith(str(tmp_path / "noisy.yaml"))


def test_a_value_that_the_method_refuses_is_told_on_loading_whatever_is_asked_for(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text('method: herding\ncases: [{dataset: [x, y], images_per_class: "> 7", settings: {epochs: 0}}]\n')
    with pytest.raises(RecipeError, match=r"mine.yaml: cases: entry 1: epochs must be at least 1, got 0"):
        load_recipe(path)


def test_settings_that_are_right_only_together_may_come_in_two_entries(tmp_path):
    code = """
    from dataclasses import dataclass
    from clreplay.condensation import Condensed, register

    @dataclass(frozen=True)
    class Between:
        low: int = 1
        high: int = 2

        def __post_init__(self):
            if self.low > self.high:
                raise ValueError(f"low must not exceed high ({self.high}), got {self.low}")

    @register("noisy", Between)
    def noisy(real, counts, settings, *, seed, device, progress=None, keep=None):
        return Condensed({label: real.raw(label)[: counts[label]] for label in real.classes})
    """
    entries = "[{dataset: digits, settings: {high: 9}}, {dataset: digits, images_per_class: 1, settings: {low: 5}}]"
    recipe = load_recipe(own_recipe(tmp_path, code=code, yaml=f"cases: {entries}"))
    assert recipe.settings("paper", None, "digits", 1).low == 5
    swapped = "[{dataset: digits, images_per_class: 1, settings: {low: 5}}]"
    with pytest.raises(RecipeError, match=r"entry 1: low must not exceed high \(2\), got 5"):
        load_recipe(own_recipe(tmp_path, code=code, yaml=f"cases: {swapped}"))


def learner_s_recipe(folder, monkeypatch, text):
    (folder / "training.yaml").write_text(text)
    monkeypatch.setattr("clreplay.recipes.recipe.strategies_dir", lambda: folder)


def test_the_learner_s_recipe_may_have_cases_too(tmp_path, monkeypatch):
    entries = '[{dataset: digits, settings: {lr: 0.5, epochs: 7}}, {images_per_class: "> 5", settings: {lr: 0.25}}]'
    learner_s_recipe(tmp_path, monkeypatch, f"cases: {entries}\npresets: {{smoke: {{epochs: 2}}}}\n")
    assert training_settings() == TrainingSettings()
    assert training_settings("paper", None, "digits", 5) == TrainingSettings(lr=0.5, epochs=7)
    assert training_settings("smoke", {}, "digits", 6) == TrainingSettings(lr=0.25, epochs=2)
    assert training_settings("smoke", {"lr": 1.0, "epochs": 9}, "digits", 6) == TrainingSettings(lr=1.0, epochs=9)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("[{dataset: mnist, settings: {ranc: 1}}]", r"training.yaml: cases: entry 1: unknown key 'ranc'"),
        ("[{settings: {lr: 1}}, {dataset: mnist, settings: {lr: 0.0}}]", "entry 2: lr must be positive, got 0.0"),
        ("[{dataset: MNIST, settings: {lr: 1}}]", "training.yaml: cases: entry 1: dataset 'MNIST' is written 'mnist'"),
    ],
)
def test_a_wrong_entry_of_the_learner_is_told_whatever_is_asked_for(entries, message, tmp_path, monkeypatch):
    learner_s_recipe(tmp_path, monkeypatch, f"cases: {entries}\n")
    with pytest.raises(RecipeError, match=message):
        training_settings()


# ---------------------------------------------------------------- who tells what is known


@pytest.mark.parametrize(
    ("budget", "noise", "rank"), [({"images_per_class": 3}, 3.0, 2), ({"images_per_class": 4}, 2.0, 2),
                                  ({"mem_size": 30}, 2.0, 2)]
)  # fmt: skip
def test_an_experiment_knows_its_data_set_and_a_fixed_quota(tmp_path, budget, noise, rank):
    path = str(own_recipe(tmp_path, yaml=CASES))
    made = plan_experiment(ContinualSettings("digits", (path,), preset="paper", device="cpu", host="none", **budget))
    assert made.as_settings()["memories"]["noisy"]["settings"] == {"noise": noise, "rank": rank}


def test_the_default_quota_of_an_experiment_counts_too(tmp_path):
    path = str(own_recipe(tmp_path, yaml="cases: [{images_per_class: 20, settings: {rank: 8}}]"))
    made = plan_experiment(ContinualSettings("digits", (path,), preset="smoke", device="cpu", host="none"))
    assert made.methods["noisy"].settings.rank == 8


def test_condense_knows_the_quota_and_the_name_it_is_given(tmp_path, pixels):
    path = own_recipe(tmp_path, yaml=CASES)
    images, labels = pixels()

    def told(**options):
        (row,) = condense(images, labels, path, normalization="cifar10", **options).record
        return row["noise"], row["rank"]

    assert told(images_per_class=3, dataset="digits") == (3.0, 2)
    assert told(images_per_class=3) == (3.0, 1)
    assert told(images_per_class=6, dataset="cifar100") == (4.0, 1)
    assert told(images_per_class=6, dataset="cifar100", noise=0.25, preset="smoke") == (0.25, 9)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_plugin_knows_a_fixed_quota_wherever_it_comes_from(tmp_path, preset):
    from plugin_helpers import CondensedReplayPlugin  # it silences Avalanche's warnings

    path = own_recipe(tmp_path, yaml=CASES)
    for options, noise in (
        ({"images_per_class": 3}, 3.0),
        ({"images_per_class": 4}, 1.0),
        ({"mem_size": 3}, 1.0),
        ({"memory": ReplayMemory(images_per_class=3)}, 3.0),
    ):
        assert CondensedReplayPlugin(path, preset=preset, **options).settings.noise == noise


def test_the_plugin_knows_the_data_set_that_it_is_told(tmp_path):
    from plugin_helpers import CondensedReplayPlugin  # it silences Avalanche's warnings

    path = own_recipe(tmp_path, yaml=CASES)

    def told(**options):
        settings = CondensedReplayPlugin(path, **options).settings
        return settings.noise, settings.rank

    assert told(images_per_class=4) == (1.0, 1)
    assert told(images_per_class=4, dataset="digits") == (2.0, 2)
    assert told(images_per_class=6, dataset="cifar100") == (4.0, 1)
    assert told(mem_size=6, dataset="cifar100") == (1.0, 1)  # no one number of images a class
    assert told(mem_size=6, dataset="my own") == (1.0, 1)
    assert told(images_per_class=4, dataset="digits", noise=0.25, preset="smoke") == (0.25, 9)
    with pytest.raises(ValueError, match="dataset 'CIFAR-100' is written 'cifar100'"):
        told(images_per_class=4, dataset="CIFAR-100")


@pytest.mark.parametrize("call", ["plugin", "condense", "plan"])
def test_a_quota_that_is_no_number_is_told_as_ever(call, tmp_path, pixels):
    path = own_recipe(tmp_path, yaml=CASES)
    with pytest.raises(ValueError, match="images_per_class must be an integer of at least 1, got '3'"):
        if call == "condense":
            condense(*pixels(), path, images_per_class="3")
        elif call == "plan":
            plan_experiment(ContinualSettings("digits", (str(path),), "3", preset="smoke", device="cpu", host="none"))
        else:
            from plugin_helpers import CondensedReplayPlugin  # it silences Avalanche's warnings

            CondensedReplayPlugin(path, images_per_class="3")
