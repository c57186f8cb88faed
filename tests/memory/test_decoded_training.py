"""Everyone who must know of decoders: condensing, the class cache, the plugin, the experiment."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from memory_helpers import CPU, NORMALIZATION, floats
from own_helpers import own_recipe, tiled_recipe
from plugin_helpers import Spy, nc, plain_benchmark, run, strategy
from safetensors.torch import save

from clreplay import condense
from clreplay.condensation import METHODS, Condensed, RealImages, condense_experience, register
from clreplay.condensation.configured import ConfiguredMethod
from clreplay.incremental import core_host, forecast, recipe_run
from clreplay.incremental.plan import plan_experiment
from clreplay.incremental.run import run_experiment
from clreplay.incremental.settings import ContinualSettings
from clreplay.memory.class_cache import ClassCache
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.plugin.replay import CondensedReplayPlugin
from clreplay.recipes.recipe import load_recipe
from clreplay.runtime.progress import Reporter
from clreplay.training import settings as training

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


def test_cached_classes_that_decode_otherwise_are_condensed_anew(tmp_path, pixels):
    path = own_recipe(tmp_path, options=CACHED)
    condensed(path, pixels, tmp_path / "cache", (0,))
    (file,) = (tmp_path / "cache").rglob("*.safetensors")
    file.write_bytes(save({"images": floats(3, size=8)}, {"decoding": "tiles2"}))
    memory = condensed(path, pixels, tmp_path / "cache")
    assert {slot.decoding for slot in memory.slots.values()} == {"none"}
    assert torch.equal(memory.images, condensed(path, pixels).images)


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
    path, lines, lengths = tiled_recipe(tmp_path), [], {}
    ask = training.TrainingSettings.epochs_for
    for host in ("none", "avalanche"):
        asked = lengths[host] = set()
        monkeypatch.setattr(
            training.TrainingSettings, "epochs_for", lambda self, images: asked.add(images) or ask(self, images)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run_experiment(digits(path, host), tmp_path / host, Reporter(lines.append, terminal=False))
    # 6 stored images a step, each 4 to train on: the length of training follows from the latter, everywhere.
    assert lengths == {host: {24, 48, 72, 96, 120} for host in ("none", "avalanche")}
    none, avalanche = (pd.read_csv(tmp_path / host / "results.csv") for host in ("none", "avalanche"))
    for rows in (none, avalanche):
        assert rows.memory_images.tolist() == [6 * (step + 1) for step in rows.step]
        assert rows.memory_bytes.tolist() == [6 * (step + 1) * (1024 + 8) for step in rows.step]
    assert np.abs(none.accuracy - avalanche.accuracy).max() < 1.0
    assert any("memory 30 images (decoded to 120), " in line for line in lines)
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


def test_the_forecast_counts_decoded_images(tmp_path, monkeypatch):
    monkeypatch.setattr(forecast, "_seconds_per_image", lambda plan, settings: 1.0)
    paths = [own_recipe(tmp_path), tiled_recipe(tmp_path, name="tiled")]
    one_update = {"train.updates": 1, "train.batch_size": 1000}
    options = {"preset": "smoke", "host": "none", "device": "cpu", "networks": 2, "class_orders": 3}
    plan = plan_experiment(ContinualSettings("digits", tuple(map(str, paths)), 3, overrides=one_update, **options))
    stored = sum(6 * step for step in range(1, 6))
    tested = len(plan.data.test) / 5 * sum(range(1, 6)) / 3
    expected = {"noisy": 2 * (stored + tested), "tiled": 2 * (4 * stored + tested)}
    ahead = forecast.forecast(plan)
    assert ahead.training == pytest.approx(expected)
    assert ahead.total == pytest.approx(3 * sum(expected.values()))
