"""Which real images are nearest to those of a memory: what they were made of, or stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clreplay.analysis.canvas import block_figure, saved
from clreplay.analysis.embedding import embeddings
from clreplay.data import ImageSet
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.networks.base import Network

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def nearest_real(
    images: Mapping[int, Tensor], real: Mapping[int, Tensor], network: Network | None = None
) -> pd.DataFrame:
    """The real image of the same class nearest to every image.

    Args:
        images: by class, (n, c, h, w), normalised.
        real: the same of real images.
        network: trained on real images, in evaluation mode: distances are of its embedding; None takes those of pixels.

    Returns:
        a row an image: ``label``, ``image`` (its number within the class), ``nearest`` (the row of the real image among
        those of its class), ``distance``, over the mean distance of a real image to the nearest other one of its class,
        so 1 is as near as real images are to one another.

    Raises:
        ValueError: a class has fewer than two real images.
    """
    import pandas as pd

    def vectors(some: Tensor) -> Tensor:
        return (some.flatten(1) if network is None else embeddings(network, some)).double()

    rows = []
    for label, own in images.items():
        if len(real.get(label, ())) < 2:
            raise ValueError(f"real must have at least 2 images of class {label}")
        theirs = vectors(real[label])
        apart = torch.cdist(theirs, theirs).fill_diagonal_(float("inf"))
        usual = apart.min(1).values.mean().item()
        found = torch.cdist(vectors(own), theirs).min(1)
        for number, (place, distance) in enumerate(zip(found.indices.tolist(), found.values.tolist())):
            rows.append({"label": label, "image": number, "nearest": place, "distance": distance / usual})
    return pd.DataFrame(rows)


def nearest_figure(
    memory: ReplayMemory,
    real: ImageSet,
    network: Network | None = None,
    *,
    class_names: Sequence[str],
    columns: int = 3,
    path: str | Path | None = None,
) -> Figure:
    """Images of a memory beside the real image nearest to each: by pixels, and as a network sees them.

    Args:
        memory: of these data; real images are normalised as its own are.
        real: the training images.
        network: see :func:`nearest_real`; None leaves its block out.
        class_names: one name a label.
        columns: images of a class at most.
        path: ``.png`` or ``.pdf`` to write as well.

    Raises:
        ValueError: the memory is empty or does not know its normalisation, or as :func:`nearest_real`.
    """
    if not len(memory) or memory.normalization is None:
        raise ValueError("memory must hold images and know their normalization; condense(..., normalization=...) does")
    labels = sorted(memory.classes)
    own = {label: memory.stored_images(label)[:columns] for label in labels}
    codes = {label: real.class_images(label).cpu() for label in labels}
    theirs = {label: memory.normalization.apply(some) for label, some in codes.items()}
    blocks = [("In memory", [memory.pixels(label)[:columns] for label in labels])]
    ways = [("Nearest real, by pixels", None)]
    if network is not None:
        ways.append(("Nearest real, to a network", network))
    for title, looking in ways:
        found = nearest_real(own, theirs, looking).groupby("label", sort=False).nearest
        blocks.append((title, [codes[label][found.get_group(label).tolist()] / 255 for label in labels]))
    names = [class_names[label].replace("_", " ") for label in labels]
    return saved(block_figure(blocks, names, f"the first {columns} images of each class"), path)
