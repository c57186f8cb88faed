"""A training that can be stopped between any two updates, and goes on from there to the same bytes."""

from __future__ import annotations

import glob
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clreplay.runtime.progress_file import load_progress, saving
from clreplay.runtime.seeding import class_key
from clreplay.runtime.state_file import DAMAGED

logger = logging.getLogger(__name__)


class Training:
    """Where a training stands, and the file that keeps it.

    Args:
        keep: the file, saved once a minute, when the training is stopped and at its end, when it holds the outcome: the
            caller removes it when what was measured of it is in a safe place. None keeps nothing.
        identity: what makes this very training; JSON values.
        data: what is trained on: other images are another training.

    Attributes:
        epoch, batch: of the next update.
        loss: of the last update.
        seconds: that processes before this one spent on it.
    """

    def __init__(self, keep: Path | None = None, identity: Any = None, data: Sequence[Tensor] = ()) -> None:
        self.keep = keep
        self.identity = "" if keep is None else json.dumps([identity, *map(class_key, data)])
        self.epoch, self.batch, self.seconds = 0, 0, 0.0
        self.loss: Tensor | None = None
        self._tensors: Mapping[str, Tensor] = {}
        self._optimizer: torch.optim.Optimizer | None = None
        self._changing = self._buffers = False
        self._save_if_due: Callable[[], None] = _nothing

    def begin(self, tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
        """Take over what the file holds of this training, if anything.

        Args:
            tensors: all that training changes in place: weights, and buffers such as batch norm's statistics.
            optimizer: of the weights; its momentum is taken over, its learning rate is the caller's.
        """
        self._tensors, self._optimizer = tensors, optimizer
        self._buffers = len(tensors) > sum(len(group["params"]) for group in optimizer.param_groups)
        if (found := load_progress(self.keep, self.identity)) is None:
            return
        untouched = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        try:
            self._take(found.state)
        except DAMAGED as error:
            logger.warning("starting anew, because the training in progress %s is damaged (%s)", self.keep, error)
            self.epoch, self.batch, self.loss = 0, 0, None
            optimizer.state.clear()
            self._copy(untouched)
            return
        self.seconds = found.seconds

    @contextmanager
    def saved(self) -> Iterator[None]:
        """Keep the state of the training in the block, which is its updates."""
        with saving(self.keep, self.identity, self._state, self.seconds, keep_finished=True) as self._save_if_due:
            yield

    def update_begins(self) -> None:
        """Networks without buffers change in the optimiser's step only: until then nothing is lost by a stop."""
        self._changing = self._buffers

    def weights_change(self) -> None:
        """What is left in the middle from here on cannot be gone on from."""
        self._changing = True

    def update_ends(self, loss: Tensor) -> None:
        """An update is made, and is saved once a minute."""
        self.batch, self.loss = self.batch + 1, loss
        self._changing = False
        self._save_if_due()

    def next_epoch(self) -> None:
        """All updates of an epoch are made, and are saved once a minute."""
        self._changing = True
        self.epoch, self.batch = self.epoch + 1, 0
        self._changing = False
        self._save_if_due()

    def _state(self) -> dict[str, Any] | None:
        if self._changing or self._optimizer is None:
            return None
        slots = [self._optimizer.state.get(p, {}) for group in self._optimizer.param_groups for p in group["params"]]
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "loss": None if self.loss is None else self.loss.detach().cpu(),
            "tensors": {name: tensor.detach().cpu() for name, tensor in self._tensors.items()},
            "momentum": [None if (m := slot.get("momentum_buffer")) is None else m.cpu() for slot in slots],
        }

    def _take(self, state: Mapping[str, Any]) -> None:
        assert self._optimizer is not None, "begin sets it"
        self._copy(state["tensors"])
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        for parameter, momentum in zip(parameters, state["momentum"], strict=True):
            if momentum is not None:
                if momentum.shape != parameter.shape:
                    raise ValueError(f"momentum of shape {tuple(momentum.shape)}")
                self._optimizer.state[parameter]["momentum_buffer"] = momentum.to(parameter.device)
        self.epoch, self.batch, self.loss = int(state["epoch"]), int(state["batch"]), state["loss"]

    @torch.no_grad()
    def _copy(self, tensors: Mapping[str, Tensor]) -> None:
        if tensors.keys() != self._tensors.keys():
            raise ValueError("it is of another network")
        for name, tensor in self._tensors.items():
            if tensors[name].shape != tensor.shape:
                raise ValueError(f"{name} of shape {tuple(tensors[name].shape)}")
        for name, tensor in self._tensors.items():
            tensor.copy_(tensors[name])


def _nothing() -> None:
    pass


def forget_training(keep: Path) -> None:
    """Remove the files of a training, or of several that are trained together: what they gave is in a safe place."""
    for path in (keep, *keep.parent.glob(f"{glob.escape(keep.name)}-*")):
        path.unlink(missing_ok=True)
