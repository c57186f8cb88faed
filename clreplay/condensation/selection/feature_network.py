"""A network trained on the data of an experience: what selections by a trained network have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from clreplay.condensation.engine.weight_file import Saved, WeightFile
from clreplay.condensation.real_images import RealImages
from clreplay.condensation.registry import Condensed
from clreplay.condensation.selection.tiled import stored, wanted
from clreplay.condensation.tiles import TiledSettings
from clreplay.networks import ConvNet, reinitialize
from clreplay.runtime.progress import Progress
from clreplay.runtime.seeding import key_seed
from clreplay.training.going_on import forget_training
from clreplay.training.loop import train
from clreplay.training.settings import TrainingSettings


@dataclass(frozen=True)
class DataTrainingSettings(TrainingSettings):
    """How a network is trained on an experience's data; no drop of the learning rate by default."""

    lr_drop: float = 1.0

    def epochs_for(self, images: int) -> int:
        """Exactly the requested epochs: the extra one belongs to the evaluation protocol."""
        return self.epochs if self.updates is None else super().epochs_for(images)


@dataclass(frozen=True)
class EmbeddingSettings(TiledSettings, DataTrainingSettings):
    """Selection by the embedding of a network trained on the experience at hand.

    Attributes:
        unit_features: scale every feature vector to length one first, as iCaRL does. Off by default, as
            in the comparison code of the condensation literature.
        tiles: see :class:`TiledSettings`.

    The rest is the training of the feature network, whose length the papers do not give.
    """

    epochs: int = 50
    augment: str | None = "crop+flip"
    unit_features: bool = False


def select_by_embedding(
    choose: Callable[[Tensor, int, int], Tensor],
    real: RealImages,
    counts: dict[int, int],
    settings: EmbeddingSettings,
    *,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
) -> Condensed:
    """Real images of every class, chosen by their embedding; the network is the same for all choices.

    Args:
        choose: gives the rows of the chosen images, from the features of a class, float64 (n, d) on the CPU, the
            number of images, and a seed of the class.
        real, counts, settings, seed, device, progress: as of every condenser.

    Raises:
        FloatingPointError: training diverged.
        ValueError: a class has fewer real images than are to be chosen.
    """
    counts = wanted(counts, settings)
    real.check_counts(counts)
    unit = "epochs of the feature network"
    network = trained_on(real, settings, "herding", seed=seed, device=device, progress=progress, unit=unit).eval()
    chosen = {}
    for label in real.classes:
        features = _embedding(network, real, label, device).to("cpu", torch.float64)
        if settings.unit_features:
            features = torch.nn.functional.normalize(features, dim=1)
        rows = choose(features, counts[label], key_seed(seed, real.keys[label], "choice"))
        chosen[label] = real.raw(label)[rows]
    return stored(chosen, settings)


@torch.no_grad()
def _embedding(network: nn.Module, real: RealImages, label: int, device: torch.device) -> Tensor:
    return torch.cat([network.embedding(real.normalise(b.to(device))) for b in real.raw(label).split(512)])


def trained_on(
    real: RealImages,
    settings: DataTrainingSettings,
    purpose: str,
    *,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
    unit: str = "epochs",
    watch: Callable[[Tensor, Tensor, Tensor], None] | None = None,
    watched: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """A fresh network with an output a class, trained on all images of an experience; or, where nobody watches, found
    as it was trained before (``~/.cache/clreplay/weights``).

    Args:
        real: the experience. Its classes come one after another, each in the order of ``real.raw``.
        settings: network and training.
        purpose: beside ``seed`` and the classes' keys, what weights and shuffling are keyed by.
        seed, device, progress: as of every condenser.
        unit: what an epoch is called in progress.
        watch, watched: see :func:`clreplay.training.loop.train`; rows are those of all classes one after another,
            labels the positions of the classes in ``real.classes``.

    Raises:
        FloatingPointError: training diverged.
    """
    key = (seed, purpose, *(real.keys[label] for label in real.classes))
    network = settings.build_for(len(real.classes), real.shape)
    reinitialize(network, key_seed(*key, "network"))
    network.to(device)
    if isinstance(network, ConvNet):
        network.fuse()
    parameters = list(network.parameters())
    trained = {one.name: getattr(settings, one.name) for one in fields(DataTrainingSettings)}
    file = WeightFile(real, device, ["features", purpose, trained, seed], settings.network_is_traced)
    size = sum(parameter.numel() for parameter in parameters)
    if watch is None and (saved := file.load(size)) is not None and saved.buffers.keys() == _buffers(network).keys():
        vector_to_parameters(saved.weights[0].to(device), parameters)
        for name, values in network.named_buffers():
            values.copy_(saved.buffers[name])
        return network.train()
    start, keep = time.perf_counter(), file.under_way
    labels = torch.cat([torch.full((real.count(label),), i) for i, label in enumerate(real.classes)])
    before = train(
        network,
        torch.cat([real.raw(label) for label in real.classes]).to(device),
        labels.to(device),
        settings,
        key,
        real.normalization if real.images.dtype == torch.uint8 else None,
        None if progress is None else lambda done, total: progress(done, total, unit),
        watch,
        keep,
        watched,
    )
    if watch is None:
        weights, seconds = parameters_to_vector(parameters).detach()[None], before + time.perf_counter() - start
        file.save(Saved(weights, settings.epochs_for(len(labels)), seconds, buffers=_buffers(network)))
    if keep is not None:
        forget_training(keep)
    return network


def _buffers(network: nn.Module) -> dict[str, Tensor]:
    """Statistics of batch norm."""
    return {name: values.detach().clone() for name, values in network.named_buffers()}
