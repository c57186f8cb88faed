"""What a memory cannot make is told before any work: by a planned run for all of its steps, and wherever it starts."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from own_helpers import own_recipe

from clreplay import condense
from clreplay.condensation import METHODS, RealImages, condense_experience
from clreplay.condensation.configured import ConfiguredMethod
from clreplay.condensation.distillation.settings import UnrolledSettings
from clreplay.condensation.registry import Method
from clreplay.data import NORMALIZATIONS, ImageSet
from clreplay.incremental import plan
from clreplay.incremental.plan import plan_experiment
from clreplay.incremental.run import run_experiment
from clreplay.incremental.settings import ContinualSettings
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.recipes.recipe import load_recipe
from clreplay.runtime.progress import Reporter

CPU = torch.device("cpu")
PICKY = """
from dataclasses import dataclass

from clreplay.condensation import Condensed, register

ASKED = []


@dataclass(frozen=True)
class PickySettings:
    least: int = 0


def check(settings, counts, shape):
    ASKED.append((dict(counts), shape))
    if min(counts.values()) < settings.least:
        raise ValueError(f"picky wants {settings.least} images a class; lower least")


@register("noisy", PickySettings, check=check)
def picky(real, counts, settings, *, seed, device, progress=None, keep=None):
    return Condensed({label: real.raw(label)[: counts[label]] for label in real.classes})
"""
"""A method that refuses few images, and notes what it was asked."""


@pytest.fixture
def picky(tmp_path):
    """The recipe's path, and what its method was asked for."""
    path = own_recipe(tmp_path, code=PICKY)
    return path, load_recipe(path).method.condense.__globals__["ASKED"]


def digits(*memories, **changes):
    return ContinualSettings("digits", memories, preset="paper", device="cpu", host="none", **changes)


# ---------------------------------------------------------------- planned runs


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (digits("random", "dsa", images_per_class=15),
         r"^memory dsa at step 1 of 5, 15 images a class: outer_loops and inner_epochs must be given for 15 images a "
         r"class: .* give them \(outer_loops=..., inner_epochs=...\), or store one of these numbers of images"),
        (digits("dc", mem_size=100), "^memory dc at step 2 of 5, 25 images a class: outer_loops and inner_epochs must"),
        (digits("dc", mem_size=49, steps=2),
         r"^memory dc at step 2 of 2, 4/5 images a class: .* must be given for 5 images a class"),
        (digits("ddm", "dd", images_per_class=3, steps=10),
         "^memory dd at step 1 of 10, 3 images a class: dd learns to tell classes apart and needs at least 2 .*; take "
         "more classes a step, or a memory that works class by class"),
    ],
)  # fmt: skip
def test_what_a_step_cannot_do_is_told_when_the_run_is_planned(settings, message):
    with pytest.raises(ValueError, match=message):
        plan_experiment(settings)


def test_images_without_quadrants_are_told_when_the_run_is_planned(pixels, monkeypatch):
    images, labels = pixels(4, 9, size=9)
    part = ImageSet(images, labels)
    data = SimpleNamespace(name="odd", num_classes=4, train=part, test=part)
    monkeypatch.setattr(plan, "load_dataset", lambda *_, **__: data)
    asked = replace(digits("idm", images_per_class=2, steps=2), dataset="odd")
    with pytest.raises(
        ValueError,
        match="^memory idm at step 1 of 2, 2 images a class: tiles must divide .* 9 x 9, got 2; choose another",
    ):
        plan_experiment(asked)


@pytest.mark.parametrize(
    "settings",
    [
        digits("dsa", "dc", "dd", "idm", images_per_class=10),
        digits("dsa", mem_size=100, steps=1),  # 10 images a class
        digits("dsa", images_per_class=15, overrides={"outer_loops": 3, "inner_epochs": 2}),
        replace(digits("dsa", "dc", images_per_class=15), preset="cpu"),
        digits("dm", images_per_class=3, steps=10),
    ],
)
def test_what_every_step_can_do_is_planned(settings):
    assert plan_experiment(settings).recipes


