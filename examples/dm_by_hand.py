"""Distribution matching (Zhao & Bilen, WACV 2023) by hand: how the parts of clreplay compose.

`python examples/dm_by_hand.py` condenses five digits to ten images a class, as ``condense(..., "dm")`` does it.
"""

import torch

from clreplay import ConvNet, ReplayMemory
from clreplay.condensation import RealImages
from clreplay.condensation.engine.start import initial_images
from clreplay.data import load_digits
from clreplay.losses import MeanMatching
from clreplay.networks import FlatParameters, reinitialize
from clreplay.networks.features import Features
from clreplay.runtime.seeding import BLOCK, generator
from clreplay.training import TrainingSettings, accuracy, train
from clreplay.training.augmentation import augment_shared, draw, parse_strategy

SEED, COUNT, ITERATIONS, BATCH, RATE, MOMENTUM, WIDTH = 0, 10, 50, 64, 10.0, 0.5, 16
STRATEGY = parse_strategy("color_crop_cutout_scale_rotate")


def condense_by_hand(real: RealImages) -> dict[int, torch.Tensor]:
    """Synthetic images of every class, (COUNT, c, h, w)."""
    network = ConvNet(1, *real.shape[:2], width=WIDTH).requires_grad_(False)
    weights, term = FlatParameters(network), MeanMatching()
    images = {label: initial_images(real, label, COUNT, "real", SEED) for label in real.classes}
    velocity, chance = {label: torch.zeros_like(images[label]) for label in real.classes}, {}
    for i in range(ITERATIONS):
        weights.redraw(generator(SEED, "network", i))  # a new random network, in place
        for label in real.classes:
            if i % BLOCK == 0:  # drawn for a block of iterations at once, keyed by the class's own images
                keyed = generator(SEED, real.keys[label], "match", i // BLOCK)
                draws, uniform = draw(BLOCK, STRATEGY, keyed), torch.rand(BLOCK, real.count(label), generator=keyed)
                chance[label] = draws, uniform.topk(BATCH, dim=1).indices
            draws, rows = (part[i % BLOCK] for part in chance[label])
            leaf = images[label].requires_grad_()
            theirs, ours = (augment_shared(x, draws, STRATEGY) for x in (real.normalised(label)[rows], leaf))
            target, features = (Features.of(1, *network.features(x)) for x in (theirs, ours))
            loss = term.loss(term.statistics(target), term.statistics(features), features).sum()
            velocity[label] = MOMENTUM * velocity[label] + torch.autograd.grad(loss, leaf)[0]
            images[label] = torch.sub(leaf.detach(), velocity[label], alpha=RATE)  # rounded once, as the library does
    return images


if __name__ == "__main__":
    data = load_digits()
    part, test = (split.of_classes([0, 1, 2, 3, 4]) for split in (data.train, data.test))
    real = RealImages(part.images, part.labels, data.normalization)
    start = {label: initial_images(real, label, COUNT, "real", SEED) for label in real.classes}
    for name, images in {"condensed": condense_by_hand(real), "random": start}.items():
        memory = ReplayMemory(images_per_class=COUNT)
        memory.add(images)
        network = ConvNet(5, *real.shape[:2], width=WIDTH)
        reinitialize(network, seed=1)
        train(network, memory.images, memory.labels, TrainingSettings(updates=200, lr=0.05), (SEED, "train"))
        print(f"{name}: {accuracy(network, test, data.normalization, torch.device('cpu')):.1f} %")
