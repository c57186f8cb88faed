"""Memories that are compositions of terms: what they are made of, their sums, and their names with a plus."""

from dataclasses import asdict, replace

import pytest
import torch
from engines import CPU, assert_same_bytes

from clreplay.analysis.figures import memory_styles
from clreplay.condensation import RealImages
from clreplay.condensation.matching.engine import MatchingEngine
from clreplay.condensation.matching.terms import terms_of
from clreplay.data import NORMALIZATIONS
from clreplay.incremental.run import run_experiment
from clreplay.incremental.run_folder import RunFolder, read_memories, read_results
from clreplay.incremental.settings import ContinualSettings
from clreplay.recipes.overrides import parse_set, split_overrides
from clreplay.recipes.recipe import PRESETS, load_recipe
from clreplay.runtime.progress import Reporter

MEAN, MOMENTS, CORRELATION = {"mean_matching": 1.0}, {"moment_matching": 5000.0}, {"correlation_matching": 5000.0}
ATTENTION, DIVERSITY = {"attention_matching": 100.0}, {"diversity": 10.0}
STYLE_OF_DATADAM = {"moment_matching": 7400.0, "correlation_matching": 7400.0}
COMPOSITIONS = {
    "dm": MEAN,
    "dm+mm": MEAN | MOMENTS,
    "dm+cm": MEAN | CORRELATION,
    "dm+sm": MEAN | MOMENTS | CORRELATION,
    "dm+icd": MEAN | DIVERSITY,
    "ddm": MEAN | MOMENTS | CORRELATION | DIVERSITY,
    "datadam": MEAN | ATTENTION,
    "datadam+sm": MEAN | STYLE_OF_DATADAM | ATTENTION,
}
TERMS = ("mean_matching", "moment_matching", "correlation_matching", "diversity", "attention_matching")
NAMES = ("dm+mm", "dm+cm", "dm+sm", "dm+icd", "datadam", "datadam+sm")
TINY = {"width": 4, "depth": 2, "iterations": 2, "real_batch": 7, "lr_img": 0.01}


def settings_of(name, **changes):
    return replace(load_recipe(name).settings(), **{**TINY, **changes})


def alone(term, **changes):
    """Settings under which one term is all there is, with weight one."""
    off = {"mean_weight": 0.0, "style_weight": 0.0, "diversity_weight": 0.0, "attention_weight": 0.0}
    on = {
        "mean_matching": {"mean_weight": 1.0},
        "moment_matching": {"style_weight": 1.0, "correlation": 0.0},
        "correlation_matching": {"style_weight": 1.0, "alpha": 0.0},
        "diversity": {"diversity_weight": 1.0},
        "attention_matching": {"attention_weight": 1.0},
    }
    return settings_of("dm", **{**off, **on[term], **changes})


def condensed(real, settings, count=4):
    return MatchingEngine(real, dict.fromkeys(real.classes, count), settings, 3, CPU).run().images


def movement(real, settings):
    """How far every image moves in the first iteration, in units of the learning rate: minus the gradient."""
    some = MatchingEngine(real, dict.fromkeys(real.classes, 4), settings, 3, CPU)
    some.step()
    return {label: -group.velocity[i] for group in some.groups for i, label in enumerate(group.labels)}


