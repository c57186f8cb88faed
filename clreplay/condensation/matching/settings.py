"""Settings of the matching engine, and the terms they compose."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from clreplay.losses.attention import check_power
from clreplay.networks.fused_forward import PRECISIONS
from clreplay.networks.settings import NetworkSettings
from clreplay.runtime.checks import check_choice, check_counts, check_momentum, check_not_negative, check_positive
from clreplay.training.augmentation import DSA_STRATEGY, parse_strategy


@dataclass(frozen=True)
class MatchingSettings(NetworkSettings):
    """Settings of the matching engine. The defaults are DM's; a term of weight zero is not computed.

    Attributes:
        iterations: image updates, each with one network.
        lr_img, momentum_img: SGD on the images.
        real_batch: real images a class and iteration, without replacement; a smaller class is used whole.
        init: ``real`` starts from random real images of the class, ``noise`` from N(0, 1).
        siamese_augment: augmentation shared by real and synthetic images of a class, see
            :func:`clreplay.training.augmentation.parse_strategy`.
        network_reuse: iterations that share one network, its real batch and its augmentation; above 1 the
            statistics of the real side are computed once for all of them.
        mean_weight: of mean matching (L_MMD).
        style_weight: lambda, of style matching.
        alpha: share of moment matching within style matching (eq. 7).
        correlation: share of correlation matching within style matching, 1 in the paper.
        diversity_weight: beta, of intra-class diversity.
        sigma_of, spread, moment_channels: see :class:`clreplay.losses.MomentMatching`.
        gram_quarter: keep the factor 1/4 of eq. 6.
        style_layers: taps used by style matching; null takes all blocks.
        neighbours: k of the diversity term as a fraction of the images a class.
        diversity_reduction, detach_neighbours: see :func:`clreplay.losses.intra_class_diversity`.
        attention_weight: of spatial attention matching (DataDAM); 100 where mean_weight is 1.
        attention_power: its exponent p.
        attention_layers: taps used by attention matching; null takes all blocks but the last.
        precision: of the convolutions, ``float32``, ``tf32`` (what PyTorch does by default on NVIDIA GPUs;
            elsewhere the same as float32), ``bfloat16`` (fast on GPUs and on CPUs with ``avx512_bf16``), or
            ``auto`` to take bfloat16 where it is faster. Augmentation, statistics, losses and images are single
            precision in all of them.
    """

    iterations: int = 20_000
    lr_img: float = 1.0
    momentum_img: float = 0.5
    real_batch: int = 256
    init: str = "real"
    siamese_augment: str | None = DSA_STRATEGY
    network_reuse: int = 1
    mean_weight: float = 1.0
    style_weight: float = 0.0
    alpha: float = 1.0
    correlation: float = 1.0
    diversity_weight: float = 0.0
    sigma_of: str = "image"
    spread: str = "std"
    moment_channels: str = "mean"
    gram_quarter: bool = False
    style_layers: tuple[int, ...] | None = None
    neighbours: float = 0.2
    diversity_reduction: str = "mean"
    detach_neighbours: bool = False
    attention_weight: float = 0.0
    attention_power: float = 4.0
    attention_layers: tuple[int, ...] | None = None
    precision: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_strategy(self.siamese_augment, "siamese_augment")
        check_counts(self, "iterations", "real_batch", "network_reuse")
        for name, allowed in _CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        if self.style_layers is not None and not self.style_layers:
            raise ValueError("style_layers must name at least one block (or be null for all), got an empty list")
        if self.attention_layers is not None and not self.attention_layers:
            raise ValueError("attention_layers must name at least one block (or be null), got an empty list")
        check_power(self.attention_power, "attention_power")
        check_positive(self, "lr_img")
        check_momentum(self, "momentum_img")
        if not 0 < self.neighbours <= 1:
            raise ValueError(f"neighbours must be a fraction within (0, 1], got {self.neighbours}")
        weights = ("mean_weight", "style_weight", "alpha", "correlation", "diversity_weight", "attention_weight")
        check_not_negative(self, *weights)

    def plain(self, device: torch.device) -> MatchingSettings:
        """The same with ``precision`` as it is without measuring, and TF32 only where there is such a thing."""
        single = self.precision == "auto" or (self.precision == "tf32" and device.type != "cuda")
        return replace(self, precision="float32") if single else self


_CHOICES = {
    "init": ("real", "noise"),
    "precision": PRECISIONS,
    "sigma_of": ("image", "mean_map"),
    "spread": ("std", "var"),
    "moment_channels": ("mean", "sum"),
    "diversity_reduction": ("mean", "sum"),
}
