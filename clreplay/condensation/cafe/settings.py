"""Settings of CAFE."""

from __future__ import annotations

from dataclasses import dataclass

from clreplay.condensation.engine.start import INITS
from clreplay.condensation.tiles import TiledSettings
from clreplay.networks.settings import NetworkSettings
from clreplay.runtime.checks import check_choice, check_counts, check_momentum, check_not_negative, check_positive
from clreplay.training.augmentation import parse_strategy


@dataclass(frozen=True)
class CafeSettings(TiledSettings, NetworkSettings):
    """Settings of CAFE. The defaults are those of the authors' code without augmentation.

    Attributes:
        iterations: outer iterations, each with a fresh network.
        lr_img, momentum_img: SGD on the images.
        halve_at: parts of the iterations after which the images' learning rate halves.
        real_batch: real images a class and image step, without replacement; a smaller class is used whole.
        init: ``noise`` starts from N(0, 1), ``real`` from random real images of the class.
        siamese_augment: augmentation shared by real and synthetic images of a class in an image step; the
            network's training uses the same one, with parameters per image. None is plain CAFE. See
            :func:`clreplay.training.augmentation.parse_strategy`.
        earlier_weight, last_weight, embedding_weight: of the layers, see :class:`clreplay.losses.LayerAlignment`.
        discrimination_weight: of :func:`clreplay.losses.discrimination`.
        lr_net: SGD on the network, without momentum and weight decay.
        batch_net: images a step of the network's training.
        accuracy_images: real training images a class whose accuracy steers both loops.
        window: accuracies that are looked at.
        carry_accuracies: an accuracy that steers a loop has the value before it, divided by the number of classes,
            added to it, as in the authors' code: their sum over classes starts from the last mean. So a series rises
            at its start even where the network does not change. Every network, and every training between two image
            steps, starts a series of its own.
        settled_within: a network is done with once the last accuracies, one an image step, are less than this apart.
        moved_beyond: between two image steps it trains until the last accuracies, one an epoch, are more than this
            apart.
        max_image_steps: image steps with one network at most. This limit and the next are ours, so that every run
            ends; the authors' loops have none. With 10 classes they bind in a few percent of the loops; with 100
            classes the authors' loop may not end without one.
        max_epochs: epochs between two image steps at most.
        tiles: see :class:`TiledSettings`.
    """

    iterations: int = 2000
    lr_img: float = 0.1
    momentum_img: float = 0.5
    halve_at: tuple[float, ...] = (0.6, 0.8, 0.9)
    real_batch: int = 256
    init: str = "noise"
    siamese_augment: str | None = None
    earlier_weight: float = 0.1
    last_weight: float = 1.0
    embedding_weight: float = 2.0
    discrimination_weight: float = 0.01
    lr_net: float = 0.01
    batch_net: int = 256
    accuracy_images: int = 128
    window: int = 10
    carry_accuracies: bool = True
    settled_within: float = 0.04
    moved_beyond: float = 0.03
    max_image_steps: int = 50
    max_epochs: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_strategy(self.siamese_augment, "siamese_augment")
        check_choice("init", self.init, INITS)
        counts = ("iterations", "real_batch", "batch_net", "accuracy_images", "max_image_steps", "max_epochs")
        check_counts(self, *counts)
        if self.window < 2:
            raise ValueError(f"window must be at least 2 accuracies, got {self.window}")
        check_positive(self, "lr_img", "lr_net")
        check_momentum(self, "momentum_img")
        for part in self.halve_at:
            if not 0 < part < 1:
                raise ValueError(f"halve_at must hold parts of the iterations within (0, 1), got {part}")
        weights = ("earlier_weight", "last_weight", "embedding_weight", "discrimination_weight")
        check_not_negative(self, *weights, "settled_within", "moved_beyond")
        if not any(getattr(self, name) for name in weights):
            raise ValueError(f"every term has weight zero; give one of {', '.join(weights)} a positive value")

    def lr_at(self, iteration: int) -> float:
        """Learning rate of the images in an outer iteration, counted from 0."""
        halvings = sum(iteration >= round(part * self.iterations) for part in self.halve_at)
        return self.lr_img * 0.5**halvings
