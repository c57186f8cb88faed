"""Spatial attention matching: the intermediate-layer term of DataDAM (Sajedi et al., ICCV 2023).

Where a network looks: the channels of a feature map are summed in absolute power into one map of attention
an image. A class's mean attention on synthetic images should equal that on real ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import normalize

from clreplay.losses.layers import check_named, chosen_taps, total
from clreplay.losses.term import Term, register_term
from clreplay.networks.features import Features


def attention_maps(maps: Tensor, power: float = 4.0) -> Tensor:
    """Sum over channels of ``|F| ** power``, every image's map scaled to length one.

    Args:
        maps: (..., channels, h, w), here (classes, n, channels, h, w).
        power: the exponent p, at least 1; the higher, the more the strongest channel alone counts.

    Returns:
        (..., h * w), of Euclidean length one an image; zero where the map is zero everywhere.

    Raises:
        ValueError: ``power`` is below 1, where the gradient at zero is infinite.

    Source: DataDAM; p = 4 in the paper's table of settings, 1 in the authors' code.
    """
    _check_power(power)
    size = maps if power % 2 == 0 else maps.abs()
    return normalize((size if power == 1 else size.pow(power)).sum(-3).flatten(-2), dim=-1)


def _check_power(power: float) -> None:
    if not power >= 1:
        raise ValueError(f"power must be at least 1, got {power}")


@register_term("attention")
@dataclass(frozen=True)
class AttentionMatching(Term):
    """Squared distance of set-averaged attention maps, summed over positions and layers (DataDAM).

    The authors' total is 100 (L_att + lambda L_out) with lambda = 0.01, so the weight is 100 beside mean
    matching (their L_out) of weight 1.

    Args:
        weight: of the term.
        power: see :func:`attention_maps`.
        layers: indices of the taps used; ``None`` takes all but the last (the paper's intermediate layers).
    """

    weight: float = 0.0
    power: float = 4.0
    layers: tuple[int, ...] | None = None
    name, place = "attention_matching", 3

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_power(self.power)
        check_named(self.layers)

    def statistics(self, features: Features) -> tuple[Tensor, ...]:
        """The mean attention of every layer, (classes, h * w) each.

        Raises:
            ValueError: the network has no such layer, or only one and ``layers`` is ``None``.
        """
        return tuple(attention_maps(tap, self.power).mean(1) for tap in self._taps(features))

    def loss(self, real: tuple[Tensor, ...], synthetic: tuple[Tensor, ...], features: Features) -> Tensor:
        """Unweighted loss, (classes,)."""
        return total((target - value).square().sum(1) for target, value in zip(real, synthetic))

    def _taps(self, features: Features) -> list[Tensor]:
        if self.layers is not None:
            return chosen_taps(features, self.layers)
        if len(features.taps) < 2:
            raise ValueError(
                f"attention matching takes all layers but the last, and this network has {len(features.taps)}; "
                "set terms.attention.layers (attention_layers), e.g. [0]"
            )
        return features.taps[:-1]
