"""IDM (Zhao et al., CVPR 2023): improved distribution matching.

Every quadrant of a stored image acts as an image of its own, in condensation as in training on the memory, so N
stored images act as 4N. Features are those of a queue of networks that train beside the condensation, and the
better the network of an iteration classifies, the more its cross-entropy on the synthetic images counts. The queue
trains on all classes together, so they depend on one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clreplay.condensation.engine.calibration import choose_execution
from clreplay.condensation.engine.execution import Execution
from clreplay.condensation.matching.dm import MATCHING_EXECUTION
from clreplay.condensation.matching.engine import MatchingEngine
from clreplay.condensation.matching.network_queue import NetworkQueue, QueueSettings
from clreplay.condensation.matching.settings import MatchingSettings
from clreplay.condensation.matching.terms import terms_of
from clreplay.condensation.matching.tiled_start import tiled_images
from clreplay.condensation.real_images import RealImages
from clreplay.condensation.registry import register
from clreplay.losses import Term, TrustedCrossEntropy
from clreplay.memory.decoders import decoder
from clreplay.runtime.checks import check_not_negative

DECODING = "tiles2"


@dataclass(frozen=True)
class IDMSettings(MatchingSettings, QueueSettings):
    """Settings of the matching engine and of the queue, and the weight of the cross-entropy.

    Attributes:
        init: ``real`` starts every quadrant from another random real image of the class at half its size.
        network_reuse: as in :class:`MatchingSettings`; the queue counts iterations that share a network as one.
        ce_weight: of the cross-entropy times the network's training accuracy in percent, beside mean matching of
            weight 1; 0 leaves it out.
    """

    lr_img: float = 0.2
    ce_weight: float = 0.5

    def __post_init__(self) -> None:
        MatchingSettings.__post_init__(self)
        QueueSettings.__post_init__(self)
        check_not_negative(self, "ce_weight")


def check_quadrants(settings: IDMSettings, counts: Mapping[int, int], shape: tuple[int, int, int]) -> None:
    """Images must have quadrants.

    Raises:
        ValueError: their sides are odd.
    """
    if shape[1] % 2 or shape[2] % 2:
        raise ValueError(
            f"idm splits images into quadrants: height and width must be even, got {shape[1]} x {shape[2]}; "
            "pad or resize the images"
        )


def choose_image_execution(
    settings: IDMSettings, execution: Execution, real: RealImages, counts: dict[int, int], device: torch.device
) -> tuple[IDMSettings, Execution]:
    """What is fastest, by trying image updates alone: the queue's training is the same in every way."""
    untrained = replace(settings, queue_steps=0)
    found, chosen = choose_execution(IDM, untrained, execution, real, counts, device)
    return replace(found, queue_steps=settings.queue_steps), chosen


@register(
    "idm",
    IDMSettings,
    decoding=lambda settings: DECODING,
    choose_execution=choose_image_execution,
    check=check_quadrants,
    execution=MATCHING_EXECUTION,
    engine=True,
)
class IDM(MatchingEngine):
    """The matching engine with expanded images, a queue of networks and a term that asks them for the class.

    Args:
        real, settings, seed, device, execution: see :class:`MatchingEngine`.
        counts: stored images of every class.

    Raises:
        ValueError: the images cannot be split into quadrants, or a class has fewer real images than are to
            be made of it.
    """

    settings: IDMSettings
    first_images = staticmethod(tiled_images)
    decoding = DECODING

    def set_up(self) -> None:
        """See :class:`~clreplay.condensation.engine.base.Engine`."""
        check_quadrants(self.settings, self.counts, self.real.shape)
        self.tiles = decoder(DECODING)
        super().set_up()

    def make_networks(self) -> NetworkQueue:
        """A queue whose networks have an output a class, and train on all images of the experience."""
        real = self.real
        # Class after class: how an experience interleaves them must not matter. Where they lie so, nothing is copied.
        rows = torch.cat([real.rows(label) for label in real.classes])
        images = real.images if torch.equal(rows, torch.arange(len(real.images))) else real.images[rows]
        outputs = torch.cat([torch.full((real.count(label),), i) for i, label in enumerate(real.classes)])
        where = self.device if self._resident() else images.device
        network = self.settings.build(len(real.classes), *real.shape[:2]).to(self.device)
        codes = real.normalization if images.dtype == torch.uint8 else None
        return NetworkQueue(network, images.to(where), outputs.to(where), self.settings, self.seed, codes)

    def terms(self, labels: list[int], count: int) -> list[Term]:
        """The terms that the settings compose, on expanded images, and the cross-entropy."""
        terms = terms_of(self.settings, count * self.tiles.images_each)
        if self.settings.ce_weight > 0:
            outputs = torch.tensor([self.real.classes.index(label) for label in labels], device=self.device)
            terms.append(TrustedCrossEntropy(self.settings.ce_weight, outputs, self.networks))
        return terms

    def seen(self, synthetic: Tensor) -> Tensor:
        """Partition and expansion: (classes, n, c, h, w) to (classes, 4n, c, h, w)."""
        return self.tiles(synthetic.flatten(0, 1)).unflatten(0, (len(synthetic), -1))
