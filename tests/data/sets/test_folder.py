"""A data set of one's own: its name, size and normalisation, and the class-incremental run over it."""

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from data_helpers import assert_refused, load_folder, picture, tarred, write, zipped
from PIL import Image

from clreplay.data import DataNotFoundError, InvalidDataError, load_dataset
from clreplay.incremental.cli import continual_main


def test_images_are_normalised_with_the_mean_and_deviation_of_the_training_images(pets):
    dataset = load_folder(pets)
    pixels = dataset.train.images.double() / 255
    assert dataset.normalization.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-12)
    assert dataset.normalization.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=1e-12)


def test_images_of_several_sizes_need_a_size(pets):
    write(pets / "train" / "emu" / "big.JPEG", picture(1, (32, 32)))
    assert_refused(pets, rf"train/emu/big.JPEG: image must be 20x20, got 32x32 .*; folder:{pets}@64 resizes all")
    write(pets / "train" / "cat" / "a.JPEG", picture(1, (32, 20)))
    assert_refused(pets, r"image must be 20x32, got 20x20 \(height x width\); folder:.*@64 resizes all")


def test_images_may_be_of_another_height_than_width(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / "wide" / split / "cat" / "a.png", picture(1, (40, 24)))
        write(tmp_path / "wide" / split / "dog" / "a.png", picture(2, (40, 24)))
    found = load_dataset(f"folder:{tmp_path / 'wide'}")
    assert found.train.images.shape == (2, 3, 24, 40) and found.name == "folder-wide"
    resized = load_dataset(f"folder:{tmp_path / 'wide'}@12x20")
    assert resized.test.images.shape == (2, 3, 12, 20) and resized.name == "folder-wide-12x20"
    small = picture(1, (40, 24)).resize((20, 12), Image.Resampling.BILINEAR)
    assert torch.equal(resized.train.images[0], torch.from_numpy(np.array(small)).permute(2, 0, 1))
    assert load_dataset(f"folder:{tmp_path / 'wide'}@16x16").name == "folder-wide-16"
    with pytest.raises(ValueError, match="folder:flowers@48x64 .height x width."):
        load_dataset(f"folder:{tmp_path / 'wide'}@0x20")


def test_the_first_image_is_named_when_it_is_the_damaged_one(pets):
    (pets / "train" / "cat" / "cat_0.JPEG").write_bytes(b"no image")
    assert_refused(pets, "train/cat/cat_0.JPEG: .*; fetch the file again")


def test_all_damaged_images_are_named_at_once(pets):
    for name in ("cat/cat_0", "cat/cat_2", "dog/dog_0"):
        (pets / "train" / f"{name}.JPEG").write_bytes(b"no image")
    with pytest.raises(InvalidDataError) as caught:
        load_folder(pets)
    message = str(caught.value)
    assert message.startswith(
        f"{pets}/train/cat/cat_0.JPEG: cannot identify image file; fetch the file again; the same"
    )
    assert message.endswith(f"with {pets}/train/cat/cat_2.JPEG, {pets}/train/dog/dog_0.JPEG")


@pytest.mark.parametrize("layout", ["folder", "zip", "tar"])
def test_files_that_are_not_read_are_counted_and_those_beside_images_are_not(pets, tmp_path, caplog, layout):
    place = pets / "train" / "cat"
    write(place / "new.heic", "no image")
    write(place / "scan", "no image")
    write(place / "boxes.txt", "1 2 3 4")
    write(place / ".DS_Store", "")
    (place / "more.jfif").write_bytes((place / "cat_0.JPEG").read_bytes())
    packed = {"folder": lambda: pets, "zip": lambda: zipped(pets, tmp_path / "p.zip")}
    dataset = load_folder(packed.get(layout, lambda: tarred(pets, tmp_path / "p.tgz"))())
    assert len(dataset.train) == 10  # one more than the fixture has
    assert "train: 2 files left out, 1 of .heic, 1 of no ending; images end in .jpg" in caplog.text


