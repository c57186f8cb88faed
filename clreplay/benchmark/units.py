"""Units of work: pure functions from a picklable specification to finished rows, run anywhere.

There are three kinds. *Choice*: what a set's execution leaves to the machine is measured once, so that all sets of a
cell are condensed in the same way. *Set*: a condensed (or selected) set, or some of its classes. *Networks*: some
networks trained on a set, or on all real images, and tested. A unit knows its keys without any data; it loads what it
needs where it runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from clreplay.benchmark.datasets import load_cached
from clreplay.benchmark.protocols import Training
from clreplay.benchmark.rows import Finished, FinishedImages, NetworkRow, Origin, key_of
from clreplay.benchmark.sets import Place, SetSpec, from_bytes, plain, to_bytes
from clreplay.benchmark.store import Store
from clreplay.condensation import condense_experience
from clreplay.condensation.engine.finished_file import forget_finished
from clreplay.data import Dataset, Normalization
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.networks import ConvNet, reinitialize
from clreplay.runtime.device import default_device, device_name
from clreplay.runtime.progress import Progress
from clreplay.runtime.seeding import key_seed
from clreplay.training.evaluate import accuracies_together, accuracy
from clreplay.training.going_on import forget_training
from clreplay.training.learner import train_learner
from clreplay.training.stacked import should_stack, train_together

TRAINING_ARITHMETIC = 1
"""Raised whenever a change of the code changes how networks are trained or tested."""
Images = Mapping[int, bytes]
"""A condensed set: safetensors bytes by class."""


class Unit:
    """One piece of work.

    Attributes:
        kind: ``choice``, ``set`` or ``network``.
        needs: key of the condensed set whose images :meth:`run` is given; None for none.
        identities: by key, all that decides the outcome of what the unit finishes.
    """

    kind: ClassVar[str]
    needs: str | None

    @property
    def identities(self) -> dict[str, dict[str, Any]]:
        """See the class."""
        raise NotImplementedError

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of what the unit finishes, or helps to finish."""
        return tuple(self.identities)

    @property
    def name(self) -> str:
        """Names the unit's lock: one process of a machine does it at a time."""
        return self.keys[0]

    def left(self, store: Store) -> Unit | None:
        """What is still to be done by now; None if all of it is in the store."""
        return None if store.has(self.keys) else self

    def summary(self) -> str:
        """In words."""
        raise NotImplementedError

    def forget(self, work: Path) -> None:
        """Remove what the unit keeps of finished work in a folder: it is in the store."""

    def run(self, place: Place, images: Images | None = None, progress: Progress | None = None) -> Finished:
        """Do it.

        Args:
            place: where.
            images: of the set that it :attr:`needs`.
            progress: called as the work goes on.
        """
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class ChoiceUnit(Unit):
    """Measure what the execution of a set leaves to the machine."""

    spec: SetSpec
    kind = "choice"
    needs = None

    @cached_property
    def identities(self) -> dict[str, dict[str, Any]]:
        """See :class:`Unit`."""
        return {self.spec.execution_key: {**self.spec.condensed, "kind": self.kind}}

    def left(self, store: Store) -> Unit | None:
        """See :class:`Unit`; always to be done: what is stored may be for another kind of device."""
        return self

    def summary(self) -> str:
        """See :class:`Unit`."""
        return f"{Path(self.spec.recipe).stem} on {self.spec.dataset}, measuring what is fastest"

    def run(self, place: Place, images: Images | None = None, progress: Progress | None = None) -> Finished:
        """The choice, for the kind of device that the place has."""
        spec, data = self.spec, load_cached(self.spec.dataset, place.data_root)
        device, configured = default_device(place.device), spec.configured()
        counts = dict.fromkeys(data.real.classes, spec.images_per_class)
        data.real.check_counts(counts)
        chosen = configured.with_execution(lambda: (data.real, counts), device).chosen_since(configured)
        return data.finished(choice=(spec.execution_key, device.type, plain(chosen)))


