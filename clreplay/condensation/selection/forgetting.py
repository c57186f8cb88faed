"""Forgetting: keep the real images that a network forgets most often while it trains on the experience."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clreplay.condensation.real_images import RealImages
from clreplay.condensation.registry import Condensed, register
from clreplay.condensation.selection.feature_network import DataTrainingSettings, trained_on
from clreplay.condensation.selection.tiled import stored, wanted
from clreplay.condensation.tiles import TiledSettings, check_tiles, decoding
from clreplay.runtime.checks import check_choice
from clreplay.runtime.progress import Progress
from clreplay.runtime.seeding import generator


@dataclass(frozen=True)
class ForgettingSettings(TiledSettings, DataTrainingSettings):
    """One training run on the experience at hand, during which forgetting events are counted.

    Attributes:
        nesterov: Nesterov's momentum.
        never_learned: how images that were never classified correctly count: ``most`` forgotten of all, as
            in the paper's definition, or ``least``, with no event, as in DeepCore's code.
        tiles: see :class:`TiledSettings`.

    The rest is the training, with the values of DeepCore (Guo et al. 2022), whose networks see the images
    without augmentation and at a constant learning rate.
    """

    epochs: int = 40
    lr: float = 0.1
    augment: str | None = None
    nesterov: bool = True
    never_learned: str = "most"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("never_learned", self.never_learned, ("most", "least"))
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0, got 0.0; raise momentum or set nesterov to false")


class ForgettingEvents:
    """Counts how often images go from right to wrong, presentation by presentation (Toneva et al. 2019).

    Args:
        images: number of images; before their first presentation they count as wrong.
        device: of the counts.

    Attributes:
        events: (images,) int64, forgetting events so far.
        learned: (images,) bool, whether an image was ever right.
    """

    def __init__(self, images: int, device: torch.device | str = "cpu") -> None:
        self.events = torch.zeros(images, dtype=torch.int64, device=device)
        self.learned = torch.zeros(images, dtype=torch.bool, device=device)
        self._right = torch.zeros(images, dtype=torch.bool, device=device)

    @property
    def state(self) -> dict[str, Tensor]:
        """All that changes, in place."""
        return {"events": self.events, "learned": self.learned, "right": self._right}

    def see(self, rows: Tensor, right: Tensor) -> None:
        """A presentation of some images, (b,) different rows, and whether each is right now, (b,) bool."""
        self.events[rows] += self._right[rows] & ~right
        self.learned[rows] |= right
        self._right[rows] = right

    def scores(self, never_learned: str) -> Tensor:
        """Float (images,): events, and infinity for images never learned if those count as ``most`` forgotten."""
        scores = self.events.to(torch.float64)
        return scores.masked_fill(~self.learned, float("inf")) if never_learned == "most" else scores


@register("forgetting", ForgettingSettings, selects=True, decoding=decoding, check=check_tiles)
def select_forgetting(
    real: RealImages,
    counts: dict[int, int],
    settings: ForgettingSettings,
    *,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
    keep: Path | None = None,
) -> Condensed:
    """The images of every class with most forgetting events; ties by chance, fewer images a prefix of more.

    ``keep`` is ignored: a training that was stopped goes on from a file of its own.
    """
    counts = wanted(counts, settings)
    real.check_counts(counts)
    events = ForgettingEvents(sum(real.count(label) for label in real.classes), device)

    def watch(rows: Tensor, labels: Tensor, logits: Tensor) -> None:
        events.see(rows, logits.argmax(1) == labels)

    trained_on(
        real,
        settings,
        "forgetting",
        seed=seed,
        device=device,
        progress=progress,
        watch=watch,
        watched=events.state,
    )
    scores = events.scores(settings.never_learned).cpu().split([real.count(label) for label in real.classes])
    chosen = {}
    for label, own in zip(real.classes, scores):
        shuffled = torch.randperm(len(own), generator=generator(seed, real.keys[label], "forgetting"))
        order = shuffled[own[shuffled].argsort(descending=True, stable=True)]
        chosen[label] = real.raw(label)[order[: counts[label]]]
    return stored(chosen, settings)
