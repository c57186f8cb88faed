"""The style gap: how far the style of condensed images is from that of real ones, in random networks.

The style of an image in a layer are the mean and the standard deviation of every channel over its pixels. Random
networks, not trained ones: they are what images are condensed with, and the first convolution of one is a random
projection of 3 x 3 patches, so its statistics are the images' colour, contrast and texture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clreplay.losses.style import RELATIVE_EPSILON, channel_moments, gram
from clreplay.networks import reinitialize
from clreplay.networks.settings import NetworkSettings
from clreplay.runtime.seeding import key_seed

if TYPE_CHECKING:
    import pandas as pd

STATISTICS = ("mean", "std", "gram")


@torch.no_grad()
def style_gap(
    images: Mapping[int, Tensor],
    real: Mapping[int, Tensor],
    network: NetworkSettings | None = None,
    *,
    networks: int = 5,
    point: str = "conv",
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """Style of some images beside that of real images of the same classes.

    Args:
        images: by class, (n, c, h, w), normalised.
        real: the same of real images; classes that ``images`` does not have are left out.
        network: which random network; the ConvNet of the tables by default.
        networks: how many are drawn.
        point: where in a block, one of :data:`clreplay.networks.base.TAP_POINTS`.
        seed, device: as everywhere.

    Returns:
        one row a network, class and layer (from 1): ``network``, ``label``, ``layer``; ``mean_gap``, ``std_gap`` and
        ``gram_gap``: squared difference of the set's average channel means, channel standard deviations and Gram
        matrix, over the square of the real ones, so 0 is alike and 1 is as far as nothing at all;
        ``std_ratio``: the average standard deviation over the real one, above 1 where contrast has grown.

    Raises:
        ValueError: a class of ``images`` has no real images.
    """
    import pandas as pd

    if absent := sorted(set(images) - set(real)):
        raise ValueError(f"real must have images of every class of the memory; it has none of {absent}")
    settings, device = network or NetworkSettings(), torch.device(device)
    shape = next(iter(images.values())).shape[1:]
    rows = []
    for number in range(networks):
        drawn = settings.build_for(max(2, len(images)), shape)
        reinitialize(drawn, key_seed(seed, "style gap", number))
        drawn = drawn.to(device).eval()
        for label, ours in images.items():
            pairs = (_styles(drawn, some.to(device), point) for some in (ours, real[label]))
            for layer, (found, wanted) in enumerate(zip(*pairs), start=1):
                gaps = {f"{name}_gap": _relative(found[name], wanted[name]) for name in STATISTICS}
                ratio = (found["std"].mean() / wanted["std"].mean()).item()
                rows.append({"network": number, "label": label, "layer": layer, **gaps, "std_ratio": ratio})
    return pd.DataFrame(rows)


def _styles(network: torch.nn.Module, images: Tensor, point: str, batch: int = 256) -> list[dict[str, Tensor]]:
    """By layer, the statistics averaged over the images."""
    found: list[dict[str, Tensor]] = []
    for part in images.split(batch):
        _, taps = network.features_at(part, (point,))
        for layer, maps in enumerate(taps[point]):
            maps = maps.unsqueeze(0)
            values = dict(zip(STATISTICS, (*channel_moments(maps, spread="biased_std"), gram(maps))))
            if layer == len(found):
                found.append(dict.fromkeys(STATISTICS, 0.0))
            for name in STATISTICS:
                found[layer][name] = found[layer][name] + values[name][0] * (len(part) / len(images))
    return found


def _relative(found: Tensor, wanted: Tensor) -> float:
    return ((found - wanted).square().mean() / (wanted.square().mean() + RELATIVE_EPSILON)).item()