@dataclass(frozen=True, eq=False)
class SetUnit(Unit):
    """Condense one set or some of its classes; a condensation that was interrupted goes on where it saved itself.

    Attributes:
        spec: the set.
        chosen: what is open in its execution, as it was chosen.
        number, of: which of how many nearly equal parts of the classes, from 0.
        finished: classes of this part that are left out, because they are finished.
    """

    spec: SetSpec
    chosen: Mapping[str, Any] = field(default_factory=dict)
    number: int = 0
    of: int = 1
    finished: frozenset[int] = frozenset()
    kind = "set"
    needs = None

    @cached_property
    def identities(self) -> dict[str, dict[str, Any]]:
        """See :class:`Unit`."""
        return {self.spec.key: self.spec.identity}

    @property
    def name(self) -> str:
        """See :class:`Unit`; it also names the file of an interrupted condensation."""
        return self.spec.key if self.of == 1 else f"{self.spec.key}-{self.number}-of-{self.of}"

    def left(self, store: Store) -> Unit | None:
        """See :class:`Unit`."""
        return None if store.has(self.keys) else replace(self, finished=frozenset(store.labels(self.spec.key)))

    def forget(self, work: Path) -> None:
        """See :class:`Unit`."""
        forget_finished(work / f"{self.name}.progress")

    def summary(self) -> str:
        """See :class:`Unit`."""
        spec, part = self.spec, "" if self.of == 1 else f" shard {self.number + 1} of {self.of}"
        return f"{Path(spec.recipe).stem} on {spec.dataset}, IPC {spec.images_per_class}, condensing{part}"

    def run(self, place: Place, images: Images | None = None, progress: Progress | None = None) -> Finished:
        """The classes of this part that are not finished, as floats: coding them is the learner's choice.

        Of more parts than classes some have none.
        """
        spec, data = self.spec, load_cached(self.spec.dataset, place.data_root)
        labels = set(np.array_split(data.classes, self.of)[self.number].tolist()) - self.finished
        if not labels:
            return data.finished()
        configured, device = spec.configured(), default_device(place.device)
        if configured.method.code != spec.code:
            raise ValueError(f"{spec.recipe} names other code here than where the run was started; copy its files")
        memory = ReplayMemory(spec.images_per_class, normalization=data.set.normalization, store="float32")
        seconds = condense_experience(
            memory,
            data.of_classes(labels),
            configured.resume(self.chosen, device),
            seed=spec.seed,
            device=device,
            progress=progress,
            keep=None if place.work is None else Path(place.work) / f"{self.name}.progress",
        )
        stored = {label: len(slot) for label, slot in memory.slots.items()}
        finished = FinishedImages(
            spec.key,
            spec.condensed_key,
            spec.images_per_class,
            spec.seed,
            data=to_bytes(memory),
            stored=stored,
            decoded=dict(zip(*(part.tolist() for part in memory.labels.unique(return_counts=True)))),
            execution=plain(memory.info.get("chosen", {})),
            last_record=memory.record[-1] if memory.record else {},
            origin=origin(seconds, place),
        )
        return data.finished(images=finished, settings={spec.condensed_key: spec.condensed})


