"""Units of work: pure functions from a picklable specification to finished rows, run anywhere.

There are three kinds. *Choice*: what settings leave to the machine is measured once, so that every set of a cell is
condensed in the same way. *Set*: one condensed (or selected) set; :mod:`.shards` cuts it into some classes each.
*Networks*: some networks trained on a set, or on all real images, and tested. A unit knows its keys without any data;
it loads what it needs where it runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from clreplay.benchmark.datasets import Loaded, load_cached
from clreplay.benchmark.protocols import Training
from clreplay.benchmark.sets import Place, SetSpec, from_bytes, plain, to_bytes
from clreplay.benchmark.store import Finished, Row, key_of
from clreplay.condensation import RealImages, condense_experience
from clreplay.data import Dataset, Normalization
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.networks import ConvNet, reinitialize
from clreplay.runtime.device import default_device, device_name
from clreplay.runtime.progress import Progress
from clreplay.runtime.seeding import key_seed
from clreplay.training.evaluate import accuracies_together, accuracy
from clreplay.training.stacked import should_stack, train_together

TRAINING_ARITHMETIC = 1
"""Raised whenever a change of the code changes how networks are trained or tested."""
Images = Mapping[int, bytes]
"""A condensed set: safetensors bytes by class."""


class Unit:
    """One piece of work.

    Attributes:
        kind: ``choice``, ``set``, ``shard`` or ``network``.
        needs: key of the condensed set that :meth:`run` is to be given; None for none.
        identities: by key, all that decides the outcome of what the unit finishes.
    """

    kind: ClassVar[str]
    needs: str | None
    identities: dict[str, dict[str, Any]]

    @property
    def keys(self) -> tuple[str, ...]:
        """Of what the unit finishes."""
        return tuple(self.identities)

    @property
    def failing(self) -> dict[str, dict[str, Any]]:
        """By key, what is noted as failed if this fails."""
        return self.identities

    def summary(self) -> str:
        """In words."""
        raise NotImplementedError

    def run(self, place: Place, images: Images | None = None, progress: Progress | None = None) -> Finished:
        """Do it.

        Args:
            place: where.
            images: of the set that it :attr:`needs`.
            progress: told as the work goes on.
        """
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class ChoiceUnit(Unit):
    """Measure what the settings of a set leave to the machine."""

    spec: SetSpec
    kind = "choice"
    needs = None

    @cached_property
    def identities(self) -> dict[str, dict[str, Any]]:
        """See :class:`Unit`."""
        return {self.spec.asked_key: self.spec.asked}

    def summary(self) -> str:
        """See :class:`Unit`."""
        return f"{Path(self.spec.recipe).stem} on {self.spec.dataset}, measuring what is fastest"

    def run(self, place: Place, images: Images | None = None, progress: Progress | None = None) -> Finished:
        """The choice, for the kind of device that the place has."""
        spec, data = self.spec, load_cached(self.spec.dataset, place.data_root)
        device, method = default_device(place.device), spec.built()
        counts = dict.fromkeys(data.real.classes, spec.images_per_class)
        data.real.check_counts(counts)
        fixed = method.with_execution(lambda: (data.real, counts), device)
        chosen = plain(fixed.chosen_since(method))
        return Finished(spec.dataset, data.fingerprint, choice=(spec.asked_key, device.type, chosen))


@dataclass(frozen=True, eq=False)
class SetUnit(Unit):
    """Condense one set; a condensation that was stopped goes on where it saved itself last."""

    spec: SetSpec
    kind = "set"
    needs = None

    @cached_property
    def identities(self) -> dict[str, dict[str, Any]]:
        """See :class:`Unit`."""
        return {self.spec.key: self.spec.identity}

    def summary(self) -> str:
        """See :class:`Unit`."""
        spec = self.spec
        return f"{Path(spec.recipe).stem} on {spec.dataset}, IPC {spec.images_per_class}, condensing"

    def run(self, place: Place, images: Images | None = None, progress: Progress | None = None) -> Finished:
        """The set, condensed images as floats: coding them is the learner's choice."""
        data = load_cached(self.spec.dataset, place.data_root)
        return self._condense(data, data.real, place, progress)

    def _condense(self, data: Loaded, real: RealImages, place: Place, progress: Progress | None) -> Finished:
        """The classes of ``real``, as the one row that this unit finishes; their images under the key of the set."""
        spec, ((key, identity),) = self.spec, self.identities.items()
        configured = spec.built()
        if configured.method.code != spec.code:
            raise ValueError(f"{spec.recipe} names other code here than where the run was started; copy its files")
        memory = ReplayMemory(spec.images_per_class, normalization=data.set.normalization, store="float32")
        seconds = condense_experience(
            memory,
            real,
            configured,
            seed=spec.seed,
            device=default_device(place.device),
            progress=progress,
            keep=None if place.work is None else Path(place.work) / f"{key}.progress",
        )
        result = {
            "images": len(memory),
            "images_decoded": len(memory.labels),
            "last_record": memory.record[-1] if memory.record else {},
            "chosen": plain(memory.info.get("chosen", {})),
        }
        row = finished_row(key, self.kind, identity, result, seconds, place)
        return Finished(spec.dataset, data.fingerprint, (row,), (spec.key, to_bytes(memory)))


