"""Whether condensed digits teach a network more than random ones: same number, same training, three seeds."""

import pytest
import torch
from engines import CPU

from clreplay.condensation import METHODS, RealImages
from clreplay.condensation.cafe.settings import CafeSettings
from clreplay.data import load_digits
from clreplay.networks import reinitialize
from clreplay.recipes.recipe import load_recipe
from clreplay.runtime.seeding import key_seed
from clreplay.training.evaluate import accuracy
from clreplay.training.loop import train
from clreplay.training.settings import TrainingSettings

AUGMENT = "color_crop_cutout_scale_rotate"
SHORT = {"width": 16, "iterations": 40, "real_batch": 32}
MATCHING = {**SHORT, "siamese_augment": AUGMENT}
GRADIENTS = {**SHORT, "outer_loops": 1, "lr_img": 1.0}
CAFE = CafeSettings(
    width=16, iterations=6, real_batch=32, accuracy_images=16, window=4, max_image_steps=12, max_epochs=4
)


def matching(name, lr_img):
    return load_recipe(name).settings("smoke", {**MATCHING, "lr_img": lr_img})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings", "count", "least", "mean"),
    [
        pytest.param("matching", lambda: matching("dm+sm", 5.0), 1, 2, 5, id="dm+sm"),
        pytest.param("matching", lambda: matching("dm+icd", 10.0), 2, 2, 5, id="dm+icd"),
        pytest.param("matching", lambda: matching("datadam", 0.5), 1, 2, 5, id="datadam"),
        pytest.param("matching", lambda: matching("datadam+sm", 0.5), 1, 2, 5, id="datadam+sm"),
        pytest.param(
            "gradient_matching", lambda: load_recipe("dc").settings("smoke", GRADIENTS, "digits"), 1, 0, 5, id="dc"
        ),
        pytest.param(
            "gradient_matching", lambda: load_recipe("dsa").settings("smoke", GRADIENTS, "digits"), 1, 0, 5, id="dsa"
        ),
        pytest.param("cafe", lambda: CAFE, 1, 6, 10, id="cafe"),
    ],
)
def test_a_network_learns_more_from_condensed_digits_than_from_random_ones(method, settings, count, least, mean):
    """By at least so many points in every draw and on average, after the last epoch."""
    data = load_digits()
    real, counts = RealImages(data.train.images, data.train.labels, data.normalization), dict.fromkeys(range(10), count)
    learner = TrainingSettings(width=16, updates=100, lr=0.05, augment=AUGMENT)

    def learned(name, chosen, seed):
        images = METHODS[name].condense(real, counts, chosen, seed=seed, device=CPU).images
        network = learner.build(10, 1, 32)
        reinitialize(network, key_seed(seed, "learner"))
        pictures = torch.cat([real.normalise(images[label]) for label in real.classes])
        train(network, pictures, torch.arange(10).repeat_interleave(count), learner, (seed, "training"))
        return accuracy(network, data.test, data.normalization, CPU)

    scores = [
        (learned(method, settings(), seed), learned("random", METHODS["random"].settings(), seed)) for seed in range(3)
    ]
    gains = [ours - random for ours, random in scores]
    assert min(gains) > least and sum(gains) / 3 > mean, scores
