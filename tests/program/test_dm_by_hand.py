"""The example that writes distribution matching by hand gives what the library's `dm` gives."""

import importlib.util
from pathlib import Path

import torch

from clreplay import condense
from clreplay.condensation import RealImages
from clreplay.data import load_digits

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "dm_by_hand.py"


def example():
    spec = importlib.util.spec_from_file_location("dm_by_hand", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_makes_the_images_of_the_library_s_dm():
    by_hand, data = example(), load_digits()
    part = data.train.of_classes([0, 1, 2, 3, 4])
    found = by_hand.condense_by_hand(RealImages(part.images, part.labels, data.normalization))
    memory = condense(
        part.images, part.labels, "dm", by_hand.COUNT, normalization=data.normalization, dataset="digits", device="cpu",
        store="float32", iterations=by_hand.ITERATIONS, real_batch=by_hand.BATCH, lr_img=by_hand.RATE,
        width=by_hand.WIDTH, seed=by_hand.SEED, kernels="eager",
    )  # fmt: skip
    assert sorted(found) == memory.classes
    for label, images in found.items():
        torch.testing.assert_close(images, memory.images[memory.labels == label], rtol=1e-4, atol=1e-4)


def test_the_example_fits_on_a_screen():
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 60