@pytest.mark.parametrize(
    ("budget", "quotas"),
    [({"mem_size": 25}, [(13, 12), (6, 6), (4, 4), (3, 3), (2, 2)]), ({"images_per_class": 4}, [(4, 4)] * 5)],
)
def test_a_method_of_one_s_own_is_asked_for_every_step_s_classes_and_images(picky, budget, quotas, pixels, monkeypatch):
    path, asked = picky
    part = ImageSet(*pixels(10, 15, size=8))
    data = SimpleNamespace(name="toy", num_classes=10, train=part, test=part)
    monkeypatch.setattr(plan, "load_dataset", lambda *_, **__: data)
    made = plan_experiment(replace(digits(str(path), steps=5, **budget), dataset="toy"))
    expected = [dict(zip(sorted(classes), some)) for classes, some in zip(made.classes(0), quotas)]
    assert asked == [(counts, (3, 8, 8)) for counts in expected]


@pytest.mark.parametrize("host", ["none", "avalanche"])
def test_a_planned_run_asks_for_just_what_it_does(picky, host, tmp_path):
    path, asked = picky
    run_experiment(
        replace(digits(str(path), mem_size=53, steps=5), preset="smoke", host=host, networks=1, class_orders=1,
                overrides={"train.width": 4, "train.updates": 1}),
        tmp_path / "run", Reporter(None),
    )  # fmt: skip
    planned, done = asked[:5], [one for i, one in enumerate(asked[5:]) if i == 0 or one != asked[4 + i]]
    assert planned == done and len({tuple(counts.values()) for counts, _ in planned}) == 5


# ---------------------------------------------------------------- where a memory is made


@pytest.fixture
def real(pixels):
    return RealImages(*pixels(3, 8), NORMALIZATIONS["cifar10"])


def test_an_experience_is_refused_before_any_work_and_leaves_the_memory_as_it_was(picky, real):
    path, asked = picky
    method, memory = load_recipe(path).method, ReplayMemory(3, normalization=real.normalization)
    with pytest.raises(ValueError, match="^method noisy, 3 images a class: picky wants 4 images a class; lower least$"):
        condense_experience(memory, real, ConfiguredMethod(method, method.settings(4)), seed=0, device=CPU)
    assert not memory.slots and asked == [({0: 3, 1: 3, 2: 3}, (3, 8, 8))]
    condense_experience(memory, real, ConfiguredMethod(method, method.settings(3)), seed=0, device=CPU)
    assert len(memory) == 9


def test_condense_tells_it_by_the_memory_s_name(pixels):
    for name, message in (("dsa", "outer_loops and inner_epochs must be given for 3"), ("idm", "9 x 9, got 2")):
        with pytest.raises(ValueError, match=f"^memory {name}, 3 images a class: .*{message}"):
            condense(*pixels(2, 5, size=9), name, 3, normalization="cifar10", preset="paper")


def test_the_plugin_tells_it_by_the_memory_s_name_and_its_experience(picky):
    from plugin_helpers import CondensedReplayPlugin, SmallNet, plain_benchmark, strategy

    path, _ = picky
    first, second = plain_benchmark().train_stream
    plugin = CondensedReplayPlugin("dc", images_per_class=3, preset="paper")
    with pytest.raises(ValueError, match="^memory dc at experience 0, 3 images a class: outer_loops and inner_epochs"):
        strategy(plugin).train(first)
    assert not plugin.memory.slots and plugin.memory.normalization is None and not plugin.seen
    plugin = CondensedReplayPlugin(path, mem_size=14, least=4)
    trained = strategy(plugin, model=SmallNet(), train_epochs=1)
    trained.train(first)
    with pytest.raises(
        ValueError, match="^memory noisy at experience 1, 3 images a class: picky wants 4 images a class"
    ):
        trained.train(second)
    assert plugin.memory.classes == plugin.seen == [0, 1]


def test_a_callable_of_one_s_own_and_a_method_without_limits_are_not_asked(real):
    ConfiguredMethod.of_callable(print, {}).check({0: 1}, (3, 8, 8))
    ConfiguredMethod(Method("mine", object, print), None).check({0: 1}, (3, 7, 7))


def test_the_message_names_every_number_of_images_that_classes_get():
    with pytest.raises(ValueError, match="^method dd, 2 images a class: "):
        ConfiguredMethod(METHODS["dd"], UnrolledSettings()).check({4: 2}, (3, 8, 8))
    refuse = Method(
        "mine",
        object,
        print,
        check=lambda settings, counts, shape: METHODS["dd"].check(UnrolledSettings(), {0: 1}, shape),
    )
    with pytest.raises(ValueError, match="^memory mine, 2/3 images a class: "):
        ConfiguredMethod(refuse, None, name="mine").check({4: 3, 5: 2, 6: 2}, (3, 8, 8))
