"""Cross-entropy of synthetic images under trained networks: what keeps the classes apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from clreplay.losses.term import Term
from clreplay.networks import Network
from clreplay.networks.features import Features


def class_cross_entropy(logits: Tensor, outputs: Tensor) -> Tensor:
    """Cross-entropy, mean over the images of a class.

    Args:
        logits: (classes, n, outputs of the network).
        outputs: (classes,), the output that stands for each class.

    Returns:
        (classes,).
    """
    wanted = outputs.repeat_interleave(logits.shape[1])
    each = F.cross_entropy(logits.flatten(0, 1), wanted, reduction="none")
    mean: Tensor = each.unflatten(0, logits.shape[:2]).mean(1)
    return mean


class Judge(Protocol):
    """A network that was trained, and how well: the accuracy is a scalar tensor in percent, from 0 to 100."""

    network: Network
    accuracy: Tensor


@dataclass(frozen=True)
class TrustedCrossEntropy(Term):
    """The accuracy of a network in percent, times its cross-entropy on a class's synthetic images, one value a class.

    Args:
        weight: of the term; 0.1 to 0.8 in the paper, beside mean matching of weight 1.
        outputs: (classes,), the output of the network that stands for each class.
        judge: gives network and accuracy as they are when the loss is asked for; the features must be its.

    Source: IDM (Zhao et al., CVPR 2023), the regularisation by class; the factor in percent, not a fraction, is that
    of the authors' code.
    """

    weight: float
    outputs: Tensor
    judge: Judge
    name = "cross_entropy"
    reads_maps = False

    def loss(self, real: tuple[Tensor, ...], synthetic: tuple[Tensor, ...], features: Features) -> Tensor:
        """Unweighted loss, (classes,)."""
        logits = self.judge.network.classifier(features.embedding)
        return self.judge.accuracy * class_cross_entropy(logits, self.outputs)


class ClassJudge(Protocol):
    """What a trained network says of images whose features are known: logits (classes, n, outputs)."""

    def logits(self, features: Features) -> Tensor: ...


@dataclass(frozen=True)
class ClassConstraint(Term):
    """Cross-entropy of a class's synthetic images under a trained network, one value a class.

    Args:
        weight: of the term; 1 in both papers, beside mean matching of weight 1.
        outputs: (classes,), the output of the network that stands for each class.
        judge: gives logits of the images whose features are at hand.

    Source: TGDD (AAAI 2026), the constraint by a network further on along the trajectory; DANCE (IJCAI 2024), the
    calibration by a trained expert. There it is an image step of its own, here a term of the same step.
    """

    weight: float
    outputs: Tensor
    judge: ClassJudge
    name = "constraint"
    reads_maps = False

    def loss(self, real: tuple[Tensor, ...], synthetic: tuple[Tensor, ...], features: Features) -> Tensor:
        """Unweighted loss, (classes,)."""
        return class_cross_entropy(self.judge.logits(features), self.outputs)
