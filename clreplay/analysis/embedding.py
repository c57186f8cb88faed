"""Where images lie for a trained network: their style and their embedding, in two dimensions and in numbers.

The paper's Fig. 1a, 9 show the style of real and condensed images, Fig. 1b, 4a and 4b their embedding, both by t-SNE
and as pictures only. The numbers beside them are this library's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clreplay.networks.base import Network

if TYPE_CHECKING:
    import pandas as pd

Sets = Mapping[str, Mapping[int, Tensor]]
"""Images by class, (n, c, h, w) normalised, of every memory by its name; ``real`` names real ones."""
REAL = "real"
BATCH = 256


@torch.no_grad()
def style_vectors(network: Network, images: Tensor) -> Tensor:
    """The style of images in the first block: mean and variance of every channel of its map after the activation.

    Args:
        network: trained on real images.
        images: (n, c, h, w), normalised.

    Returns:
        (n, 2 * channels), 256 values at width 128.

    Source: DDM paper, Fig. 1a and 9.
    """
    device, found = next(network.parameters()).device, []
    for part in images.split(BATCH):
        _, taps = network.features(part.to(device))
        pixels = taps[0].flatten(2)
        found.append(torch.cat([pixels.mean(2), pixels.var(2, correction=0)], 1).cpu())
    return torch.cat(found)


@torch.no_grad()
def embeddings(network: Network, images: Tensor) -> Tensor:
    """What the classifier reads of images, (n, embedding size)."""
    device = next(network.parameters()).device
    return torch.cat([network.embedding(part.to(device)).cpu() for part in images.split(BATCH)])


POINTS = {"style": style_vectors, "embedding": embeddings}
"""What a network says of an image, as a vector."""


def in_two_dimensions(network: Network, sets: Sets, what: str = "embedding", seed: int = 0) -> pd.DataFrame:
    """t-SNE of images of all sets together: only points of one map may be compared.

    Args:
        network: trained on real images; in evaluation mode.
        sets: see :data:`Sets`.
        what: a key of :data:`POINTS`.
        seed: of t-SNE, which starts from principal components; its perplexity is min(30, n / 4).

    Returns:
        a row an image: ``set``, ``label``, ``x``, ``y``.

    Raises:
        ValueError: ``what`` is something else, or there are fewer than 4 images.
    """
    import pandas as pd
    from sklearn.manifold import TSNE

    if what not in POINTS:
        raise ValueError(f"what must be one of {', '.join(POINTS)}, got {what!r}")
    vectors, rows = [], []
    for name, images in sets.items():
        for label, some in images.items():
            vectors.append(POINTS[what](network, some))
            rows += [{"set": name, "label": label}] * len(some)
    points = torch.cat(vectors).double().numpy()
    if len(points) < 4:
        raise ValueError(f"a map needs at least 4 images, got {len(points)}; take more, or more classes")
    points = (points - points.mean(0)) / np.maximum(points.std(0), 1e-8)
    perplexity = min(30.0, len(points) / 4)
    found = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(points)
    return pd.DataFrame(rows).assign(x=found[:, 0], y=found[:, 1])


def diversity(network: Network, sets: Sets, real: Mapping[int, Tensor]) -> pd.DataFrame:
    """How widely the images of a class are spread in the embedding, and how much of the class they stand for.

    Args:
        network: trained on real images; in evaluation mode.
        sets: see :data:`Sets`; a further sample of real images among them shows what is usual.
        real: real images of every class of the sets, many of them.

    Returns:
        a row a set and class: ``set``, ``label``, ``images``; ``spread``: mean distance between two images of the set,
        over the same of the real ones, NaN for a single image; ``nearest``: mean distance from a real image to the
        image of the set nearest to it, over the real images' mean distance from one another (lower is better covered);
        ``used``: share of the set's images that are nearest to some real image at all.

    Raises:
        ValueError: a class has fewer than two real images.
    """
    import pandas as pd

    theirs: dict[int, tuple[Tensor, float]] = {}
    for label in dict.fromkeys(label for images in sets.values() for label in images):
        if len(real.get(label, ())) < 2:
            raise ValueError(f"real must have at least 2 images of class {label}")
        vectors = embeddings(network, real[label])
        theirs[label] = vectors, _mean_distance(vectors)
    rows = []
    for name, images in sets.items():
        for label, some in images.items():
            vectors, usual = theirs[label]
            own = embeddings(network, some)
            distances = torch.cdist(vectors.double(), own.double())
            nearest = distances.min(1)
            rows.append(
                {
                    "set": name,
                    "label": label,
                    "images": len(own),
                    "spread": _mean_distance(own) / usual if len(own) > 1 else float("nan"),
                    "nearest": nearest.values.mean().item() / usual,
                    "used": len(nearest.indices.unique()) / len(own),
                }
            )
    return pd.DataFrame(rows)


def _mean_distance(vectors: Tensor) -> float:
    """Between two different ones."""
    return F.pdist(vectors.double()).mean().item()


def style_distance(network: Network, sets: Sets, real: Mapping[int, Tensor]) -> pd.DataFrame:
    """How far the style of a set's images is from that of real images of the same class, as the trained network has it.

    Args:
        network, sets, real: see :func:`diversity`.

    Returns:
        a row a set and class: ``set``, ``label``; ``shift``: distance between the mean style vectors of the set and of
        the real images, every coordinate over the real images' standard deviation in it, root mean square; so 0 is
        alike, and 1 is as far as a typical real image is from the mean. ``outside``: share of coordinates in which the
        set's mean lies beyond two standard deviations.
    """
    import pandas as pd

    rows = []
    theirs = {}
    for label, some in real.items():
        vectors = style_vectors(network, some).double()
        theirs[label] = vectors.mean(0), vectors.std(0).clamp_min(1e-8)
    for name, images in sets.items():
        for label, some in images.items():
            mean, std = theirs[label]
            apart = (style_vectors(network, some).double().mean(0) - mean) / std
            shift, outside = apart.square().mean().sqrt().item(), (apart.abs() > 2).double().mean().item()
            rows.append({"set": name, "label": label, "shift": shift, "outside": outside})
    return pd.DataFrame(rows)
