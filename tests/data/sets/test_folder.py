"""A data set of one's own: its name, size and normalisation, and the class-incremental run over it."""

import pandas as pd
import pytest
import yaml
from data_helpers import assert_refused, load_folder, picture, write

from clreplay.data import DataNotFoundError, load_dataset
from clreplay.incremental.cli import continual_main


def test_images_are_normalised_with_the_mean_and_deviation_of_the_training_images(pets):
    dataset = load_folder(pets)
    pixels = dataset.train.images.double() / 255
    assert dataset.normalization.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-12)
    assert dataset.normalization.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=1e-12)


def test_images_of_several_sizes_need_a_size(pets):
    write(pets / "train" / "emu" / "big.JPEG", picture(1, (32, 32)))
    assert_refused(pets, rf"train/emu/big.JPEG: image must be 20x20, got 32x32; folder:{pets}@64 resizes all")
    write(pets / "train" / "cat" / "a.JPEG", picture(1, (32, 20)))
    assert_refused(pets, "cat/a.JPEG: image must be square, got 32x20; folder:")


def test_the_first_image_is_named_when_it_is_the_damaged_one(pets):
    (pets / "train" / "cat" / "cat_0.JPEG").write_bytes(b"no image")
    assert_refused(pets, "train/cat/cat_0.JPEG: .*; fetch the file again")


@pytest.mark.parametrize("name", ["folder:", "folder:pets@0"])
def test_a_name_of_another_form_is_explained(name):
    with pytest.raises(ValueError, match="name must be folder:PATH or folder:PATH@SIZE, such as folder:flowers@64"):
        load_dataset(name)


def test_a_path_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataNotFoundError, match=f"{tmp_path}/pets does not exist"):
        load_dataset("folder:pets@32")


def test_a_relative_path_counts_from_the_current_folder(pets, monkeypatch):
    monkeypatch.chdir(pets.parent)
    assert len(load_dataset("folder:pets", pets.parent / "nowhere").train) == 9


def test_a_folder_goes_through_the_class_incremental_run(pets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--dataset", f"folder:{pets}@16", "--memory", "random", "--steps", "3", "--images-per-class", "2"]
    quick = ["--preset", "smoke", "--device", "cpu", "--host", "none", "--no-cache", "--set", "train.updates=2"]
    assert continual_main(None, "", [*arguments, *quick]) == 0
    run = tmp_path / "out" / "folder-pets-16-3step-random-ipc2-smoke"
    rows = pd.read_csv(run / "results.csv")
    assert rows.classes_seen.tolist() == [1, 2, 3]
    assert set(rows.dataset) == {"folder-pets-16"}
    settings = (run / "settings.yaml").read_text()
    assert yaml.safe_load(settings)["dataset"] == "folder-pets-16"
    assert str(tmp_path) not in settings


def test_without_a_data_set_of_its_own_a_script_asks_for_one(capsys):
    with pytest.raises(SystemExit):
        continual_main(None, "", ["--memory", "random"])
    assert "the following arguments are required: --dataset" in capsys.readouterr().err
