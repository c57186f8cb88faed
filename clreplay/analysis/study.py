"""The paper's figures for any memories: what each of them measures, draws, and says in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clreplay.analysis.canvas import saved
from clreplay.analysis.drift import GAMMAS, accuracy_under_drift
from clreplay.analysis.embedding import REAL, diversity, in_two_dimensions, style_distance
from clreplay.analysis.figures import memory_figure
from clreplay.analysis.paper_figures import SAME, known
from clreplay.analysis.plots import plot_bars, plot_drift, plot_map
from clreplay.analysis.texture import co_occurrence, nearer_to_real
from clreplay.data import Dataset
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.networks.base import Network
from clreplay.networks.redraw import reinitialize
from clreplay.runtime.files import write_text
from clreplay.runtime.seeding import generator, key_seed
from clreplay.training.loop import train
from clreplay.training.settings import TrainingSettings

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SAMPLE = "real, others"
"""Name of further real images, as many as a memory has: what is usual, by chance alone."""


@dataclass(frozen=True)
class Study:
    """Some memories, beside the real images that they stand for.

    Attributes:
        data: the data set.
        memories: by name.
        classes: that numbers are of, all of them in every memory.
        on_maps: the classes on a map; more than a few hide one another.
        network: trained on the real images.
        settings: of the learners that the drift trains.
        shown: real images of a class on a map.
        counted: real images of a class that numbers are compared with, at most.
        seed: of all chance.
        device: where networks work.
        networks: trained for every point of a curve.
    """

    data: Dataset
    memories: Mapping[str, ReplayMemory]
    classes: Sequence[int]
    on_maps: Sequence[int]
    network: Network
    settings: TrainingSettings
    shown: int = 100
    counted: int = 500
    seed: int = 0
    device: torch.device = torch.device("cpu")
    networks: int = 3

    def real(self, count: int, classes: Sequence[int] | None = None) -> dict[int, Tensor]:
        """So many random real images of every class, or of some, normalised; fewer where a class is small."""
        wanted = self.classes if classes is None else classes
        return {label: self._real(label, self._order(label)[: min(count, self._others(label))]) for label in wanted}

    def sets(self, real: int | None = None, classes: Sequence[int] | None = None) -> dict[str, dict[int, Tensor]]:
        """Images of every memory, decoded; with so many real ones of every class before them."""
        wanted = self.classes if classes is None else classes
        found = {} if real is None else {REAL: self.real(real, wanted)}
        for name, memory in self.memories.items():
            found[name] = {label: memory.class_images(label) for label in wanted}
        return found

    def mapped(self) -> dict[str, dict[int, Tensor]]:
        """What is on a map: some classes, real images among them."""
        return self.sets(self.shown, self.on_maps)

    def sets_with_sample(self) -> dict[str, dict[int, Tensor]]:
        """Images of every memory, and as many real ones as the largest has, none of which :meth:`real` gives."""
        sample = {label: self._real(label, self._order(label)[self._others(label) :]) for label in self.classes}
        return {SAMPLE: sample, **self.sets()}

    def _others(self, label: int) -> int:
        """Real images of a class beside a sample as large as the largest memory."""
        most = max(memory.slots[one].decoded for memory in self.memories.values() for one in self.classes)
        images = int((self.data.train.labels == label).sum())
        return max(images - most, images // 2)

    def _order(self, label: int) -> Tensor:
        images = int((self.data.train.labels == label).sum())
        return torch.randperm(images, generator=generator(self.seed, "analysis", label))

    def _real(self, label: int, rows: Tensor) -> Tensor:
        return self.data.normalization.apply(self.data.train.class_images(label)[rows])


Found = tuple["Figure", dict[str, "pd.DataFrame"], str]
"""A picture, tables by the end of their files' names, and what to see."""


