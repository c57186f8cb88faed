"""What all condensing engines are: a condensation in progress that goes step by step, saves itself and goes on."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clreplay.condensation.engine.class_group import ClassGroup
from clreplay.condensation.engine.execution import Execution
from clreplay.condensation.engine.start import equal_groups
from clreplay.condensation.real_images import RealImages
from clreplay.condensation.registry import Condensed
from clreplay.condensation.tiles import check_tiles, decoding
from clreplay.memory.decoders import decoder
from clreplay.networks import FlatParameters
from clreplay.runtime.allocator import keep_freed_memory
from clreplay.runtime.later import identifying
from clreplay.runtime.progress import Progress, tell_rows
from clreplay.runtime.progress_file import load_progress, saving
from clreplay.runtime.state_file import DAMAGED
from clreplay.training.augmentation import parse_strategy

logger = logging.getLogger(__name__)

FAR_OUT = 20.0
"""Standard deviation of synthetic images that is told: real ones have about one."""
RECORD_ROWS = 200
"""Rows of the record at most, but for the first and the last: reading a number makes the host wait for the device."""


class Engine:
    """One condensation in progress: what it is made of, and the way from its first step to its last.

    A relative gives ``step``, ``images``, ``state_dict`` and ``load_state_dict``, and keeps ``iteration`` and
    ``record``. At any moment, also in the middle of a step, ``state_dict`` is the state after the last whole step:
    that is what Ctrl-C saves.

    Args:
        real: the experience.
        counts: synthetic images of every class.
        settings: of the method.
        seed: seed of all chance.
        device: where the work is done.
        execution: how to compute.

    Raises:
        ValueError: a class has fewer real images than images are to be made of it.
    """

    unit = "iterations"
    """What progress counts."""
    one = "iteration"
    """One of them, in the message of a divergence."""
    lower: tuple[str, ...] = ("lr_img",)
    """Settings whose lowering cures a divergence."""
    decoding = "none"
    """Name of the decoder that makes images to train on of those stored."""
    told_far_out = False
    """Whether it was said that images run away; once is enough."""
    iteration: int
    """Iterations done."""
    record: Any
    """Rows so far."""

    def __init__(
        self,
        real: RealImages,
        counts: dict[int, int],
        settings: Any,
        seed: int,
        device: torch.device,
        execution: Execution = Execution(),
    ) -> None:
        real.check_counts(counts)
        self.real, self.settings, self.seed, self.device = real, settings, seed, torch.device(device)
        self.execution = execution
        self.counts = {label: counts[label] for label in real.classes}
        if self.device.type == "cpu":
            keep_freed_memory()
        self.set_up()

    def set_up(self) -> None:
        """Make what the work needs; the constructor calls it at its end."""

    @property
    def iterations(self) -> int:
        """Iterations in all."""
        return self.settings.iterations

    def step(self) -> Any:
        """Go one step further."""
        raise NotImplementedError

    def images(self) -> dict[int, Tensor]:
        """The images of every class as they are now, (k, c, h, w)."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The state after the last whole step, plain values and tensors: it continues an unbroken run."""
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was taken.

        Raises:
            ValueError: the state is of something else; nothing is changed then.
        """
        raise NotImplementedError

    # ------------------------------------------------------------------ what a relative may do otherwise

    def store_tiles(self) -> None:
        """Take ``tiles`` of the settings.

        Raises:
            ValueError: the images cannot be cut into so many.
        """
        check_tiles(self.settings, self.counts, self.real.shape)
        self.decoding = decoding(self.settings)
        self.tiles = decoder(self.decoding)

    def seen(self, stored: Tensor) -> Tensor:
        """What a network is shown of stored images, (n, c, h, w) or by class (classes, n, c, h, w); with tiles more."""
        if self.tiles.images_each == 1:
            return stored
        if stored.dim() == 4:
            return self.tiles(stored)
        return self.tiles(stored.flatten(0, 1)).unflatten(0, (len(stored), -1))

    def prepare(self, progress: Progress | None = None) -> None:
        """Work that comes before the first step and saves itself."""

    def after_step(self, outcome: Any) -> None:
        """Whatever a whole step is followed by, such as a row of the record; ``outcome`` is what the step returned."""

    def progress(self) -> tuple[int, int] | None:
        """Units done and in all; None if nothing has changed."""
        return self.iteration, self.iterations

    def recorded(self) -> Sequence[dict[str, Any]]:
        """The rows so far, not copied."""
        return self.record

    def rows(self) -> list[dict[str, Any]]:
        """The whole record, once the work is done."""
        return list(self.recorded())

    def chosen(self) -> dict[str, Any]:
        """What was chosen or fell back on the spot."""
        return {}

    def close(self) -> None:
        """Let go of threads; a further step starts new ones."""

    # ------------------------------------------------------------------ the whole way

    def run(self, progress: Progress | None = None, keep: Path | None = None) -> Condensed:
        """Go on to the last iteration.

        Args:
            progress: called as the work goes on, with units done and in all; it may take rows of the record, too.
            keep: file to save the state in every minute and when interrupted. If it is there already
                and holds a state of this very condensation, that is where the run goes on from. It is
                removed at the end.

        Raises:
            FloatingPointError: a loss or an image is no longer finite.
        """
        before = self._go_on_from(keep)
        told = len(self.recorded())
        tell_rows(progress, self.recorded(), resumed=True)
        try:
            with saving(keep, self.identity(), self.state_dict, before) as save_if_due:
                self.prepare(progress)
                while self.iteration < self.iterations:
                    self.after_step(self.step())
                    if len(self.recorded()) > told:  # these numbers were read already: telling them waits for nothing
                        tell_rows(progress, self.recorded()[told:])
                        told = len(self.recorded())
                    if progress is not None and (done := self.progress()) is not None:
                        progress(*done, self.unit)
                    save_if_due()
        finally:
            self.close()
        return Condensed(self.images(), self.rows(), self.chosen(), self.decoding, before)

    def _go_on_from(self, keep: Path | None) -> float:
        """Take over the state in the file, if there is one that fits; the seconds that it has cost."""
        if (found := load_progress(keep, self.identity())) is None:
            return 0.0
        try:
            self.load_state_dict(found.state)
        except DAMAGED as error:
            logger.warning("starting anew, because the work in progress %s is damaged (%s)", keep, error)
            self.set_up()
            return 0.0
        return found.seconds

    def identity(self) -> str:
        """Names this very condensation: classes, counts, settings, execution, seed and kind of device."""
        classes = [[self.real.keys[label], count] for label, count in self.counts.items()]
        settings = identifying(self.settings, asdict(self.settings))
        return json.dumps([classes, settings, asdict(self.execution), self.seed, self.device.type])

    # ------------------------------------------------------------------ the record

    def is_recorded(self, iteration: int) -> bool:
        """Whether an iteration has a row: the first, the last, and every so many."""
        every = max(1, self.iterations // RECORD_ROWS)
        return iteration % every == 0 or iteration in (1, self.iterations)

    def row(self, iteration: int, values: dict[str, Tensor], images: Tensor) -> dict[str, Any]:
        """A row of the record: values and statistics of the synthetic images, which the host waits for.

        Args:
            iteration: the row's.
            values: scalars.
            images: all synthetic images, any shape.

        Raises:
            FloatingPointError: a value or an image is not finite; it names the cure.
        """
        values = {**values, "image_std": images.std(), "image_min": images.min(), "image_max": images.max()}
        row = {name: float(value) for name, value in values.items()}
        cure = " or ".join(f"{name} (now {getattr(self.settings, name)})" for name in self.lower)
        if not all(abs(value) < float("inf") for value in row.values()):
            raise FloatingPointError(f"condensation diverged at {self.one} {iteration} ({row}); lower {cure}")
        if row["image_std"] > FAR_OUT and not self.told_far_out:
            self.told_far_out = True
            logger.warning(
                "synthetic images have left the range of real ones at %s %d: their standard deviation is %.0f, that of "
                "real ones about 1; lower %s, or look for a class whose images are all alike",
                self.one, iteration, row["image_std"], cure,
            )  # fmt: skip
        return {"iteration": iteration, **row}


class GroupEngine(Engine):
    """An engine whose classes are worked on in groups.

    Args:
        real, counts, seed, device, execution: see :class:`Engine`.
        settings: with ``siamese_augment``, ``lr_img`` and whatever else ``lower`` names.
    """

    groups: list[ClassGroup]

    def set_up(self) -> None:
        """See :class:`Engine`."""
        super().set_up()
        self.store_tiles()
        self.strategy = parse_strategy(self.settings.siamese_augment)
        self.iteration = 0
        self.record: list[dict[str, Any]] = []

    def images(self) -> dict[int, Tensor]:
        """The synthetic images of every class as they are now, (k, c, h, w)."""
        by_label = {label: group.synthetic[i] for group in self.groups for i, label in enumerate(group.labels)}
        return {label: by_label[label].detach().clone() for label in self.real.classes}

    def add_row(self, values: dict[str, Tensor], **more: Any) -> None:
        """Where the iteration is recorded, a row of values, image statistics, and more that needs no reading."""
        if self.is_recorded(self.iteration):
            flat = torch.cat([group.synthetic.flatten() for group in self.groups])
            # A new list, not in place: the last state still has the record that was its own.
            self.record = [*self.record, {**self.row(self.iteration, values, flat), **more}]


class SteppedEngine(GroupEngine):
    """An engine whose iterations are steps of the images, a network training between them.

    Every step ends with ``self._state = self._snapshot()``, and so does the setting up: that is what Ctrl-C saves,
    so a step may replace the tensors of the groups at any time but must not change them in place.

    Args:
        real, counts, seed, device, execution: see :class:`Engine`.
        settings: with ``lr_net``, ``real_batch`` and ``init`` too, and ``build`` for the network.
    """

    lower = ("lr_img", "lr_net")
    _state: dict[str, Any]

    def set_up(self) -> None:
        """See :class:`Engine`."""
        super().set_up()
        real, s = self.real, self.settings
        self.network = s.build_for(len(real.classes), real.shape).to(self.device)
        self.parameters = FlatParameters(self.network)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=s.lr_net)
        self.groups = equal_groups(real, self.counts, s.real_batch, s.init, self.seed, self.device, tiles=s.tiles)
        self.position = 0  # steps done of the iteration under way

    # ------------------------------------------------------------------ what a relative's state has beside

    def _own_values(self) -> dict[str, Any]:
        """Plain values, for :meth:`_take_own` to take back."""
        return {}

    def _own_tensors(self) -> dict[str, Tensor]:
        """Tensors that a step replaces, for :meth:`_take_own` to take back."""
        return {}

    def _take_own(self, state: dict[str, Any]) -> None:
        """Go on with the values and tensors (``state["tensors"]``, maybe on another device) of a state."""

    # ------------------------------------------------------------------ saving and going on

    def _snapshot(self) -> dict[str, Any]:
        """The state now; a step replaces tensors, so only the network has to be copied."""
        tensors = {"network": self.parameters.buffer.clone(), **self._own_tensors()}
        tensors.update({f"buffer.{name}": buffer.clone() for name, buffer in self.network.named_buffers()})
        for group in self.groups:
            for i, label in enumerate(group.labels):
                tensors[f"{label}.image"], tensors[f"{label}.velocity"] = group.synthetic[i], group.velocity[i]
        where = {"iteration": self.iteration, "position": self.position}
        return {**where, **self._own_values(), "record": self.record, "tensors": tensors}

    def state_dict(self) -> dict[str, Any]:
        """The state after the last whole step: with the same inputs it continues an unbroken run."""
        state = self._state
        tensors = {name: tensor.detach().clone() for name, tensor in state["tensors"].items()}
        return {**state, "record": list(state["record"]), "tensors": tensors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was taken.

        Raises:
            ValueError: a tensor is missing or has another shape; nothing is changed then.
        """
        saved = state["tensors"]
        for name, tensor in self._state["tensors"].items():
            if name not in saved or saved[name].shape != tensor.shape:
                raise ValueError(f"the state does not fit: it has no {name} of {tuple(tensor.shape)}")
        for group in self.groups:
            group.synthetic, group.velocity = (
                torch.stack([saved[f"{label}.{kind}"] for label in group.labels]).to(self.device)
                for kind in ("image", "velocity")
            )
        self.parameters.buffer.copy_(saved["network"])
        for name, buffer in self.network.named_buffers():
            buffer.copy_(saved[f"buffer.{name}"])
        self.iteration, self.position, self.record = state["iteration"], state["position"], list(state["record"])
        self._take_own(state)
        self._state = self._snapshot()
