"""What the terms of a matching loss pull at: the length and direction of their gradients beside mean matching's."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch

from clreplay.condensation.engine.execution import Execution
from clreplay.condensation.matching.engine import MatchingEngine
from clreplay.condensation.real_images import RealImages


def gradient_shares(
    real: RealImages,
    counts: dict[int, int],
    settings: Any,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    networks: int = 3,
) -> pd.DataFrame:
    """Gradients of every term with respect to the first synthetic images, under some random networks.

    A weight that means something at one width, resolution or number of images means something else at another; the
    share of a term's gradient is what compares.

    Args:
        real, counts: as of every condenser.
        settings: :class:`clreplay.condensation.matching.settings.MatchingSettings`, mean matching among its terms.
        seed, device: as of every condenser.
        networks: how many draws.

    Returns:
        one row a network, class and term: ``network``, ``label``, ``term``, ``weight``, ``share`` (length of the
        weighted gradient over that of mean matching), ``cosine`` (with mean matching's gradient).

    Raises:
        ValueError: mean matching is not among the terms.
    """
    device = torch.device(device)
    execution = Execution(parallel="operators", classes_at_once=1)
    engine = MatchingEngine(real, counts, settings, seed, device, execution)
    rows = []
    try:
        for number in range(networks):
            engine.networks.take(number)
            for group in engine.groups:
                synthetic, values = engine.losses(group, number)
                if "mean_matching" not in values:
                    raise ValueError("mean matching must be among the terms: shares are relative to its gradient")
                gradients = {
                    term.name: term.weight
                    * torch.autograd.grad(values[term.name].sum(), synthetic, retain_graph=True)[0].flatten(1)
                    for term in group.terms
                }
                base = gradients["mean_matching"]
                for term in group.terms:
                    found = gradients[term.name]
                    shares = found.norm(dim=1) / base.norm(dim=1)
                    cosines = torch.nn.functional.cosine_similarity(found, base, dim=1)
                    rows += [
                        dict(
                            network=number, label=label, term=term.name, weight=term.weight, share=share, cosine=cosine
                        )
                        for label, share, cosine in zip(group.labels, shares.tolist(), cosines.tolist())
                    ]
    finally:
        engine.close()
    return pd.DataFrame(rows)