def trained_network(
    data: Dataset,
    settings: TrainingSettings,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Network:
    """A network trained on all real training images, in evaluation mode.

    Args:
        data: whose images.
        settings: of the training.
        seed, device: as everywhere.
        progress: called with epochs done and in all.
    """
    network = settings.build_for(data.num_classes, data.train.images.shape[1:])
    reinitialize(network, key_seed(seed, "analysis", "weights"))
    network.to(device)
    images, labels = data.train.images.to(device), data.train.labels.to(device)
    train(network, images, labels, settings, (seed, "analysis"), data.normalization, progress)
    return network.eval().requires_grad_(False)


def _style(study: Study) -> Found:
    points = in_two_dimensions(study.network, study.mapped(), "style", study.seed)
    numbers = style_distance(study.network, study.sets_with_sample(), study.real(study.counted))
    shifts = numbers.groupby("set", sort=False)["shift"].mean()
    said = _listed(shifts.drop(index=SAMPLE), "{:.2f}")
    note = f"Style in block 1, {study.shown} real images a class"
    figure = plot_map(points, note, _names(study))
    sentence = (
        f"style: the mean of a class's images is away from that of real ones by {said} standard deviations of real "
        f"images ({shifts[SAMPLE]:.2f} for as many other real ones); style matching should lower it"
    )
    return figure, {"": points, "-numbers": numbers}, sentence


def _embedding(study: Study) -> Found:
    points = in_two_dimensions(study.network, study.mapped(), "embedding", study.seed)
    numbers = diversity(study.network, study.sets_with_sample(), study.real(study.counted))
    means = numbers.groupby("set", sort=False)[["spread", "nearest"]].mean()
    sentence = (
        f"diversity: images of a class are as far apart as {_listed(means.spread.drop(index=SAMPLE), '{:.2f}')} times "
        f"the distance of real ones ({means.spread[SAMPLE]:.2f} for other real ones); from a real image the nearest is "
        f"at {_listed(means.nearest.drop(index=SAMPLE), '{:.2f}')} ({means.nearest[SAMPLE]:.2f}); diversity should "
        "raise the first and lower the second"
    )
    figure = plot_map(points, f"Embedding, {study.shown} real images a class", _names(study))
    return figure, {"": points, "-numbers": numbers}, sentence


def _texture(study: Study) -> Found:
    rows = co_occurrence(study.sets(study.counted // 5), study.data.normalization)
    away = nearer_to_real(rows)
    columns = {"dissimilarity": "dissimilarity, grey levels", "entropy": "entropy, nats"}
    sentence = (
        f"texture: dissimilarity differs from that of real images by {_listed(away.iloc[:, 0], '{:+.0f} %')}, entropy "
        f"by {_listed(away.iloc[:, 1], '{:+.1f} %')}; nearer to 0 is more alike"
    )
    return plot_bars(rows, columns, "Grey-level co-occurrence, 1 and 2 pixels apart"), {"": rows}, sentence


def _grid(study: Study) -> Found:
    import pandas as pd

    figure = memory_figure(study.memories, study.data.train, class_names=study.data.class_names)
    sets = study.sets(study.counted)
    rows = [
        {"set": name, "label": label, "images": len(images), "mean": images.mean().item(), "std": images.std().item()}
        for name, some in sets.items()
        for label, images in some.items()
    ]
    table = pd.DataFrame(rows)
    stds = table.groupby("set", sort=False)["std"].mean()
    sentence = (
        f"images: the standard deviation of normalised pixels is {_listed(stds.drop(index=REAL), '{:.2f}')}, of real "
        f"images {stds[REAL]:.2f}; above that, contrast has grown"
    )
    return figure, {"": table}, sentence


def _drift(study: Study, trained_on: str) -> Found:
    import pandas as pd

    sets = study.sets()
    images = sets.pop(trained_on)
    if not sets:
        raise ValueError(f"figure 1c needs {trained_on} and a memory whose style it drifts to; give another --memory")
    drifting = partial(
        accuracy_under_drift, test=study.data.test, normalization=study.data.normalization, settings=study.settings,
        networks=study.networks, seed=study.seed, device=study.device,
    )  # fmt: skip
    start = drifting(images, images, gammas=GAMMAS[:1])  # without drift it does not matter towards what
    rows = []
    for name, towards in sets.items():
        found = pd.concat([start, drifting(images, towards, gammas=GAMMAS[1:])])
        rows.append(found.assign(trained_on=trained_on, towards=name))
    table = pd.concat(rows, ignore_index=True)
    means = table.groupby(["towards", "gamma"], sort=False).accuracy.mean()
    lost = {name: means[name, 1.0] - means[name, 0.0] for name in table.towards.unique()}
    said = ", ".join(f"{value:+.1f} towards {name}" for name, value in lost.items())
    sentence = f"drift: with the whole style drifted, networks trained on {trained_on} change by {said} points"
    return plot_drift(table, f"Trained on {trained_on} whose style drifts"), {"": table}, sentence


def _names(study: Study) -> dict[int, str]:
    names = enumerate(study.data.class_names)
    return {label: f"class {name}" if name.isdigit() else name.replace("_", " ") for label, name in names}


def _listed(values: pd.Series, form: str) -> str:
    return ", ".join(f"{form.format(value)} ({name})" for name, value in values.items())


DRIFT = "1c"
MEASURES: dict[str, Callable[[Study], Found]] = {"1a": _style, "1b": _embedding, "4": _grid, "5d": _texture}
"""What draws the figures of :data:`.paper_figures.SHOWS`, but for the drift, which is of one memory."""


def draw(study: Study, figure: str, out: Path, trained_on: str = "herding") -> str:
    """Measure, draw and write one figure: ``figure1a.png`` and ``.svg``, and its tables as CSV.

    Args:
        study: what is looked at.
        figure: one of :func:`clreplay.analysis.paper_figures.known`.
        out: the folder.
        trained_on: of figures 1c and 1d, the memory whose style drifts.

    Returns:
        one line: what to see, in numbers.

    Raises:
        ValueError: there is no such figure, or these memories do not do for it.
        ImportError: scikit-image is missing for figure 5d.
    """
    asked = SAME.get(figure, figure)
    if asked == DRIFT:
        if trained_on not in study.memories:
            raise ValueError(f"figure {figure} is trained on a memory {trained_on!r}; give it, or name another one")
        picture, tables, sentence = _drift(study, trained_on)
    elif asked in MEASURES:
        picture, tables, sentence = MEASURES[asked](study)
    else:
        raise ValueError(f"figure must be one of {', '.join(known())}, got {figure!r}")
    for suffix in (".png", ".svg"):
        saved(picture, out / f"figure{figure}{suffix}")
    for end, table in tables.items():
        write_text(out / f"figure{figure}{end}.csv", table.round(5).to_csv(index=False))
    return f"figure {figure}  {sentence}"
