"""How condensed images are stored: uint8 codes, or float32 at four times the bytes, wherever a person can say so."""

import pandas as pd
import pytest
import torch
from own_helpers import own_recipe, tiled_recipe
from plugin_helpers import CondensedReplayPlugin, plain_benchmark, random_replay
from plugin_helpers import run as train

from clreplay import condense
from clreplay.condensation import RealImages
from clreplay.data import NORMALIZATIONS
from clreplay.incremental.cli import continual_main, continual_parser, continual_settings
from clreplay.incremental.plan import default_folder, plan_experiment
from clreplay.incremental.run import run_experiment
from clreplay.incremental.run_folder import SettingsMismatch, read_settings
from clreplay.incremental.settings import ContinualSettings
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.recipes.recipe import load_recipe
from clreplay.runtime.progress import Reporter

QUIET = Reporter(None)
TINY = {"train.width": 4, "train.updates": 2}


def digits(path, store="float32", **changes):
    options = {"images_per_class": 2, "networks": 1, "class_orders": 1, "overrides": TINY, **changes}
    return ContinualSettings("digits", (str(path),), steps=2, store=store, preset="smoke", device="cpu", **options)


@pytest.mark.parametrize("host", ["none", "avalanche"])
def test_a_run_stores_counts_and_records_floats(host, tmp_path):
    path = own_recipe(tmp_path)
    folder = run_experiment(digits(path, host=host), tmp_path / "run", QUIET)
    assert read_settings(folder)["store"] == "float32"
    rows = pd.read_csv(folder / "results.csv")
    assert rows.memory_bytes.tolist() == [4 * 1024 * images for images in rows.memory_images]
    memory = ReplayMemory.load(folder / "memory.safetensors")
    assert memory.store == "float32" and memory.slots[0].codes.dtype == torch.float32
    plain = ReplayMemory.load(
        run_experiment(digits(path, "uint8", host=host), tmp_path / "plain", QUIET) / "memory.safetensors"
    )
    assert read_settings(tmp_path / "plain")["store"] == "uint8"
    error = (memory.images - plain.images).abs()
    assert error.max() > 0 and torch.allclose(memory.images, plain.images, atol=0.02)


def test_real_images_keep_their_pixel_codes(tmp_path):
    rows = pd.read_csv(run_experiment(digits("random", host="none"), tmp_path / "run", QUIET) / "results.csv")
    assert rows.memory_bytes.tolist() == [1024 * images for images in rows.memory_images]


def test_a_run_does_not_go_on_with_another_store(tmp_path):
    path = own_recipe(tmp_path)
    run_experiment(digits(path, host="none"), tmp_path / "run", QUIET)
    with pytest.raises(SettingsMismatch, match="store is 'float32' there and 'uint8' here"):
        run_experiment(digits(path, "uint8", host="none"), tmp_path / "run", QUIET)


def test_runs_of_different_stores_have_different_folders_and_say_so(tmp_path):
    path, lines = own_recipe(tmp_path), []
    folders = [default_folder(plan_experiment(digits(path, store, host="none"))).name for store in ("uint8", "float32")]
    assert folders == ["digits-2step-noisy-ipc2-smoke", "digits-2step-noisy-ipc2-float32-smoke"]
    run_experiment(digits(path, host="none"), tmp_path / "run", Reporter(lines.append, terminal=False))
    assert "2 images a class, condensed ones stored as float32" in lines[0]


def test_the_command_line_has_a_flag_for_it(tmp_path, capsys):
    parser = continual_parser("digits", "")
    assert continual_settings(parser.parse_args([])).store == "uint8"
    assert continual_settings(parser.parse_args(["--store", "float32"])).store == "float32"
    coded = continual_settings(parser.parse_args(["--store", "avif", "--quality", "30"]))
    assert (coded.store, coded.quality) == ("avif", 30)
    for flags, said in (
        (
            ["--store", "float16"],
            "store must be one of uint8, float32, 4bit, 2bit, png, jpeg, webp, avif, got 'float16'",
        ),
        (["--quality", "30"], "quality belongs to the stores png, jpeg, webp, avif, got it for 'uint8'"),
        (["--store", "jpeg", "--quality", "99"], "quality of store 'jpeg' must be an integer within 1 and 95, got 99"),
    ):
        assert continual_main("digits", "", [*flags, "--out", str(tmp_path / "run")]) == 2
        assert said in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_an_unknown_store_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="store must be one of uint8, float32, .*, got 'float16'"):
        run_experiment(digits("random", "float16", host="none"), tmp_path / "run", QUIET)
    assert not (tmp_path / "run").exists()


def test_condense_stores_the_very_floats(tmp_path, pixels):
    images, labels = pixels()
    path = own_recipe(tmp_path)
    exact, coded = (condense(images, labels, path, 3, normalization="cifar10", store=s) for s in ("float32", "uint8"))
    assert exact.memory_bytes == 4 * 9 * 192 and coded.memory_bytes == 9 * (192 + 24)
    real = RealImages(images, labels, NORMALIZATIONS["cifar10"])
    recipe = load_recipe(path)
    counts = dict.fromkeys(real.classes, 3)
    made = recipe.method.condense(real, counts, recipe.settings(), seed=0, device=torch.device("cpu"))
    assert all(torch.equal(exact.class_images(label), made.images[label]) for label in real.classes)
    with pytest.raises(ValueError, match="store must be one of uint8, float32, .*, got 'half'"):
        condense(images, labels, path, 3, store="half")


def test_floats_that_decode_to_several_images_count_once(tmp_path, pixels):
    memory = condense(*pixels(), tiled_recipe(tmp_path), 3, normalization="cifar10", store="float32")
    assert memory.memory_bytes == 4 * 9 * 192 and len(memory.images) == 36


def test_the_plugin_stores_floats(tmp_path):
    plugins = [CondensedReplayPlugin(own_recipe(tmp_path), 2, store=store) for store in (None, "uint8", "float32")]
    for plugin in plugins:
        train(plain_benchmark(), plugin, train_epochs=1)
    assert [plugin.memory.memory_bytes for plugin in plugins] == [8 * (192 + 24)] * 2 + [8 * 4 * 192]


def test_a_memory_given_to_the_plugin_brings_its_own_store():
    with pytest.raises(ValueError, match="memory brings its own budget and store; leave .* quality and pixels out"):
        random_replay(memory=ReplayMemory(2), store="float32")
    with pytest.raises(ValueError, match="store must be one of uint8, float32, .*, got 'float64'"):
        random_replay(2, store="float64")
