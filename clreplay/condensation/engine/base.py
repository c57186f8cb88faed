"""What condensations in progress have in common, whatever moves their images: see who inherits."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from clreplay.condensation.engine.class_group import ClassGroup
from clreplay.condensation.engine.start import equal_groups
from clreplay.condensation.real_images import RealImages
from clreplay.networks import FlatParameters
from clreplay.runtime.allocator import keep_freed_memory
from clreplay.training.augmentation import parse_strategy


def identity_of(real: RealImages, counts: dict[int, int], settings: Any, seed: int, device: torch.device) -> str:
    """Names a condensation: classes, counts, settings, seed and kind of device."""
    classes = [[real.keys[label], count] for label, count in counts.items()]
    return json.dumps([classes, asdict(settings), seed, device.type])


def finite_row(
    values: dict[str, Tensor], images: Tensor, when: str, settings: Any, lower: tuple[str, ...]
) -> dict[str, float]:
    """Values and statistics of the synthetic images as a row of the record.

    Reading them makes the host wait for the device.

    Args:
        values: scalars.
        images: all synthetic images, any shape.
        when: of the condensation, for the error.
        settings: of the condensation.
        lower: settings whose lowering cures a divergence.

    Raises:
        FloatingPointError: a value or an image is not finite; it names the cure.
    """
    values = {**values, "image_std": images.std(), "image_min": images.min(), "image_max": images.max()}
    row = {name: float(value) for name, value in values.items()}
    if not all(abs(value) < float("inf") for value in row.values()):
        cure = " or ".join(f"{name} (now {getattr(settings, name)})" for name in lower)
        raise FloatingPointError(f"condensation diverged at {when} ({row}); lower {cure}")
    return row


class GroupEngine:
    """One condensation in progress whose classes are worked on in groups.

    Args:
        real: the experience.
        counts: synthetic images of every class.
        settings: with ``siamese_augment``, ``lr_img`` and whatever else ``lower`` names.
        seed: seed of all chance.
        device: where the work is done.

    Raises:
        ValueError: a class has fewer real images than are asked of it.
    """

    lower: tuple[str, ...] = ("lr_img",)
    """Settings whose lowering cures a divergence."""
    groups: list[ClassGroup]

    def __init__(
        self, real: RealImages, counts: dict[int, int], settings: Any, seed: int, device: torch.device
    ) -> None:
        real.check_counts(counts)
        self.real, self.settings, self.seed, self.device = real, settings, seed, torch.device(device)
        self.counts = {label: counts[label] for label in real.classes}
        if self.device.type == "cpu":
            keep_freed_memory()
        self.strategy = parse_strategy(settings.siamese_augment)
        self.iteration = 0  # iterations done
        self.record: list[dict[str, Any]] = []

    def images(self) -> dict[int, Tensor]:
        """The synthetic images of every class as they are now, (k, c, h, w)."""
        by_label = {label: group.synthetic[i] for group in self.groups for i, label in enumerate(group.labels)}
        return {label: by_label[label].detach().clone() for label in self.real.classes}

    def _add_row(self, values: dict[str, Tensor], **more: Any) -> None:
        """A row of the record: the iteration, values, statistics of the images, and more that needs no reading."""
        flat = torch.cat([group.synthetic.flatten() for group in self.groups])
        row = finite_row(values, flat, f"iteration {self.iteration}", self.settings, self.lower)
        # A new list, not in place: the last state still has the record that was its own.
        self.record = [*self.record, {"iteration": self.iteration, **row, **more}]

    def _identity(self) -> str:
        return identity_of(self.real, self.counts, self.settings, self.seed, self.device)


class SteppedEngine(GroupEngine):
    """One condensation in progress whose iterations are steps of the images, a network training between them.

    Every step ends with ``self._state = self._snapshot()``, and so does the setting up: that is what Ctrl-C saves,
    so a step may replace the tensors of the groups at any time but must not change them in place.

    Args:
        real, counts, seed, device: see :class:`GroupEngine`.
        settings: with ``lr_net``, ``real_batch`` and ``init`` too, and ``build`` for the network.

    Raises:
        ValueError: a class has fewer real images than are asked of it.
    """

    lower = ("lr_img", "lr_net")
    _state: dict[str, Any]

    def __init__(
        self, real: RealImages, counts: dict[int, int], settings: Any, seed: int, device: torch.device
    ) -> None:
        super().__init__(real, counts, settings, seed, device)
        self.network = settings.build(len(real.classes), real.shape[0], real.shape[1]).to(self.device)
        self.parameters = FlatParameters(self.network)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=settings.lr_net)
        self.groups = equal_groups(real, self.counts, settings.real_batch, settings.init, seed, self.device)
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
