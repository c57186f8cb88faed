"""Memories that store something other than the images one trains on: decoders, and everyone who must know of them."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from own_helpers import own_recipe, tiled_recipe
from plugin_helpers import Spy, nc, plain_benchmark, run, strategy
from safetensors.torch import save
from torch.autograd import gradcheck, gradgradcheck

from clreplay import condense
from clreplay.analysis.figures import memory_figure
from clreplay.condensation import METHODS, Condensed, RealImages, condense_experience, register
from clreplay.condensation.configured import ConfiguredMethod
from clreplay.condensation.registry import OWN_METHODS
from clreplay.data import NORMALIZATIONS, ImageSet
from clreplay.incremental import core_host, forecast, recipe_run
from clreplay.incremental.plan import plan_experiment
from clreplay.incremental.run import run_experiment
from clreplay.incremental.settings import ContinualSettings
from clreplay.memory.class_cache import ClassCache
from clreplay.memory.decoders import DECODERS, decoder, register_decoder, tiles2
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.plugin.replay import CondensedReplayPlugin
from clreplay.recipes.recipe import load_recipe
from clreplay.runtime.progress import Reporter
from clreplay.training import settings as training

NORMALIZATION = NORMALIZATIONS["cifar10"]
CPU = torch.device("cpu")


def floats(n, channels=3, size=4, seed=0, dtype=torch.float32):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def codes(n, seed=0):
    chance = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, 4, 4), generator=chance, dtype=torch.uint8)


@pytest.fixture
def tables():
    """Decoders and methods that a test registers are gone after it."""
    before = [(table, dict(table)) for table in (DECODERS, METHODS, OWN_METHODS)]
    yield
    for table, content in before:
        table.clear()
        table.update(content)


# ---------------------------------------------------------------- four images in one


def enlarged_by_hand(quadrant, size):
    """Bilinear enlargement of (h, w) to (size, size), pixel by pixel: output pixel i looks at (i + 0.5) h / size - 0.5
    of the input, and beyond the border there is the border."""
    h, w = quadrant.shape

    def neighbours(position, length):
        place = min(max((position + 0.5) * length / size - 0.5, 0.0), length - 1.0)
        low = int(place)
        return low, min(low + 1, length - 1), place - low

    rows = []
    for y in range(size):
        row = []
        for x in range(size):
            (top, bottom, v), (left, right, u) = neighbours(y, h), neighbours(x, w)
            upper = (1 - u) * quadrant[top, left] + u * quadrant[top, right]
            lower = (1 - u) * quadrant[bottom, left] + u * quadrant[bottom, right]
            row.append((1 - v) * upper + v * lower)
        rows.append(torch.stack(row))
    return torch.stack(rows)


def tiles_by_hand(stored):
    half, images = stored.shape[2] // 2, []
    for image in stored:
        for top in (0, half):
            for left in (0, half):
                quadrant = image[:, top : top + half, left : left + half]
                images.append(torch.stack([enlarged_by_hand(channel, 2 * half) for channel in quadrant]))
    return torch.stack(images)


@pytest.mark.parametrize("size", [2, 4, 6, 10])
def test_tiles_have_the_values_and_gradients_of_a_slow_reference(size):
    stored = floats(2, channels=2, size=size, dtype=torch.float64).requires_grad_()
    weights = floats(8, channels=2, size=size, seed=1, dtype=torch.float64)
    results = []
    for decode in (tiles2, tiles_by_hand):
        images = decode(stored)
        (gradient,) = torch.autograd.grad((weights * images.square()).sum(), stored)
        results.append((images.detach(), gradient))
    for mine, slow in zip(*results):
        torch.testing.assert_close(mine, slow, rtol=1e-12, atol=1e-12)


def test_tiles_can_be_differentiated_twice():
    stored = floats(1, channels=1, size=4, dtype=torch.float64).requires_grad_()
    assert gradcheck(tiles2, stored) and gradgradcheck(lambda x: tiles2(x).pow(3), stored)


def test_nothing_of_a_quadrant_leaks_into_another():
    colours = torch.arange(8.0).reshape(2, 1, 2, 2)  # upper left, upper right, lower left, lower right
    images = tiles2(colours.repeat_interleave(8, 2).repeat_interleave(8, 3))
    assert torch.equal(images, torch.arange(8.0)[:, None, None, None].expand(8, 1, 16, 16))


@given(st.integers(1, 4), st.integers(0, 4), st.sampled_from([2, 6, 8]))
def test_fewer_stored_images_give_a_prefix(kept, more, size):
    stored = floats(kept + more, size=size)
    assert torch.equal(tiles2(stored)[: 4 * kept], tiles2(stored[:kept]))


@pytest.mark.parametrize("shape", [(5, 5), (4, 5), (1, 1)])
def test_tiles_of_odd_sizes_are_refused(shape):
    with pytest.raises(ValueError, match=rf"even height and width, got {shape[0]} x {shape[1]}; resize"):
        tiles2(torch.zeros(1, 3, *shape))


# ---------------------------------------------------------------- the table


def test_stored_images_that_need_no_decoding_stay_themselves():
    stored = floats(3)
    assert decoder("none")(stored) is stored and decoder("none").images_each == 1


def test_an_unknown_decoder_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match="unknown decoding 'tiles3'; known: none, tiles2.*registered first"):
        decoder("tiles3")


def test_a_name_is_taken_once_and_only_by_its_own_function(tables):
    with pytest.raises(ValueError, match="decoder 'tiles2' is registered already; choose another name"):
        register_decoder("tiles2", 4)(lambda stored: stored)
    register_decoder("tiles2", 4)(tiles2)  # the same file imported twice
    with pytest.raises(ValueError, match="images_each must be at least 1, got 0"):
        register_decoder("nothing", 0)


def test_a_decoder_that_gives_another_shape_is_found_out(tables):
    register_decoder("halves", 2)(lambda stored: stored)
    with pytest.raises(ValueError, match=r"'halves' must give 2 image\(s\).*\(6, 3, 4, 4\) here, got \(3, 3, 4, 4\)"):
        decoder("halves")(floats(3))
    memory = ReplayMemory(images_per_class=2)
    with pytest.raises(ValueError, match="'halves' must give"):
        memory.add({0: floats(2)}, decoding="halves")
    assert memory.classes == []


# ---------------------------------------------------------------- the memory


def mixed(**budget):
    """A class of two experiences that store plain images, and one in between that stores tiles."""
    memory = ReplayMemory(normalization=NORMALIZATION, **(budget or {"images_per_class": 2}))
    sizes = memory.quotas_with([7])
    memory.add({7: floats(sizes[7])}, {7: 1})
    sizes = memory.quotas_with([3, 5])
    memory.add({3: floats(sizes[3], seed=1), 5: codes(sizes[5])}, {3: 2, 5: 2}, decoding="tiles2")
    memory.add({1: floats(memory.quotas_with([1])[1], seed=2)}, {1: 3})
    return memory


def test_budget_and_bytes_count_what_is_stored_and_images_are_what_one_trains_on():
    memory, plain = mixed(), ReplayMemory(images_per_class=2, normalization=NORMALIZATION)
    plain.add({7: floats(2), 3: floats(2, seed=1), 5: codes(2), 1: floats(2, seed=2)})
    assert len(memory) == len(plain) == 8
    assert memory.memory_bytes == plain.memory_bytes == 6 * (48 + 24) + 2 * 48
    assert len(memory.images) == len(memory.labels) == len(memory.task_labels) == 2 + 8 + 8 + 2
    assert memory.labels.tolist() == [7] * 2 + [3] * 8 + [5] * 8 + [1] * 2
    assert memory.task_labels.tolist() == [1] * 2 + [2] * 16 + [3] * 2
    assert torch.equal(memory.images, torch.cat([memory.class_images(label) for label in (7, 3, 5, 1)]))
    assert "8 images (20 when decoded) of 4 classes" in repr(memory) and "decoded" not in repr(plain)


def test_a_class_is_decoded_after_its_codes_are():
    memory = mixed()
    for label in (3, 5):
        assert memory.stored_images(label).shape == (2, 3, 4, 4)
        torch.testing.assert_close(
            memory.class_images(label), tiles_by_hand(memory.stored_images(label)), rtol=1e-5, atol=1e-6
        )
    assert torch.equal(memory.stored_images(5), NORMALIZATION.apply(codes(2)))
    assert torch.equal(memory.class_images(7), memory.stored_images(7))


def test_some_classes_come_decoded_with_their_labels():
    images, labels, tasks = mixed().of_classes([1, 3])
    assert labels.tolist() == [3] * 8 + [1] * 2 and tasks.tolist() == [2] * 8 + [3] * 2
    assert torch.equal(images, torch.cat([mixed().class_images(3), mixed().class_images(1)]))


def test_pictures_show_what_is_stored():
    memory = mixed()
    torch.testing.assert_close(memory.pixels(5), codes(2).float() / 255, atol=1e-6, rtol=0)
    real = ImageSet(codes(8), torch.tensor([1, 3, 5, 7] * 2))
    figure = memory_figure({"tiles": memory}, real, class_names=[str(i) for i in range(8)], columns=5)
    widths = [axes.get_window_extent().width for axes in figure.axes]
    assert widths[0] == pytest.approx(widths[1])  # two real ones a class beside two stored ones, not eight


@given(st.integers(4, 19))
def test_a_total_budget_shrinks_stored_images_and_keeps_the_first(size):
    memory = mixed(mem_size=size)
    assert len(memory) == size
    for label, slot in memory.slots.items():
        each = 4 if label in (3, 5) else 1
        assert len(memory.class_images(label)) == each * len(slot) == int((memory.labels == label).sum())
    first = decoder("tiles2")(memory.stored_images(3)[:1])
    assert torch.equal(memory.class_images(3)[:4], first)


@pytest.mark.parametrize(
    ("images", "decoding", "message"),
    [
        (floats(2, size=5), "tiles2", "tiles2 needs images of even height"),
        (floats(2), "tiles9", "unknown decoding 'tiles9'"),
        (floats(8), "tiles2", "class 0 must bring exactly 2 images, got 8"),
    ],
)
def test_what_cannot_be_decoded_is_refused_and_nothing_changes(images, decoding, message):
    memory = ReplayMemory(images_per_class=2)
    with pytest.raises(ValueError, match=message):
        memory.add({0: images}, decoding=decoding)
    assert memory.classes == []


def test_files_and_states_carry_the_decoding(tmp_path):
    memory, restored = mixed(), ReplayMemory(images_per_class=1)
    memory.save(tmp_path / "m.safetensors")
    restored.load_state_dict(memory.state_dict())
    for other in (ReplayMemory.load(tmp_path / "m.safetensors"), restored):
        assert [slot.decoding for slot in other.slots.values()] == ["none", "tiles2", "tiles2", "none"]
        assert torch.equal(other.images, memory.images) and len(other) == len(memory)


def as_format_1(memory):
    state = memory.state_dict()
    settings = json.loads(state["settings"])
    settings["format"], settings["classes"] = 1, [row[:5] for row in settings["classes"]]
    return {**state, "settings": json.dumps(settings)}


def test_files_of_the_format_before_are_read():
    memory, restored = ReplayMemory(images_per_class=2), ReplayMemory(images_per_class=1)
    memory.add({4: floats(2), 2: floats(2, seed=1)}, {4: 3}, {4: "four"})
    restored.load_state_dict(as_format_1(memory))
    assert {slot.decoding for slot in restored.slots.values()} == {"none"}
    assert torch.equal(restored.images, memory.images) and restored.slots[4].key == "four"
    assert restored.task_labels.tolist() == [3, 3, 0, 0]


def test_a_file_whose_decoder_is_not_known_here_is_refused(tables):
    register_decoder("mine")(lambda stored: stored.flip(3))
    memory, other = ReplayMemory(images_per_class=2), ReplayMemory(images_per_class=1)
    memory.add({0: floats(2)}, decoding="mine")
    state = memory.state_dict()
    del DECODERS["mine"]
    with pytest.raises(ValueError, match="unknown decoding 'mine'.*load the recipe"):
        other.load_state_dict(state)
    assert other.classes == [] and other.images_per_class == 1


# ---------------------------------------------------------------- condensing, and the cache


def condensed(path, pixels, cache=None, classes=(0, 1, 2)):
    images, labels = pixels()
    rows = torch.isin(labels, torch.tensor(classes))
    memory = ReplayMemory(images_per_class=3, normalization=NORMALIZATION)
    real = RealImages(images[rows], labels[rows], NORMALIZATION)
    configured = load_recipe(path).configured()
    condense_experience(memory, real, configured, seed=0, device=CPU, cache=cache and ClassCache(cache))
    return memory


def test_condense_gives_decoded_images(tmp_path, pixels):
    images, labels = pixels()
    memory = condense(images, labels, tiled_recipe(tmp_path), 3, normalization="cifar10")
    assert len(memory) == 9 and memory.images.shape == (36, 3, 8, 8)
    assert memory.labels.tolist() == [0] * 12 + [1] * 12 + [2] * 12


CACHED = ", separable=lambda settings: True"


def test_the_cache_carries_the_decoding(tmp_path, pixels):
    declared = f"{CACHED}, decoding=lambda settings: 'tiles2'"
    path = own_recipe(tmp_path, options=declared, result=", decoding='tiles2'")
    plain = condensed(path, pixels)
    first, part, again = (condensed(path, pixels, tmp_path / "cache", classes) for classes in ((0, 2), (2,), (0, 1, 2)))
    assert [memory.info["chosen"]["classes_from_cache"] for memory in (first, part, again)] == [0, 1, 2]
    for memory in (plain, first, part, again):
        assert {slot.decoding for slot in memory.slots.values()} == {"tiles2"}
    assert torch.equal(again.images, plain.images)


def test_a_cached_class_without_a_decoding_is_as_stored(tmp_path, pixels):
    cache, images = ClassCache(tmp_path), floats(2)
    cache.put("ab" * 20, images)
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(save({"images": images}))  # as earlier versions wrote it
    found = cache.get("ab" * 20, (2, 3, 4, 4))
    assert found.decoding == "none" and torch.equal(found.images, images)


def test_cached_classes_that_decode_otherwise_are_condensed_anew(tmp_path, pixels):
    path = own_recipe(tmp_path, options=CACHED)
    condensed(path, pixels, tmp_path / "cache", (0,))
    (file,) = (tmp_path / "cache").rglob("*.safetensors")
    file.write_bytes(save({"images": floats(3, size=8)}, {"decoding": "tiles2"}))
    memory = condensed(path, pixels, tmp_path / "cache")
    assert {slot.decoding for slot in memory.slots.values()} == {"none"}
    assert torch.equal(memory.images, condensed(path, pixels).images)


def test_cached_pixel_codes_stay_pixel_codes(tmp_path):
    cache = ClassCache(tmp_path)
    cache.put("cd" * 20, codes(2), "tiles2")
    found = cache.get("cd" * 20, (2, 3, 4, 4))
    assert found.images.dtype == torch.uint8 and torch.equal(found.images, codes(2)) and found.decoding == "tiles2"
    cache.put("ef" * 20, floats(2, dtype=torch.float64))
    assert cache.get("ef" * 20, (2, 3, 4, 4)).images.dtype == torch.float32


def test_a_method_that_forgets_to_name_its_decoder_is_found_out(tables, pixels):
    @register("forgetful", METHODS["random"].settings, decoding=lambda settings: "tiles2")
    def forgetful(real, counts, settings, *, seed, device, progress=None, keep=None):
        return Condensed({label: real.raw(label)[: counts[label]] for label in real.classes})

    memory = ReplayMemory(images_per_class=2, normalization=NORMALIZATION)
    real = RealImages(*pixels(), NORMALIZATION)
    with pytest.raises(ValueError, match=r"'forgetful' gave images with decoding 'none', but is registered with 'til"):
        condense_experience(
            memory, real, ConfiguredMethod(METHODS["forgetful"], METHODS["forgetful"].settings()), seed=0, device=CPU
        )
    assert memory.classes == []


# ---------------------------------------------------------------- the plugin


def first_images(real, counts, settings, *, seed, device, progress=None):
    """A callable of one's own that stores tiles."""
    return Condensed({label: real.raw(label)[: counts[label]] for label in real.classes}, decoding="tiles2")