# ---------------------------------------------------------------- what they are made of


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_a_memory_is_the_terms_and_weights_it_says(name):
    assert {term.name: term.weight for term in terms_of(load_recipe(name).settings(), 10)} == COMPOSITIONS[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_composition_moves_images_by_the_weighted_sum_of_its_terms(real, name):
    parts = {term: movement(real, alone(term)) for term in COMPOSITIONS[name]}
    found = movement(real, settings_of(name))
    for label in real.classes:
        expected = sum(weight * parts[term][label] for term, weight in COMPOSITIONS[name].items())
        torch.testing.assert_close(found[label], expected, rtol=1e-3, atol=1e-5)
        shares = [COMPOSITIONS[name][term] * parts[term][label].norm() for term in parts]
        assert min(shares) > 1e-3 * expected.norm(), "every term must be felt, or the sum proves nothing"


def test_the_terms_move_images_each_in_its_own_direction(real):
    moved = {term: torch.cat([part.flatten() for part in movement(real, alone(term)).values()]) for term in TERMS}
    for one in TERMS:
        for other in TERMS:
            likeness = torch.nn.functional.cosine_similarity(moved[one], moved[other], dim=0)
            assert one == other or abs(float(likeness)) < 0.95, (one, other)


def test_what_differs_between_relatives_is_what_their_names_say():
    def differing(one, other, preset="paper"):
        left, right = (asdict(load_recipe(name).settings(preset)) for name in (one, other))
        return {key for key in left if left[key] != right[key]}

    for preset in PRESETS:
        assert differing("dm+sm", "ddm", preset) == {"diversity_weight"}
        assert differing("dm+mm", "dm+sm", preset) == {"correlation"}
        assert differing("dm+cm", "dm+sm", preset) == {"alpha"}
        assert differing("dm+icd", "dm", preset) == {"diversity_weight"}
        assert differing("datadam+sm", "datadam", preset) == {"style_weight"}
    assert differing("datadam", "dm") == {"attention_weight", "iterations"}


def test_the_recipe_of_attention_has_the_paper_s_numbers():
    recipe = load_recipe("datadam")
    paper = recipe.settings()
    assert (paper.attention_weight, paper.mean_weight, paper.attention_power) == (100.0, 100 * 0.01, 4.0)
    assert (paper.attention_layers, paper.norm, paper.iterations) == (None, "instance", 8000)
    assert (paper.lr_img, paper.momentum_img, paper.init) == (1.0, 0.5, "real")
    assert [recipe.settings(images_per_class=count).lr_img for count in (50, 51)] == [1.0, 10.0]


# ---------------------------------------------------------------- equal by construction


def test_ddm_without_diversity_is_dm_sm(real):
    assert_same_bytes(condensed(real, settings_of("dm+sm")), condensed(real, settings_of("ddm", diversity_weight=0.0)))
    assert not torch.equal(condensed(real, settings_of("ddm"))[0], condensed(real, settings_of("dm+sm"))[0])


def test_at_one_image_a_class_ddm_is_dm_sm_and_dm_icd_is_dm(real):
    for one, other in (("ddm", "dm+sm"), ("dm+icd", "dm")):
        assert_same_bytes(condensed(real, settings_of(one), 1), condensed(real, settings_of(other), 1))


def test_a_part_of_style_with_the_other_one_switched_on_is_dm_sm(real):
    whole = condensed(real, settings_of("dm+sm"))
    assert_same_bytes(condensed(real, settings_of("dm+mm", correlation=1.0)), whole)
    assert_same_bytes(condensed(real, settings_of("dm+cm", alpha=1.0)), whole)


@pytest.mark.parametrize("name", NAMES)
def test_a_class_comes_out_the_same_alone_and_the_same_again(pixels, name):
    images, labels = pixels(3, 12)
    settings, mine = settings_of(name), labels == 1
    together = condensed(RealImages(images, labels, NORMALIZATIONS["cifar10"]), settings)
    one = condensed(RealImages(images[mine], labels[mine], NORMALIZATIONS["cifar10"]), settings)
    assert torch.equal(one[1], together[1])
    assert_same_bytes(condensed(RealImages(images, labels, NORMALIZATIONS["cifar10"]), settings), together)


# ---------------------------------------------------------------- names with a plus


def test_overrides_reach_a_memory_with_a_plus_in_its_name():
    recipes = [load_recipe(name) for name in ("dm+sm", "dm", "datadam+sm")]
    _, by_recipe = split_overrides(parse_set(["dm+sm.iterations=6", "datadam+sm.style_weight=1e3"]), recipes)
    assert by_recipe == {"dm+sm": {"iterations": 6}, "dm": {}, "datadam+sm": {"style_weight": 1000.0}}


def test_a_run_of_memories_with_a_plus_leaves_everything_under_their_names_and_goes_on(tmp_path):
    names = ("dm+sm", "datadam+sm")
    tiny = {"width": 4, "iterations": 1, "real_batch": 8, "train.width": 4, "train.updates": 2}
    settings = ContinualSettings(
        dataset="digits", memories=names, images_per_class=1, steps=2, preset="smoke", host="none", device="cpu",
        overrides=tiny,
    )  # fmt: skip
    folder = run_experiment(settings, tmp_path / "a+b", Reporter(None))
    assert {f"memory-{name}.safetensors" for name in names} <= {path.name for path in folder.iterdir()}
    rows = read_results(folder)
    assert {*rows.memory} == {*names} and len(rows) == 4
    memories = read_memories(folder)
    assert {name: memory.info["method"] for name, memory in memories.items()} == {name: name for name in names}
    assert all(len(memory) == 10 for memory in memories.values())
    before = RunFolder(folder).results_file.read_bytes()
    assert run_experiment(settings, folder, Reporter(None)) == folder
    assert RunFolder(folder).results_file.read_bytes() == before
    assert len({*memory_styles(names).values()}) == 2
