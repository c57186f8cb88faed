"""Random images of every class."""

import torch
from engines import CPU, NORMALIZATION, image_rows

from clreplay.condensation import RealImages
from clreplay.condensation.selection.random_choice import RandomSettings, select_random


def random_images(real, count, seed=0):
    counts = {label: count for label in real.classes}
    return select_random(real, counts, RandomSettings(), seed=seed, device=CPU).images


def test_random_is_uniform_over_the_images_of_a_class(pixels):
    real = RealImages(*pixels(1, 8, size=2), NORMALIZATION)
    counts = torch.zeros(8)
    for seed in range(400):
        for row in image_rows(random_images(real, 3, seed)[0], real.raw(0)):
            counts[row] += 1
    assert float(((counts - 150) ** 2 / 150).sum()) < 24.3  # chi squared, 7 degrees, p = 0.001


def test_classes_choose_apart_and_a_class_chooses_by_its_images_alone(pixels):
    images, labels = pixels()
    real = RealImages(images, labels, NORMALIZATION)
    alone = RealImages(images[labels == 1], labels[labels == 1] + 50, NORMALIZATION)
    five = random_images(real, 5)
    assert torch.equal(random_images(alone, 5)[51], five[1])
    assert image_rows(five[0], real.raw(0)) != image_rows(five[1], real.raw(1))