@pytest.mark.parametrize("benchmark", [plain_benchmark, lambda: nc(task_labels=True)], ids=["plain", "tasks"])
def test_a_strategy_trains_on_the_decoded_images(benchmark):
    plugin, spy = CondensedReplayPlugin(first_images, images_per_class=2, augment=None), Spy()
    run(benchmark(), plugin, spy, train_mb_size=5, train_epochs=2)
    memory = plugin.memory
    assert len(memory) == 8 and len(memory.images) == 32
    for step, seen in enumerate((16, 32)):
        assert len(spy.starts[step]["adapted_dataset"]) == seen
        assert len(spy.batches[step]) == 2 * -(-seen // 5)
        shown = {image.numpy().tobytes() for image in spy.images(step)}
        assert shown == {image.numpy().tobytes() for image in memory.images[:seen]}
        assert torch.equal(spy.labels(step)[:seen].sort().values, memory.labels[:seen].sort().values)


def test_a_checkpoint_of_the_plugin_carries_the_decoding():
    first, second = (CondensedReplayPlugin(first_images, images_per_class=2, augment=None) for _ in range(2))
    benchmark = plain_benchmark()
    strategy(first).train(benchmark.train_stream[0])
    second.load_state_dict(first.state_dict())
    strategy(second).train(benchmark.train_stream[1])
    assert len(second.memory) == 8 and len(second.memory.labels) == 32
    assert torch.equal(second.memory.images[:16], first.memory.images)


# ---------------------------------------------------------------- the experiment

QUIET = Reporter(None)
TINY = {"train.width": 4, "train.updates": 6, "train.batch_size": 8, "train.lr": 0.05}


def digits(path, host="none", **changes):
    options = {"images_per_class": 3, "networks": 2, "class_orders": 1, "overrides": TINY, **changes}
    return ContinualSettings("digits", (str(path),), preset="smoke", host=host, device="cpu", **options)


def test_both_hosts_train_on_decoded_images_and_count_stored_ones(tmp_path, monkeypatch):
    path, told, lengths = tiled_recipe(tmp_path), [], {}
    ask = training.TrainingSettings.epochs_for
    for host in ("none", "avalanche"):
        asked = lengths[host] = set()
        monkeypatch.setattr(
            training.TrainingSettings, "epochs_for", lambda self, images: asked.add(images) or ask(self, images)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run_experiment(digits(path, host), tmp_path / host, Reporter(told.append, terminal=False))
    # 6 stored images a step, each 4 to train on: the length of training follows from the latter, everywhere.
    assert lengths == {host: {24, 48, 72, 96, 120} for host in ("none", "avalanche")}
    none, avalanche = (pd.read_csv(tmp_path / host / "results.csv") for host in ("none", "avalanche"))
    for rows in (none, avalanche):
        assert rows.memory_images.tolist() == [6 * (step + 1) for step in rows.step]
        assert rows.memory_bytes.tolist() == [6 * (step + 1) * (1024 + 8) for step in rows.step]
    assert np.abs(none.accuracy - avalanche.accuracy).max() < 1.0
    assert any("memory 30 images (decoded to 120), " in line for line in told)
    memory = ReplayMemory.load(tmp_path / "none" / "memory.safetensors")
    assert len(memory) == 30 and len(memory.images) == 120


def test_networks_trained_together_see_the_decoded_images(tmp_path, monkeypatch):
    path = tiled_recipe(tmp_path)
    apart = pd.read_csv(run_experiment(digits(path), tmp_path / "apart", QUIET) / "results.csv")
    monkeypatch.setattr(core_host, "should_stack", lambda device, networks: True)
    together = pd.read_csv(run_experiment(digits(path), tmp_path / "together", QUIET) / "results.csv")
    assert np.abs(apart.accuracy - together.accuracy).max() < 1.0


def test_a_stopped_run_of_decoded_images_goes_on_to_the_same_end(tmp_path, monkeypatch):
    path = tiled_recipe(tmp_path)
    unbroken = run_experiment(digits(path, networks=1), tmp_path / "unbroken", QUIET)
    keep, kept = recipe_run.RecipeRun.keep, []

    def stop_after_two(self, step, seconds):
        keep(self, step, seconds)
        kept.append(step)
        if len(kept) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(recipe_run.RecipeRun, "keep", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            run_experiment(digits(path, networks=1), tmp_path / "broken", QUIET)
    broken = run_experiment(digits(path, networks=1), tmp_path / "broken", QUIET)
    left, right = (pd.read_csv(folder / "results.csv") for folder in (unbroken, broken))
    assert left.accuracy.tolist() == right.accuracy.tolist()
    memories = [ReplayMemory.load(folder / "memory.safetensors") for folder in (unbroken, broken)]
    assert torch.equal(memories[0].images, memories[1].images)


def test_the_time_told_ahead_counts_decoded_images(tmp_path, monkeypatch):
    monkeypatch.setattr(forecast, "_seconds_per_image", lambda made, settings: 1.0)
    paths = [own_recipe(tmp_path), tiled_recipe(tmp_path, name="tiled")]
    one_update = {"train.updates": 1, "train.batch_size": 1000}
    made = plan_experiment(ContinualSettings("digits", tuple(map(str, paths)), 3, preset="smoke", host="none", device="cpu",
                                  networks=2, class_orders=3, overrides=one_update))  # fmt: skip
    stored = sum(6 * step for step in range(1, 6))
    tested = len(made.data.test) / 5 * sum(range(1, 6)) / 3
    expected = {"noisy": 2 * (stored + tested), "tiled": 2 * (4 * stored + tested)}
    told = forecast.forecast(made)
    assert told.training == pytest.approx(expected)
    assert told.total == pytest.approx(3 * sum(expected.values()))