@dataclass(frozen=True, eq=False)
class NetworksUnit(Unit):
    """Train and test networks, each keyed by itself: which ones share a unit decides nothing.

    Attributes:
        dataset: name of the data.
        needs: key of the condensed set; None trains on all real images.
        training: how.
        store: how condensed images are held before training, ``float32`` or ``uint8``.
        seed: of all chance.
        draws: of every network, the pair (number of the set, number of the network).
        title: what the images are called.
        may_diverge: whether a network whose training diverges counts as it is, and is marked, or fails.
    """

    dataset: str
    needs: str | None
    training: Training
    store: str
    seed: int
    draws: tuple[tuple[int, int], ...]
    title: str = ""
    may_diverge: bool = False
    kind = "network"

    @cached_property
    def identities(self) -> dict[str, dict[str, Any]]:
        """See :class:`Unit`; one a network."""
        common = {
            "kind": "network",
            "arithmetic": TRAINING_ARITHMETIC,
            "dataset": self.dataset,
            "set": self.needs,
            "training": plain(self.training.as_plain()),
            "store": self.store if self.needs else None,
            "seed": self.seed,
        }
        every = ({**common, "draw": list(draw)} for draw in self.draws)
        return {key_of(one): one for one in every}

    def summary(self) -> str:
        """See :class:`Unit`."""
        networks = "one network" if len(self.draws) == 1 else f"{len(self.draws)} networks"
        return f"{self.title} on {self.dataset}, {networks} ({self.training.settings.summary()})"

    def run(self, place: Place, images: Images | None = None, progress: Progress | None = None) -> Finished:
        """One row a network: its accuracy in percent on all test images, after the last epoch."""
        data, device = load_cached(self.dataset, place.data_root), default_device(place.device)
        if self.needs is None:
            train = data.set.train
            x, y, normalization = train.images, train.labels, data.set.normalization
        else:
            memory = from_bytes(images or {}, data.set, self.store)
            x, y, normalization = memory.images, memory.labels, None
        measured = self._measured(data.set, x.to(device), y.to(device), normalization, device, progress)
        rows = [
            finished_row(key, self.kind, identity, {**result, "images": len(x)}, seconds, place)
            for (key, identity), (result, seconds) in zip(self.identities.items(), measured)
        ]
        return Finished(self.dataset, data.fingerprint, rows)

    def _measured(
        self,
        data: Dataset,
        images: Tensor,
        labels: Tensor,
        normalization: Normalization | None,
        device: torch.device,
        progress: Progress | None,
    ) -> list[tuple[dict[str, Any], float]]:
        """Result and training seconds of every network; where they train together, equal shares of the time."""
        settings = self.training.settings
        networks = [self._drawn(data, draw, device.type == "cpu").to(device) for draw in self.draws]
        keys = [(self.seed, "static", "train", *draw) for draw in self.draws]
        tell = None if progress is None else lambda done, total: progress(done, total, "epochs")
        start = time.perf_counter()
        if should_stack(device, len(networks)) and self.training.loop == "dm":
            train_together(networks, images, labels, settings, keys, normalization, tell)
            seconds = (time.perf_counter() - start) / len(networks)
            values = accuracies_together(networks, data.test, data.normalization, device)
            return [({"accuracy": value}, seconds) for value in values]
        measured = []
        for network, key in zip(networks, keys):
            start, diverged = time.perf_counter(), {}
            try:
                self.training.train(network, images, labels, settings, key, normalization, tell)
            except FloatingPointError:
                if not self.may_diverge:
                    raise
                diverged = {"diverged": True}
            seconds = time.perf_counter() - start
            value = accuracy(network, data.test, data.normalization, device)
            measured.append(({"accuracy": value, **diverged}, seconds))
        return measured

    def _drawn(self, data: Dataset, draw: tuple[int, int], fused: bool) -> torch.nn.Module:
        channels, size = data.train.images.shape[1:3]
        network = self.training.settings.build(data.num_classes, channels, size)
        reinitialize(network, key_seed(self.seed, "static", "weights", *draw))
        return network.fuse() if fused and isinstance(network, ConvNet) else network


def finished_row(
    key: str, kind: str, identity: dict[str, Any], result: dict[str, Any], seconds: float, place: Place
) -> Row:
    """A row made here and now: the device, the commit and the version are those of this process."""
    name = device_name(default_device(place.device))
    return Row(key, kind, identity, result, seconds, name, place.commit, f"torch {torch.__version__}")
