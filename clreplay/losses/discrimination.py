"""Discrimination: synthetic class centres must tell real features apart (CAFE, Wang et al., CVPR 2022)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def discrimination(real: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    """Cross-entropy of real embeddings whose logits are their dot products with the classes' centres.

    Args:
        real: (n, d), embeddings of real images of all classes.
        labels: (n,), the row of ``centres`` that each belongs to.
        centres: (classes, d), mean embeddings of the synthetic images.

    Returns:
        a scalar, **summed** over the real images as in the authors' code. It mixes the classes.
    """
    return F.cross_entropy(real @ centres.T, labels, reduction="sum")