@dataclass(frozen=True, eq=False)
class NetworksUnit(Unit):
    """Train and test networks, each keyed by itself: which ones share a unit decides nothing.

    Attributes:
        dataset: name of the data.
        needs: key of the condensed set; None trains on all real images.
        training: how.
        store: how condensed images are stored before training, ``float32`` or ``uint8``.
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
    def learner(self) -> dict[str, Any]:
        """The learner's settings as JSON values."""
        return plain(self.training.as_plain())

    @cached_property
    def training_key(self) -> str:
        """Hash of :attr:`learner`."""
        return key_of(self.learner)

    @cached_property
    def identities(self) -> dict[str, dict[str, Any]]:
        """See :class:`Unit`; one for each network."""
        common = {
            "kind": "network",
            "arithmetic": TRAINING_ARITHMETIC,
            "dataset": self.dataset,
            "set": self.needs,
            "training": self.learner,
            "store": self.stored_as,
            "seed": self.seed,
        }
        every = ({**common, "draw": list(draw)} for draw in self.draws)
        return {key_of(one): one for one in every}

    @property
    def stored_as(self) -> str | None:
        """How condensed images are stored before training; None for real ones, which are pixels."""
        return self.store if self.needs else None

    def forget(self, work: Path) -> None:
        """See :class:`Unit`."""
        for key in self.keys:
            forget_training(work / f"{key}.training")

    def _kept(self, place: Place, key: str) -> Path | None:
        """File of a training under way, or finished while others of the unit are not."""
        return None if place.work is None else Path(place.work) / f"{key}.training"

    def summary(self) -> str:
        """See :class:`Unit`."""
        networks = "one network" if len(self.draws) == 1 else f"{len(self.draws)} networks"
        return f"{self.title} on {self.dataset}, {networks} ({self.training.settings.summary()})"

    def run(self, place: Place, images: Images | None = None, progress: Progress | None = None) -> Finished:
        """One row a network: its accuracy in percent on all test images (and held-out ones), after the last epoch."""
        data, device = load_cached(self.dataset, place.data_root), default_device(place.device)
        if self.needs is None:
            train = data.set.train
            x, y, normalization = train.images, train.labels, data.set.normalization
        else:
            memory = from_bytes(images or {}, data.set, self.store)
            x, y, normalization = memory.images, memory.labels, None
        measured = self._measured(data.set, x.to(device), y.to(device), normalization, place, progress)
        rows = [
            NetworkRow(
                key,
                self.dataset,
                self.needs,
                self.training_key,
                self.stored_as,
                self.seed,
                draw,
                accuracy,
                held_out,
                diverged,
                len(x),
                where,
            )
            for key, draw, (accuracy, held_out, diverged, where) in zip(self.keys, self.draws, measured)
        ]
        return data.finished(networks=rows, settings={self.training_key: self.learner})

    def _measured(
        self,
        data: Dataset,
        images: Tensor,
        labels: Tensor,
        normalization: Normalization | None,
        place: Place,
        progress: Progress | None,
    ) -> list[tuple[float, float | None, bool, Origin]]:
        """Accuracy on test and on held-out images, whether it diverged, and origin of every network; those that train
        together share the time.
        """
        parts = [data.test, *([] if data.held_out is None else [data.held_out])]
        settings, device = self.training.settings, images.device
        networks = [self._drawn(data, draw, device.type == "cpu").to(device) for draw in self.draws]
        keys = [(self.seed, "static", "train", *draw) for draw in self.draws]
        epochs = None if progress is None else lambda done, total: progress(done, total, "epochs")
        start = time.perf_counter()
        if should_stack(device, len(networks)) and self.training.loop == "dm":
            file = self._kept(place, self.name)
            before = train_together(networks, images, labels, settings, keys, normalization, epochs, keep=file)
            where = origin((before + time.perf_counter() - start) / len(networks), place)
            each = [accuracies_together(networks, part, data.normalization, device) for part in parts]
            return [(*_pair(values), False, where) for values in zip(*each)]
        measured, files = [], [self._kept(place, key) for key in self.keys]
        for network, key, keep in zip(networks, keys, files):
            start, diverged, before = time.perf_counter(), False, 0.0
            try:
                before = train_learner(network, images, labels, settings, key, normalization, epochs, keep)
            except FloatingPointError:
                if not self.may_diverge:
                    raise
                diverged = True
            where = origin(before + time.perf_counter() - start, place)
            values = [accuracy(network, part, data.normalization, device) for part in parts]
            measured.append((*_pair(values), diverged, where))
        return measured

    def _drawn(self, data: Dataset, draw: tuple[int, int], fused: bool) -> torch.nn.Module:
        network = self.training.settings.build_for(data.num_classes, data.train.images.shape[1:])
        reinitialize(network, key_seed(self.seed, "static", "weights", *draw))
        return network.fuse() if fused and isinstance(network, ConvNet) else network


def _pair(values: Sequence[float]) -> tuple[float, float | None]:
    """Accuracy on the test images, and on the held-out ones if there are any."""
    return values[0], values[1] if len(values) > 1 else None


def origin(seconds: float, place: Place) -> Origin:
    """Of work that was done here and now: device and versions are those of this process."""
    return Origin(seconds, device_name(default_device(place.device)), place.commit, f"torch {torch.__version__}")
