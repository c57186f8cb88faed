"""Settings of gradient matching (DC, DSA)."""

from __future__ import annotations

from dataclasses import dataclass

from clreplay.condensation.engine.start import INITS
from clreplay.condensation.tiles import TiledSettings
from clreplay.losses.gradient_distance import DISTANCES
from clreplay.networks.settings import NetworkSettings
from clreplay.runtime.checks import check_choice, check_counts, check_momentum, check_positive
from clreplay.training.augmentation import parse_strategy

PUBLISHED_LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
"""Matching steps a network and epochs between two of them, by images a class (the authors' code)."""
MANY = 100
"""From so many images a class on, an author's advice is the numbers of 50 images."""


@dataclass(frozen=True)
class GradientSettings(TiledSettings, NetworkSettings):
    """Settings of gradient matching. The defaults are DC's.

    Attributes:
        iterations: outer iterations, each with a fresh network.
        outer_loops: matching steps a network, each an image update; null takes the published number.
        inner_epochs: epochs that the network trains on the synthetic images after every matching step but the
            last; null takes the published number. Published are both for 1, 10, 20, 30, 40 and 50 images a class.
        lr_img, momentum_img: SGD on the images.
        lr_net: SGD on the network, without momentum and weight decay.
        batch_net: images a step of the network's training.
        real_batch: real images a class and matching step, without replacement; a smaller class is used whole.
        init: ``noise`` starts from N(0, 1), ``real`` from random real images of the class.
        siamese_augment: augmentation shared by real and synthetic images of a class, see
            :func:`clreplay.training.augmentation.parse_strategy`.
        inner_augment: augmentation of the network's training, with parameters per image.
        distance: of the gradients, see :mod:`clreplay.losses.gradient_distance`: ``row_cosine``, ``whole_cosine``
            or ``squared``.
        statistics_batch: with batch norm, real images a class whose forward pass sets the statistics that a
            matching step is done under.
        tiles: see :class:`TiledSettings`; the published loops are those for as many stored images. Gradient matching
            with them is what IDC does.
    """

    iterations: int = 1000
    outer_loops: int | None = None
    inner_epochs: int | None = None
    lr_img: float = 0.1
    momentum_img: float = 0.5
    lr_net: float = 0.01
    batch_net: int = 256
    real_batch: int = 256
    init: str = "noise"
    siamese_augment: str | None = None
    inner_augment: str | None = None
    distance: str = "row_cosine"
    statistics_batch: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("siamese_augment", "inner_augment"):
            parse_strategy(getattr(self, name), name)
        check_counts(self, "iterations", "outer_loops", "inner_epochs", "batch_net", "real_batch", "statistics_batch")
        check_choice("init", self.init, INITS)
        check_choice("distance", self.distance, tuple(DISTANCES))
        check_positive(self, "lr_img", "lr_net")
        check_momentum(self, "momentum_img")

    def loops(self, images_per_class: int) -> tuple[int, int]:
        """Matching steps a network, and epochs between two of them.

        Args:
            images_per_class: the largest number of synthetic images of any class.

        Raises:
            ValueError: a number is to be the published one, and none is published for so many images.
        """
        asked = (self.outer_loops, self.inner_epochs)
        if None not in asked:
            return self.outer_loops, self.inner_epochs
        published = PUBLISHED_LOOPS.get(50 if images_per_class >= MANY else images_per_class)
        if published is None:
            missing = [name for name in ("outer_loops", "inner_epochs") if getattr(self, name) is None]
            raise ValueError(
                f"{' and '.join(missing)} must be given for {images_per_class} images a class: the published numbers "
                f"(outer_loops, inner_epochs) are "
                + ", ".join(f"{numbers} for {count}" for count, numbers in PUBLISHED_LOOPS.items())
                + f" and {PUBLISHED_LOOPS[50]} for {MANY} and more; give them (outer_loops=..., inner_epochs=...), "
                "or store one of these numbers of images a class"
            )
        steps, epochs = (known if given is None else given for known, given in zip(published, asked))
        return steps, epochs
