"""IDM (Zhao et al., CVPR 2023): improved distribution matching.

Every quadrant of a stored image acts as an image of its own, in condensation as in training on the memory, so N
stored images act as 4N. Features are those of a queue of networks that train beside the condensation, and the
better the network of an iteration classifies, the more its cross-entropy on the synthetic images counts. The queue
trains on all classes together, so they depend on one another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from clreplay.condensation.engine.calibration import choose_execution
from clreplay.condensation.engine.execution import Execution
from clreplay.condensation.matching.dm import MATCHING_EXECUTION
from clreplay.condensation.matching.engine import MatchingEngine
from clreplay.condensation.matching.network_queue import NetworkQueue, QueueSettings
from clreplay.condensation.matching.settings import MatchingSettings
from clreplay.condensation.real_images import RealImages
from clreplay.condensation.registry import register
from clreplay.condensation.tiles import check_tiles, decoding
from clreplay.losses import Term, TrustedCrossEntropy
from clreplay.runtime.checks import check_not_negative
from clreplay.runtime.later import later


@dataclass(frozen=True)
class IDMSettings(MatchingSettings, QueueSettings):
    """Settings of the matching engine and of the queue, and the weight of the cross-entropy.

    Attributes:
        tiles: as in :class:`MatchingSettings`; 2 is the authors'.
        network_reuse: as in :class:`MatchingSettings`; the queue counts iterations that share a network as one.
        ce_weight: of the cross-entropy times the network's training accuracy in percent, beside mean matching of
            weight 1; 0 leaves it out.
    """

    lr_img: float = 0.2
    tiles: int = later(2)
    ce_weight: float = 0.5

    def __post_init__(self) -> None:
        MatchingSettings.__post_init__(self)
        QueueSettings.__post_init__(self)
        if self.encoders != "random":
            raise ValueError(
                f"encoders must be random for idm, whose networks are those of its queue, got {self.encoders!r}"
            )
        check_not_negative(self, "ce_weight")


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
    decoding=decoding,
    choose_execution=choose_image_execution,
    check=check_tiles,
    execution=MATCHING_EXECUTION,
    engine=True,
)
class IDM(MatchingEngine):
    """The matching engine with expanded images, a queue of networks and a term that asks them for the class.

    Args:
        real, settings, seed, device, execution: see :class:`MatchingEngine`.
        counts: stored images of every class.
    """

    settings: IDMSettings

    def make_networks(self) -> NetworkQueue:
        """A queue whose networks have an output a class, and train on all images of the experience."""
        images, outputs, codes = self.training_set()
        network = self.settings.build_for(len(self.real.classes), self.real.shape).to(self.device)
        return NetworkQueue(network, images, outputs, self.settings, self.seed, codes)

    def terms(self, labels: list[int], count: int) -> list[Term]:
        """The terms that the settings compose, on expanded images, and the cross-entropy."""
        terms = super().terms(labels, count)
        if self.settings.ce_weight > 0:
            terms.append(TrustedCrossEntropy(self.settings.ce_weight, self.outputs(labels), self.networks))
        return terms
