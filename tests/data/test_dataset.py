"""Labelled images and data sets: what is taken out of them, and what does not fit together."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from clreplay.data import Dataset, ImageSet, Normalization


def image_set(labels=(0, 1, 0, 2)):
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    return ImageSet(images, torch.tensor(labels))


def test_of_classes_keeps_order_and_labels():
    chosen = image_set().of_classes(np.array([2, 0]))
    assert chosen.labels.tolist() == [0, 0, 2]
    assert chosen.images[:, 0, 0, 0].tolist() == [0, 2, 3]
    assert len(chosen) == 3


def test_class_images_gives_the_images_of_one_class():
    assert image_set().class_images(0)[:, 0, 0, 0].tolist() == [0, 2]


def test_a_class_without_images_is_named():
    with pytest.raises(ValueError, match=r"classes must have images in this set, got \[7\].*\[0, 1, 2\]"):
        image_set().of_classes([0, 7])
    with pytest.raises(ValueError, match="label must have images in this set, got 7"):
        image_set().class_images(7)


PIXELS = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2).long(), r"images must be uint8 \(n, c, h, w\), got float32 \(2, 3"),
        (PIXELS[0], torch.zeros(2).long(), r"images must be uint8 \(n, c, h, w\), got uint8 \(3, 4, 4\)"),
        (PIXELS.numpy(), torch.zeros(2).long(), "images must be uint8.*got ndarray"),
        (PIXELS, torch.zeros(2).int(), r"labels must be int64 \(n,\), got int32"),
        (PIXELS, torch.zeros(2, 1).long(), r"labels must be int64 \(n,\), got int64 \(2, 1\)"),
        (PIXELS, [0, 1], "labels must be int64.*got list"),
        (PIXELS, torch.zeros(3).long(), "got 3 labels for 2 images"),
        (PIXELS, torch.tensor([0, -1]), "class numbers from 0, got -1"),
        (PIXELS, torch.zeros(2, device="meta").long(), "on the images' device cpu, got meta"),
    ],
)
def test_an_image_set_names_what_does_not_fit(images, labels, message):
    with pytest.raises(ValueError, match=message):
        ImageSet(images, labels)


def test_a_dataset_names_what_does_not_fit():
    rgb = Normalization((0.5,) * 3, (0.5,) * 3)
    good = Dataset("toy", image_set(), image_set(), ("a", "b", "c"), rgb, "Made here.")
    assert good.num_classes == 3
    with pytest.raises(ValueError, match="got 2 names but train label 2"):
        replace(good, class_names=("a", "b"))
    with pytest.raises(ValueError, match="normalization must have 3 channels, got 1"):
        replace(good, normalization=Normalization((0.5,), (0.5,)))
    with pytest.raises(ValueError, match=r"test images must be \(3, 4, 4\) like train"):
        replace(good, test=ImageSet(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1).long()))
