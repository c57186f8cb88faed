"""What the plugin puts into its memory: budgets, pixel codes, sharing, condensers, and what it refuses."""

import logging
import math

import numpy as np
import pytest
import torch
from plugin_helpers import (
    AUGMENTING,
    CIFAR10,
    TO_TENSOR,
    Counting,
    Spy,
    ddm_replay,
    memory_bytes,
    nc,
    one_per_dataset,
    plain_benchmark,
    random_replay,
    run,
    strategy,
    toy_pixels,
    weights,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import Compose, Normalize, ToTensor

from clreplay import DDMReplayPlugin, ReplayMemory, condense
from clreplay.condensation import METHODS, Condensed, RealImages, condense_experience
from clreplay.condensation.configured import ConfiguredMethod
from clreplay.data import Normalization
from clreplay.plugin.replay import CondensedReplayPlugin
from clreplay.recipes.recipe import load_recipe

UNKNOWN = Normalization((0.5, 0.4, 0.3), (0.3, 0.2, 0.1))
UNKNOWN_TRANSFORM = Compose([ToTensor(), Normalize(UNKNOWN.mean, UNKNOWN.std)])
HERDING = {"epochs": 1, "width": 4, "depth": 1}
MATCHING = {"iterations": 2, "width": 4, "depth": 1, "real_batch": 4}


class FirstImages:
    """A condenser of one's own: the first images of every class; notes its calls."""

    __name__ = "first"

    def __init__(self):
        self.calls = []

    def __call__(self, real, counts, settings, *, seed, device, progress=None):
        self.calls.append({"classes": real.classes, "settings": settings, "seed": seed, "device": device})
        if progress is not None:
            progress(1, 1, "look")
        return Condensed({label: real.raw(label)[: counts[label]] for label in real.classes})


# ---------------------------------------------------------------- pixel codes


@pytest.mark.parametrize("benchmark", [plain_benchmark, nc], ids=["plain", "task-aware"])
def test_real_images_keep_their_pixel_codes(benchmark):
    images, labels = toy_pixels()
    plugin = random_replay(3)
    run(benchmark((images, labels), train=AUGMENTING), plugin)
    assert plugin.memory.normalization == CIFAR10
    for label in range(4):
        slot = plugin.memory.slots[label]
        assert slot.codes.dtype == torch.uint8 and slot.scale is None
        ours, real = ({code.numpy().tobytes() for code in codes} for codes in (slot.codes, images[labels == label]))
        assert len(ours) == 3 and ours <= real
    assert plugin.memory.memory_bytes == 4 * 3 * 3 * 8 * 8


def test_plain_pixels_in_the_unit_interval_are_recognised():
    plugin = random_replay()
    run(plain_benchmark(evaluation=ToTensor()), plugin)
    assert plugin.memory.normalization == Normalization((0.0,) * 3, (1.0,) * 3)


def test_transforms_that_are_not_recognised_leave_floats():
    images, labels = toy_pixels()
    plugin = random_replay()
    run(plain_benchmark((images, labels), evaluation=UNKNOWN_TRANSFORM), plugin)
    assert plugin.memory.normalization is None
    for label in range(4):
        slot, real = plugin.memory.slots[label], UNKNOWN.apply(images[labels == label])
        for image, scale in zip(plugin.memory.class_images(label), slot.scale):
            nearest = (real - image).abs().amax((2, 3)).amin(0)
            assert (nearest <= scale / 2 + 1e-5).all()


def test_a_normalisation_that_is_told_is_recognised():
    plugin = random_replay(memory=ReplayMemory(2, normalization=UNKNOWN))
    run(plain_benchmark(evaluation=UNKNOWN_TRANSFORM), plugin)
    assert all(slot.scale is None for slot in plugin.memory.slots.values())
    assert plugin.memory.normalization == UNKNOWN


def test_a_normalisation_that_is_told_wrongly_is_put_right():
    plugin = random_replay(memory=ReplayMemory(2, normalization=UNKNOWN))
    run(plain_benchmark(), plugin)
    assert plugin.memory.normalization == CIFAR10
    assert all(slot.scale is None for slot in plugin.memory.slots.values())


def test_an_experience_with_other_transforms_is_held_as_floats():
    first, second = (
        (images, labels + 2 * step) for step, (images, labels) in enumerate(toy_pixels(2, seed=s) for s in (0, 1))
    )
    one, other = one_per_dataset(first), one_per_dataset(second, evaluation=UNKNOWN_TRANSFORM)
    plugin = random_replay()
    trained = strategy(plugin)
    trained.train(one.train_stream[0])
    trained.train(other.train_stream[0])
    assert [slot.scale is None for slot in plugin.memory.slots.values()] == [True, True, False, False]
    assert plugin.memory.normalization == CIFAR10


@pytest.mark.parametrize(("name", "settings"), [("random", {}), ("herding", HERDING), ("ddm", MATCHING)])
@pytest.mark.parametrize("benchmark", [plain_benchmark, nc], ids=["plain", "task-aware"])
def test_reading_floats_gives_the_bytes_that_pixel_codes_give_without_avalanche(benchmark, name, settings):
    images, labels = toy_pixels()
    plugin = CondensedReplayPlugin(name, 3, preset="paper", seed=5, **settings)
    run(benchmark((images, labels), train=AUGMENTING), plugin)
    memory, recipe = ReplayMemory(3, normalization=CIFAR10), load_recipe(name)
    for classes in ((0, 1), (2, 3)):
        rows = torch.isin(labels, torch.tensor(classes))
        real = RealImages(images[rows], labels[rows], CIFAR10)
        chosen = recipe.configured("paper", settings)
        condense_experience(memory, real, chosen, seed=5, device=torch.device("cpu"))
    assert memory_bytes(plugin.memory) == memory_bytes(memory)


@pytest.mark.parametrize(("name", "settings"), [("random", {}), ("ddm", MATCHING)])
def test_a_class_comes_out_as_condensing_all_at_once_makes_it(name, settings):
    images, labels = toy_pixels()
    plugin = CondensedReplayPlugin(name, 3, seed=5, **settings)
    run(plain_benchmark((images, labels)), plugin)
    whole = condense(images, labels, name, 3, normalization="cifar10", seed=5, device="cpu", **settings)
    for label in range(4):
        assert torch.equal(plugin.memory.class_images(label), whole.class_images(label))


def test_the_memory_holds_no_view_of_the_data_set():
    # Trap: buffers of indices pin the whole source data set in memory and in checkpoints.
    plugin = random_replay()
    run(plain_benchmark(), plugin)
    for slot in plugin.memory.slots.values():
        assert slot.codes.untyped_storage().nbytes() == slot.codes.numel()


# ---------------------------------------------------------------- budgets


def test_a_fixed_quota_never_touches_old_classes():
    plugin = random_replay(3)
    trained = strategy(plugin)
    stream = plain_benchmark().train_stream
    trained.train(stream[0])
    before = plugin.memory.class_images(0).clone()
    trained.train(stream[1])
    assert torch.equal(plugin.memory.class_images(0), before)


@pytest.mark.parametrize("store", ["uint8", "2bit", "png"])
@pytest.mark.parametrize("replay", [random_replay, ddm_replay])
def test_a_budget_in_bytes_holds_at_every_experience(replay, store):
    plugin = replay(mem_bytes=5_000, store=store, augment=None)
    trained, sizes = strategy(plugin, train_epochs=1), []
    for experience in plain_benchmark().train_stream:
        trained.train(experience)
        sizes.append((len(plugin.memory.classes), plugin.memory.memory_bytes))
    assert [classes for classes, _ in sizes] == [2, 4] and all(0 < size <= 5_000 for _, size in sizes)
    assert all(1 <= slot.bytes <= 5_000 // 4 for slot in plugin.memory.slots.values())


@pytest.mark.parametrize("replay", [random_replay, ddm_replay])
def test_a_total_budget_shrinks_the_quotas_as_classes_arrive(replay):
    # Trap: re-selecting when the quota shrinks keeps images that are not a prefix of the earlier choice.
    plugin, spy = replay(mem_size=10, augment=None), Spy()
    trained = strategy(plugin, spy, train_epochs=1)
    stream = plain_benchmark().train_stream
    trained.train(stream[0])
    before = {label: plugin.memory.class_images(label).clone() for label in (0, 1)}
    trained.train(stream[1])
    assert [spy.labels(step).bincount().tolist() for step in (0, 1)] == [[5, 5], [3, 3, 2, 2]]
    for label, count in ((0, 3), (1, 3)):
        assert torch.equal(plugin.memory.class_images(label), before[label][:count])


def test_a_budget_smaller_than_the_classes_is_refused_and_nothing_is_lost():
    plugin = random_replay(mem_size=3)
    trained = strategy(plugin)
    stream = plain_benchmark().train_stream
    trained.train(stream[0])
    before, learned = memory_bytes(plugin.memory), weights(trained.model)
    with pytest.raises(ValueError, match=r"mem_size must be at least the number of classes seen \(4\), got 3"):
        trained.train(stream[1])
    assert memory_bytes(plugin.memory) == before
    assert torch.equal(weights(trained.model), learned)


# ---------------------------------------------------------------- one memory for several strategies


@pytest.mark.parametrize("benchmark", [plain_benchmark, nc], ids=["plain", "task-aware"])
def test_strategies_that_share_a_memory_condense_once(benchmark):
    condenser, memory, evaluation = FirstImages(), ReplayMemory(2), Counting(TO_TENSOR)
    plugins = [CondensedReplayPlugin(condenser, memory=memory, training_seed=seed) for seed in (0, 1)]
    strategies = [strategy(plugin) for plugin in plugins]
    for experience in benchmark(evaluation=evaluation).train_stream:
        for trained in strategies:
            trained.train(experience)
    assert [call["classes"] for call in condenser.calls] == [[0, 1], [2, 3]]
    assert evaluation.calls == 40, "every image is read once, not once a strategy"
    assert plugins[0].seen == plugins[1].seen == [0, 1, 2, 3]
    assert not torch.equal(*(weights(trained.model) for trained in strategies))


def test_a_second_strategy_after_the_first_trains_on_the_classes_it_has_seen_itself():
    benchmark, memory = plain_benchmark(), ReplayMemory(2)
    spies = [Spy(), Spy()]
    networks = [weights(run(benchmark, random_replay(memory=memory), spy).model) for spy in spies]
    assert [set(spies[1].labels(step).tolist()) for step in (0, 1)] == [{0, 1}, {0, 1, 2, 3}]
    assert torch.equal(spies[0].images(0), spies[1].images(0))
    assert len(networks) == 2


def test_a_memory_that_was_condensed_before_is_used_step_by_step():
    images, labels = toy_pixels()
    memory = condense(images, labels, "ddm", 2, normalization="cifar10", device="cpu", **MATCHING)
    condenser, spy = FirstImages(), Spy()
    before = memory_bytes(memory)
    run(plain_benchmark((images, labels)), CondensedReplayPlugin(condenser, memory=memory, augment=None), spy)
    assert condenser.calls == []
    assert memory_bytes(memory) == before
    assert [set(spy.labels(step).tolist()) for step in (0, 1)] == [{0, 1}, {0, 1, 2, 3}]
    assert {row.numpy().tobytes() for row in spy.images(0)} == {row.numpy().tobytes() for row in memory.images[:4]}


def test_a_list_of_classes_that_is_set_from_outside_is_not_written_to():
    stream = plain_benchmark().train_stream
    first, second = random_replay(), random_replay()
    strategy(first).train(stream[0])
    classes = [0, 1]
    second.memory, second.seen, second.experiences = first.memory, classes, 1
    strategy(second).train(stream[1])
    assert second.seen == [0, 1, 2, 3]
    assert classes == [0, 1]


def test_condensing_takes_no_time_where_the_memory_has_the_classes():
    benchmark, memory = plain_benchmark(), ReplayMemory(2)
    plugins = [random_replay(memory=memory), random_replay(memory=memory)]
    for plugin in plugins:
        run(benchmark, plugin)
    assert plugins[0].condense_seconds > 0
    assert plugins[1].condense_seconds == 0


def test_a_memory_with_half_an_experience_is_refused():
    images, labels = toy_pixels()
    memory = condense(images[labels == 0], labels[labels == 0], "random", 2, normalization="cifar10")
    with pytest.raises(ValueError, match=r"holds some classes of the experience but not \[1\]; use another memory"):
        run(plain_benchmark((images, labels)), random_replay(memory=memory))


# ---------------------------------------------------------------- condensers and their settings


def test_a_condenser_of_one_s_own_gets_settings_seed_device_and_progress():
    condenser, progress = FirstImages(), []
    plugin = CondensedReplayPlugin(
        condenser, 2, seed=4, device="cpu", temperature=3, progress=lambda *told: progress.append(told)
    )
    run(plain_benchmark(), plugin)
    assert condenser.calls == [
        {"classes": classes, "settings": {"temperature": 3}, "seed": 4, "device": torch.device("cpu")}
        for classes in ([0, 1], [2, 3])
    ]
    assert progress == [(1, 1, "look")] * 2
    assert plugin.name == "first"


def test_the_device_to_condense_on_need_not_be_the_strategy_s():
    condenser = FirstImages()
    run(plain_benchmark(), CondensedReplayPlugin(condenser, 2, device="meta"))
    assert {call["device"].type for call in condenser.calls} == {"meta"}


def test_settings_of_the_recipe_are_keywords():
    plugin = CondensedReplayPlugin("dm", 2, preset="smoke", iterations=3, lr_img=0.5)
    assert (plugin.settings.iterations, plugin.settings.lr_img) == (3, 0.5)
    assert plugin.settings.width == load_recipe("dm").settings("smoke").width


def test_a_recipe_of_one_s_own_is_a_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("method: matching\nsettings: {iterations: 2, width: 4, depth: 1, real_batch: 4, init: noise}\n")
    plugin = CondensedReplayPlugin(path, 2)
    run(plain_benchmark(), plugin)
    assert plugin.name == "mine"
    assert len(plugin.memory) == 8


def test_the_ddm_plugin_is_the_ddm_recipe():
    plugin = DDMReplayPlugin(20, preset="paper")
    assert plugin.name == "ddm"
    assert plugin.configured.method is METHODS["matching"]
    assert plugin.settings == load_recipe("ddm").settings("paper")
    assert (plugin.memory.images_per_class, plugin.memory.mem_size) == (20, None)
    assert DDMReplayPlugin(mem_size=2000, preset="cpu").memory.mem_size == 2000


def test_the_seconds_of_condensing_are_told():
    plugin = ddm_replay()
    run(plain_benchmark(), plugin)
    assert 0 < plugin.condense_seconds < math.inf


def test_the_paper_s_length_on_a_cpu_is_warned_of_once(caplog, monkeypatch):
    monkeypatch.setattr("clreplay.recipes.given.LONG_ON_A_CPU", 1)
    with caplog.at_level(logging.WARNING, "clreplay"):
        run(plain_benchmark(), ddm_replay(preset="paper"))
    assert [record.getMessage().split(" is meant")[0] for record in caplog.records] == ["ddm with 2 iterations"]


def test_a_preset_that_nobody_asked_for_is_told_once(caplog, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    plugin = ddm_replay()
    assert plugin.settings == ddm_replay(preset="cpu").settings != ddm_replay(preset="paper").settings
    with caplog.at_level(logging.WARNING, "clreplay"):
        run(plain_benchmark(), plugin)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("ddm: preset 'cpu' was chosen") and "preset='paper' would take" in line
    caplog.clear()
    run(plain_benchmark(), ddm_replay(preset="cpu"))
    assert not caplog.records


def test_a_misspelt_argument_gets_the_nearest():
    with pytest.raises(ValueError, match="unknown argument 'images_per_clas', did you mean 'images_per_class'"):
        DDMReplayPlugin(images_per_clas=3)
    with pytest.raises(ValueError, match="progress must be called with"):
        DDMReplayPlugin(3, progress="bar")


def test_the_constructor_makes_no_images():
    class Sizes(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                Sizes.largest = max(Sizes.largest, result.numel())
            return result

    with Sizes():
        DDMReplayPlugin(20)
        CondensedReplayPlugin("random", mem_size=2000)
    assert Sizes.largest < 32


# ---------------------------------------------------------------- refusals in the constructor


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give either images_per_class or mem_size or"),
        ({"images_per_class": 2, "mem_size": 10}, "give either images_per_class or mem_size or"),
        ({"images_per_class": 0}, "images_per_class must be an integer of at least 1, got 0"),
        ({"mem_size": 2.5}, "mem_size must be an integer of at least 1, got 2.5"),
        ({"images_per_class": 2, "memory": ReplayMemory(2)}, "memory brings its own budget"),
        ({"images_per_class": 2, "seed": 1.5}, "seed must be an integer, got 1.5"),
        ({"images_per_class": 2, "training_seed": "a"}, "training_seed must be an integer, got 'a'"),
        ({"images_per_class": 2, "augment": "colour"}, "augment must join operators of color.*'colour'"),
        ({"images_per_class": 2, "preset": "large"}, "preset must be one of paper, cpu, smoke, got 'large'"),
        (
            {"images_per_class": 2, "iteration": 5},
            "unknown key 'iteration', did you mean 'iterations'.*Allowed:.*lr_img",
        ),
        ({"images_per_class": 2, "iterations": "many"}, "iterations must be int, got 'many'"),
        ({"images_per_class": 2, "iterations": 0}, "iterations must be at least 1, got 0"),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, dict) else "",
)
def test_arguments_that_cannot_be_meant_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CondensedReplayPlugin("ddm", **arguments)


def test_an_unknown_memory_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown memory 'ddn'.*did you mean 'dd.*herding, .*idm"):
        CondensedReplayPlugin("ddn", 2)


def test_seeds_may_come_from_numpy():
    plugin = random_replay(seed=np.int64(3), training_seed=np.int32(4))
    run(plain_benchmark(), plugin)
    assert (plugin.seed, plugin.training_seed) == (3, 4)


# ---------------------------------------------------------------- refusals in the stream: nothing is half done


def refused(trained, experience, message):
    """Training must fail and leave memory and model as they are."""
    plugin = trained.plugins[0]
    before, learned = memory_bytes(plugin.memory), weights(trained.model)
    seen = list(plugin.seen)
    with pytest.raises(ValueError, match=message):
        trained.train(experience)
    assert memory_bytes(plugin.memory) == before
    assert torch.equal(weights(trained.model), learned)
    assert plugin.seen == seen


def overlapping():
    images, labels = toy_pixels(3)
    parts = [torch.isin(labels, torch.tensor(classes)) for classes in ([0, 1], [1, 2])]
    return one_per_dataset(*((images[rows], labels[rows]) for rows in parts))


def with_nothing_in_the_second():
    images, labels = toy_pixels()
    return one_per_dataset((images, labels), (images[:0], labels[:0]))


@pytest.mark.parametrize(
    ("make", "second", "message"),
    [
        (plain_benchmark, 0, r"classes \[0, 1\] have come in an earlier experience.*merge the experiences"),
        (overlapping, 1, r"classes \[1\] have come in an earlier experience"),
        (
            lambda: nc(task_labels=True, class_ids_from_zero_in_each_exp=True),
            1,
            r"classes \[0, 1\].*class_ids_from_zero_in_each_exp=False",
        ),
        (with_nothing_in_the_second, 1, "experience 1 is empty; every experience needs images"),
    ],
    ids=["all classes again", "one class again", "labels from zero in every task", "empty"],
)
def test_an_experience_that_cannot_follow_the_first_is_refused(make, second, message):
    stream, trained = make().train_stream, strategy(random_replay())
    trained.train(stream[0])
    refused(trained, stream[second], message)


def uneven():
    """A transform whose third picture comes out smaller."""
    sizes = iter([8, 8, 4, *[8] * 40])
    return lambda picture: TO_TENSOR(picture.resize([next(sizes)] * 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: None, "must give tensors, got Image; .*eval_transform that ends in ToTensor"),
        (uneven, r"images must share one shape, got \(3, 8, 8\) and \(3, 4, 4\)"),
        (lambda: lambda picture: TO_TENSOR(picture) * float("nan"), "images must be finite"),
    ],
    ids=["pictures", "two sizes", "nan"],
)
def test_images_that_no_memory_can_hold_are_refused(make, message):
    refused(strategy(random_replay()), plain_benchmark(evaluation=make()).train_stream[0], message)


@pytest.mark.parametrize("replay", [random_replay, ddm_replay])
def test_images_may_be_of_another_height_than_width(replay):
    images, labels = toy_pixels(4, 10, size=16)
    plugin = replay(3)
    run(plain_benchmark((images[:, :, :, :8], labels)), plugin)
    assert plugin.memory.images.shape == (12, 3, 16, 8)


@pytest.mark.parametrize("replay", [random_replay, ddm_replay])
def test_a_class_smaller_than_its_quota_is_kept_whole(replay, caplog):
    images, labels = toy_pixels(4, [5, 5, 5, 2])
    plugin = replay(3)
    with caplog.at_level(logging.WARNING, "clreplay"):
        run(plain_benchmark((images, labels)), plugin)
    assert [len(plugin.memory.slots[label]) for label in range(4)] == [3, 3, 3, 2]
    real = {one.numpy().tobytes() for one in images[labels == 3]}
    assert {one.numpy().tobytes() for one in plugin.memory.slots[3].codes} == real
    said = [r.getMessage() for r in caplog.records if "whole" in r.getMessage()]
    assert said == ["class 3: fewer images than the share: kept whole"]


def two_kinds(each=10):
    """The same two classes twice, with other images the second time, beside a new one."""
    images, labels = toy_pixels(3, each)
    first = labels < 2
    return one_per_dataset((images[first], labels[first]), (255 - images, labels))


@pytest.mark.parametrize("replay", [random_replay, ddm_replay])
@pytest.mark.parametrize("mode", ["retrain", "rehearse"])
def test_classes_that_come_back_are_made_of_both(replay, mode):
    spy, plugin = Spy(), replay(4, returning="condense", mode=mode)
    run(two_kinds(), plugin, spy)
    memory = plugin.memory
    assert memory.classes == [0, 1, 2] == plugin.seen and len(memory) == 12
    assert memory.info["stands_for"] == {"0": 20, "1": 20, "2": 10}
    if replay is random_replay:  # two of the first kind and two of the second
        images, labels = toy_pixels(3)
        for label in (0, 1):
            codes = memory.slots[label].codes
            first = [bool((images[labels == label] == code).flatten(1).all(1).any()) for code in codes]
            assert first.count(True) == 2


def test_classes_that_come_back_may_stay_as_they_are(caplog):
    plugin, stream = random_replay(returning="keep"), two_kinds().train_stream
    trained = strategy(plugin)
    trained.train(stream[0])
    before = {label: plugin.memory.slots[label].codes for label in (0, 1)}
    with caplog.at_level(logging.WARNING, "clreplay"):
        trained.train(stream[1])
    assert all(torch.equal(plugin.memory.slots[label].codes, codes) for label, codes in before.items())
    assert plugin.memory.classes == [0, 1, 2]
    assert "classes 0, 1: came back; what is stored stays and the new images are left out" in caplog.text


def three_domains(each=12):
    """The same two classes in three experiences, each with other images."""
    parts = [toy_pixels(2, each, seed=seed) for seed in range(3)]
    return one_per_dataset(*parts)


@pytest.mark.parametrize("replay", [random_replay, ddm_replay])
@pytest.mark.parametrize("mode", ["retrain", "rehearse"])
def test_experiences_share_a_class_and_what_is_stored_is_only_dropped(replay, mode):
    plugin, stream = replay(7, returning="share", mode=mode), three_domains().train_stream
    trained, before = strategy(plugin), {}
    for step, counts in enumerate([[7], [4, 3], [3, 2, 2]]):
        trained.train(stream[step])
        for label in (0, 1):
            sources = plugin.memory.sources(label)
            assert [len(source) for source in sources] == counts
            for number, source in enumerate(sources[:step]):
                assert torch.equal(source.codes, before[label, number][: len(source)])
            before.update({(label, number): source.codes for number, source in enumerate(sources)})
    assert plugin.memory.labels.tolist() == [0] * 7 + [1] * 7 and plugin.seen == [0, 1]


def test_strategies_that_share_a_memory_share_its_experiences():
    first = random_replay(6, returning="share")
    second = random_replay(memory=first.memory, returning="share")
    stream = three_domains().train_stream
    one, two = strategy(first), strategy(second)
    for experience in stream:
        one.train(experience)
        before = memory_bytes(first.memory)
        two.train(experience)
        assert memory_bytes(second.memory) == before
    assert [len(source) for source in second.memory.sources(1)] == [2, 2, 2]


def test_a_plugin_of_its_own_memory_reads_what_another_has_read():
    benchmark = three_domains()
    plugins = [random_replay(6, returning="share", seed=seed) for seed in (0, 1)]
    for plugin in plugins:
        run(benchmark, plugin)
    assert [[len(one) for one in plugin.memory.sources(0)] for plugin in plugins] == [[2, 2, 2]] * 2


def test_a_budget_that_more_experiences_share_than_it_has_images_is_refused_before_any_work():
    plugin, stream = random_replay(2, returning="share"), three_domains().train_stream
    trained = strategy(plugin)
    trained.train(stream[0])
    trained.train(stream[1])
    before = memory_bytes(plugin.memory)
    with pytest.raises(ValueError, match="2 images of class 0 for the 3 experiences in which it came; raise it to at"):
        trained.train(stream[2])
    assert memory_bytes(plugin.memory) == before


def test_a_plugin_goes_on_with_experiences_that_share_a_class():
    stream, unbroken = three_domains().train_stream, random_replay(6, returning="share")
    trained = strategy(unbroken)
    for step in (0, 1):
        trained.train(stream[step])
    state = unbroken.state_dict()
    trained.train(stream[2])
    again = random_replay(6, returning="share")
    again.load_state_dict(state)
    strategy(again).train(stream[2])
    assert memory_bytes(again.memory) == memory_bytes(unbroken.memory)


def test_the_same_experience_again_says_nothing_new():
    plugin, stream = random_replay(returning="condense"), plain_benchmark().train_stream
    trained = strategy(plugin)
    trained.train(stream[0])
    before = memory_bytes(plugin.memory)
    trained.train(stream[0])
    assert memory_bytes(plugin.memory) == before


def test_an_unknown_way_with_returning_classes_is_refused():
    with pytest.raises(ValueError, match="returning must be one of refuse, condense, keep, share, got 'merge'"):
        random_replay(returning="merge")


def test_a_condenser_that_fails_costs_nothing():
    def fail(real, counts, settings, **rest):
        raise ValueError("the power went off")

    trained = strategy(CondensedReplayPlugin(fail, 2))
    stream = plain_benchmark().train_stream
    with pytest.raises(ValueError, match="power"):
        trained.train(stream[0])
    trained.plugins[0].configured = ConfiguredMethod.of_callable(FirstImages())
    trained.train(stream[0])
    assert trained.plugins[0].memory.classes == [0, 1]