def test_a_class_of_no_images_that_are_read_says_what_it_has(pets):
    for path in (pets / "train" / "cat").iterdir():
        path.rename(path.with_suffix(".heic"))
    assert_refused(
        pets, "train/cat has . files, none of an image's ending, but . of .heic; convert them to one of .jpg"
    )


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


# ---------------------------------------------------------------- without a split


@pytest.fixture
def flat(tmp_path):
    """A folder a class: 10 cats, 5 dogs, 2 emus."""
    for name, count in (("cat", 10), ("dog", 5), ("emu", 2)):
        for number in range(count):
            write(tmp_path / "flat" / name / f"{number}.png", picture(number, (12, 12)))
    return tmp_path / "flat"


@pytest.mark.parametrize("mark", ["#", "?"])
def test_a_share_of_every_class_is_to_test_on_and_said(mark, flat):
    dataset = load_dataset(f"folder:{flat}@8{mark}test=0.2")
    assert dataset.name == "folder-flat-8-test0.2" and dataset.class_names == ("cat", "dog", "emu")
    assert dataset.train.labels.tolist() == [0] * 8 + [1] * 4 + [2]
    assert dataset.test.labels.tolist() == [0] * 2 + [1] + [2]
    assert dataset.source.endswith("It has no split: 4 of its 17 images, 20 % of every class, are to test on.")
    assert len(dataset.train.images.flatten(1).unique(dim=0)) > 1


def test_the_same_images_are_chosen_every_time_and_none_is_lost(flat):
    def rows(images):
        return {tuple(row) for row in images.images.flatten(1).tolist()}

    dataset, again = (load_dataset(f"folder:{flat}#test=0.4") for _ in range(2))
    assert dataset.fingerprint == again.fingerprint
    cats, others = (rows(part.of_classes([0])) for part in (dataset.train, dataset.test))
    assert not cats & others and len(cats | others) == 10
    before = rows(dataset.test.of_classes([0]))
    write(flat / "ant" / "0.png", picture(90, (12, 12)))
    write(flat / "ant" / "1.png", picture(91, (12, 12)))
    assert rows(load_dataset(f"folder:{flat}#test=0.4").test.of_classes([1])) == before, (
        "whatever other classes there are"
    )


def test_a_share_can_be_held_out_beside_it(flat):
    write(flat / "emu" / "2.png", picture(92, (12, 12)))
    dataset = load_dataset(f"folder:{flat}#test=0.2#held-out=0.25")
    assert (len(dataset.train), len(dataset.test), len(dataset.held_out)) == (10, 4, 4)


def test_a_folder_without_a_split_names_the_cure(flat):
    with pytest.raises(
        InvalidDataError, match=r"flat is no data set: .*; folder:.*flat#test=0.2 takes a fifth of every"
    ):
        load_dataset(f"folder:{flat}")


@pytest.mark.parametrize("share", ["0", "1", "-0.2", "half", "", "nan"])
def test_a_share_that_is_none_is_told(share, flat):
    with pytest.raises(ValueError, match="the share to test on must be between 0 and 1, such as #test=0.2"):
        load_dataset(f"folder:{flat}#test={share}")


def test_what_cannot_be_divided_is_told(flat, pets):
    write(flat / "fox" / "0.png", picture(93, (12, 12)))
    with pytest.raises(InvalidDataError, match="flat/fox must have an image to train and one to test on, got 1"):
        load_dataset(f"folder:{flat}#test=0.2")
    with pytest.raises(InvalidDataError, match="pets has train/ and a test folder of its own; leave the share out"):
        load_dataset(f"folder:{pets}#test=0.2")
    with pytest.raises(InvalidDataError, match="cat must have a folder a class, got files such as 0.png"):
        load_dataset(f"folder:{flat / 'cat'}#test=0.2")
