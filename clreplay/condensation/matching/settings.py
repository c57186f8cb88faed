"""Settings of the matching engine; those of the terms follow from the terms' classes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from clreplay.condensation.matching.encoders import EncoderSettings
from clreplay.condensation.matching.terms import SHIPPED, TermSettings, described, whole_terms
from clreplay.condensation.tiles import check_factor
from clreplay.networks.settings import NetworkSettings
from clreplay.runtime.checks import check_choice, check_counts, check_momentum, check_positive
from clreplay.runtime.later import later
from clreplay.runtime.precision import PRECISIONS
from clreplay.training.augmentation import DSA_STRATEGY, parse_strategy


@dataclass(frozen=True)
class MatchingSettings(EncoderSettings, TermSettings, NetworkSettings):
    """Settings of the matching engine. The defaults are DM's; a term of weight zero is not computed.

    Beside the attributes below, every setting of every term is one, by its flat name.

    Attributes:
        iterations: image updates, each with one network.
        lr_img, momentum_img: SGD on the images.
        real_batch: real images a class and iteration, without replacement; a smaller class is used whole.
        init: ``real`` starts from random real images of the class, ``noise`` from N(0, 1).
        siamese_augment: augmentation shared by real and synthetic images of a class, see
            :func:`clreplay.training.augmentation.parse_strategy`.
        network_reuse: iterations that share one network, its real batch and its augmentation; above 1 the
            statistics of the real side are computed once for all of them.
        precision: of the convolutions, ``float32``, ``tf32`` (what PyTorch does by default on NVIDIA GPUs;
            elsewhere the same as float32), ``bfloat16`` (fast on GPUs and on CPUs with ``avx512_bf16``), or
            ``auto`` to take bfloat16 where it is faster. Augmentation, statistics, losses and images are single
            precision in all of them.
        tiles: store this many small images in a row and in a column of one, and show the network each of them
            enlarged, as training on the memory does; ``real`` then starts every tile from another real image (IDC's
            ``mix``). Terms that count images of a class count those.
        image_space: ``normalised`` moves the images where networks see them, without bounds (DM). ``pixels`` moves
            pixel values between 0 and 1 and keeps them within (IDC, DANCE, TGDD); a rate there moves as much as one
            1 / std^2 as large does in normalised space, about 16 times for CIFAR.
        lr_times_images: multiply ``lr_img`` by the stored images of a class, as IDC, DANCE and TGDD do: every image
            then moves as fast, however many share the gradient of their mean.
    """

    iterations: int = 20_000
    lr_img: float = 1.0
    momentum_img: float = 0.5
    real_batch: int = 256
    init: str = "real"
    siamese_augment: str | None = DSA_STRATEGY
    network_reuse: int = 1
    precision: str = "float32"
    tiles: int = later(1)
    image_space: str = later("normalised")
    lr_times_images: bool = later(False)

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_strategy(self.siamese_augment, "siamese_augment")
        check_counts(self, "iterations", "real_batch", "network_reuse")
        check_choice("init", self.init, ("real", "noise"))
        check_choice("precision", self.precision, (*PRECISIONS, "auto"))
        check_positive(self, "lr_img")
        check_momentum(self, "momentum_img")
        check_factor(self)
        check_choice("image_space", self.image_space, ("normalised", "pixels"))
        self.check_encoders()
        whole_terms(self)

    def plain(self, device: torch.device) -> MatchingSettings:
        """The same with ``precision`` as it is without measuring, and TF32 only where there is such a thing."""
        single = self.precision == "auto" or (self.precision == "tf32" and device.type != "cuda")
        return replace(self, precision="float32") if single else self


MatchingSettings.__doc__ = f"{MatchingSettings.__doc__}{described(SHIPPED)}"


def under_random_networks(settings: MatchingSettings) -> MatchingSettings:
    """The same without trained encoders: iterations take as long, but for the constraint, and nothing precedes them."""
    return replace(settings, encoders="random", constraint_weight=0.0)


def is_separable(settings: MatchingSettings) -> bool:
    """Whether a class comes out the same beside any others, and may be cached under its settings.

    Batch statistics mix the classes, and so do networks trained on all of them; everything else of a matching loss
    separates over them. Where the code of a term
    may have changed unseen, nothing may be taken from the cache.
    """
    return settings.norm != "batch" and settings.encoders == "random" and settings.is_traced
