"""Rows of the store: finished pieces of work, and the hash of settings that identifies them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


def key_of(settings: Mapping[str, Any]) -> str:
    """Hash of settings: 40 hex digits, the same whatever the order of the entries."""
    text = json.dumps(settings, sort_keys=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


@dataclass(frozen=True)
class Origin:
    """Seconds of work, and where and with what it was done."""

    seconds: float
    device: str
    commit: str
    versions: str


@dataclass(frozen=True)
class NetworkRow:
    """One trained and tested network.

    Attributes:
        key: hash of all that decides its accuracy.
        dataset: name of the data.
        condensed_set: key of the set that it was trained on; None for all real images.
        training: hash of the learner's settings.
        store: how condensed images were stored before training; None for real images.
        seed: of all chance.
        draw: number of the set, and of the network on it.
        accuracy: in percent of all test images, after the last epoch.
        held_out: the same of training images that were held out from condensing and training; None where none were.
        diverged: whether its training diverged.
        images: number of images that it was trained on.
        origin: see :class:`Origin`.
    """

    key: str
    dataset: str
    condensed_set: str | None
    training: str
    store: str | None
    seed: int
    draw: tuple[int, int]
    accuracy: float
    held_out: float | None
    diverged: bool
    images: int
    origin: Origin


@dataclass(frozen=True)
class SetRow:
    """A finished condensed set; its classes may come from several machines.

    Attributes:
        key: hash of all that decides its outcome, to float rounding.
        condensed: hash of the same without the seed.
        dataset, images_per_class, seed: as requested.
        images, images_decoded: number of images as they are stored, and as a learner gets them.
        seconds: of work, summed over the classes.
        devices, commits: where and with what, each once.
        executions: how it was computed, each way once (:class:`clreplay.condensation.engine.execution.Execution`,
            and the precision).
    """

    key: str
    condensed: str
    dataset: str
    images_per_class: int
    seed: int
    images: int
    images_decoded: int
    seconds: float
    devices: tuple[str, ...]
    commits: tuple[str, ...]
    executions: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class FinishedImages:
    """Some classes of a condensed set.

    Attributes:
        key, condensed, images_per_class, seed: see :class:`SetRow`.
        data: safetensors bytes by class.
        stored, decoded: number of images by class, see :class:`SetRow`.
        execution: how they were computed.
        last_record: losses and the like at the end of the condensation, of all these classes together.
        origin: of all these classes together.
    """

    key: str
    condensed: str
    images_per_class: int
    seed: int
    data: Mapping[int, bytes]
    stored: Mapping[int, int]
    decoded: Mapping[int, int]
    execution: Mapping[str, Any]
    last_record: Mapping[str, Any]
    origin: Origin


@dataclass(frozen=True)
class Finished:
    """What one piece of work adds to a store, all of it or nothing.

    Attributes:
        dataset, fingerprint, classes: the data that was used, the hash of it, and its number of classes.
        networks: trained networks.
        images: of a condensed set.
        choice: what was chosen by measurement: hash of what was open, kind of device, and what was chosen.
        settings: by hash, the settings behind the hashes in the rows.
    """

    dataset: str
    fingerprint: str
    classes: int
    networks: Sequence[NetworkRow] = ()
    images: FinishedImages | None = None
    choice: tuple[str, str, dict[str, Any]] | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """Why a unit could not be finished, at its last attempt."""

    reason: str
    attempts: int


@dataclass(frozen=True)
class Contents:
    """What a store holds, read at once; images stay in the file.

    Attributes:
        sets: finished condensed sets by key.
        networks: by key.
        choices: by hash of what was open, and kind of device: what was chosen.
        failures: by key.
    """

    sets: dict[str, SetRow] = field(default_factory=dict)
    networks: dict[str, NetworkRow] = field(default_factory=dict)
    choices: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)

    @cached_property
    def alike(self) -> dict[tuple[Any, ...], list[NetworkRow]]:
        """Networks that differ in their draw only, in its order: what a cell of a table averages over.

        The keys are (dataset, hash of the condensed sets' settings or None, hash of the training, store, seed).
        """
        found: dict[tuple[Any, ...], list[NetworkRow]] = {}
        for row in sorted(self.networks.values(), key=lambda row: row.draw):
            if row.condensed_set is None or row.condensed_set in self.sets:
                condensed = None if row.condensed_set is None else self.sets[row.condensed_set].condensed
                found.setdefault((row.dataset, condensed, row.training, row.store, row.seed), []).append(row)
        return found
