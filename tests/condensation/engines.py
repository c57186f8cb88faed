"""Engines made in one line, and the comparison of what comes out of them."""

import torch
from mixed import apart

from clreplay.data import NORMALIZATIONS

NORMALIZATION = NORMALIZATIONS["cifar10"]
CPU = torch.device("cpu")


def maker(kind, settings, count):
    """``engine(real, settings, count, seed)`` of a kind; the count is one for all classes, or a dictionary."""

    def engine(real, settings=settings, count=count, seed=3):
        counts = count if isinstance(count, dict) else dict.fromkeys(real.classes, count)
        settings, execution = apart(settings)
        return kind(real, counts, settings, seed, CPU, execution)

    return engine


def assert_same_bytes(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[label], other[label]) for label in one)


def assert_close(one, other, tolerance=1e-4):
    """Images of every class, in whichever precision, within an absolute and relative tolerance."""
    assert one.keys() == other.keys()
    for label in one:
        torch.testing.assert_close(one[label].double(), other[label].double(), rtol=tolerance, atol=tolerance)


def image_rows(images, own):
    """Where every image stands among a class's own; an error if it is none of them."""
    return [[torch.equal(image, other) for other in own].index(True) for image in images]
