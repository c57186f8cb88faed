"""Class folders: which folders are the splits and classes, and what is said of a tree that is not complete."""

import shutil

import numpy as np
import pytest
import torch
from data_helpers import PETS, assert_refused, load_folder, picture, write, write_classes
from torchvision.datasets import ImageFolder


def test_images_and_labels_are_those_of_torchvisions_image_folder(pets):
    dataset = load_folder(pets)
    assert (dataset.name, dataset.class_names) == ("folder-pets", ("cat", "dog", "emu"))
    assert str(pets) in dataset.source
    for split in ("train", "test"):
        reference, found = ImageFolder(pets / split), getattr(dataset, split)
        assert found.labels.tolist() == [label for _, label in reference]
        for image, (pixels, _) in zip(found.images, reference, strict=True):
            assert np.array_equal(image.numpy(), np.asarray(pixels).transpose(2, 0, 1))


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_the_test_images_may_be_in_a_folder_of_another_name(pets, name):
    expected = load_folder(pets)
    (pets / "test").rename(pets / name)
    assert torch.equal(load_folder(pets).test.images, expected.test.images)


def test_of_two_such_folders_test_is_taken(pets):
    expected = load_folder(pets)
    write_classes(pets / "val", PETS["test"], first=5000)
    assert torch.equal(load_folder(pets).test.images, expected.test.images)


def remove(path):
    return lambda folder: shutil.rmtree(folder / path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("test"), "has train but no folder test or val or valid or validation; both are needed"),
        (remove("train"), "is no data set: it needs train/ and test/"),
        (remove("test/dog"), "test has no folder dog; copy it again"),
        (remove("train/dog"), "test has a folder dog that is no class of folder:"),
        (lambda folder: [path.unlink() for path in folder.glob("train/dog/*")], r"must have at least 1 .*train/dog"),
        (
            lambda folder: (remove("train")(folder), write(folder / "train" / "a.JPEG", picture(0))),
            "train must have a folder a class, got files such as a.JPEG$",
        ),
        (
            lambda folder: (remove("train")(folder), write(folder / "train" / "n01440764.tar", b"")),
            "got files such as n01440764.tar; unpack it into a folder of that name",
        ),
    ],
)
def test_a_tree_that_is_not_complete_is_explained(pets, change, message):
    change(pets)
    assert_refused(pets, message)
