"""CAFE (Wang et al., CVPR 2022): features aligned layer by layer, along a training that an accuracy steers.

Each outer iteration draws a random network. An image step moves the synthetic images so that their class-mean
features come closer to those of real images, at every layer, and so that the class means classify real features.
Then the network trains on the synthetic images until its accuracy on real training images has moved, and the next
image step follows; once the accuracy stays where it is from image step to image step, the network is done with.
The discrimination term and the training make classes depend on one another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from clreplay.condensation.cafe.accuracy_control import AccuracyWindow, RealAccuracy
from clreplay.condensation.cafe.settings import CafeSettings
from clreplay.condensation.engine.base import SteppedEngine
from clreplay.condensation.engine.class_group import ClassGroup
from clreplay.condensation.registry import register
from clreplay.condensation.tiles import check_tiles, decoding
from clreplay.losses import LayerAlignment, discrimination
from clreplay.networks.features import Features
from clreplay.runtime.seeding import BLOCK, generator
from clreplay.training.augmentation import augment_classes
from clreplay.training.loop import train_further


# The discrimination term and the training mix the classes: not separable.
@register("cafe", CafeSettings, decoding=decoding, check=check_tiles, execution=("classes_at_once",), engine=True)
class CafeEngine(SteppedEngine):
    """CAFE, with siamese augmentation (CAFE+DSA) or without; a step is an image step.

    Its chance is keyed by iteration and image step, so between two steps the state is the synthetic images, their
    velocity, the network, its last accuracies and the position in the loops.

    Args:
        real, counts, seed, device, execution: see :class:`~clreplay.condensation.engine.base.Engine`.
        settings: see :class:`CafeSettings`.
    """

    settings: CafeSettings

    unit = "networks"

    def set_up(self) -> None:
        """See :class:`~clreplay.condensation.engine.base.Engine`."""
        super().set_up()
        real, settings = self.real, self.settings
        self.alignment = LayerAlignment(
            earlier=settings.earlier_weight, last=settings.last_weight, embedding=settings.embedding_weight
        )
        # The network's outputs are the classes in the order of the groups.
        outputs = torch.arange(len(real.classes), device=self.device)
        self.outputs = outputs.split([len(group.labels) for group in self.groups])
        self.accuracy = RealAccuracy(self.groups, self.outputs, real.normalise, settings.accuracy_images, self.seed)
        self.epochs = 0  # that the network under way has trained; an iteration is a network
        self.window = self._new_window()
        self._state = self._snapshot()

    # ------------------------------------------------------------------ one image step

    def step(self) -> dict[str, Tensor]:
        """Update the images of every class, then train the network on them unless it is done with.

        Returns:
            the terms before the update, still on the device: ``alignment``, mean over classes, and
            ``discrimination``, mean over real images.
        """
        settings = self.settings
        if self.position == 0:
            self.parameters.redraw(generator(self.seed, "network", self.iteration, device=self.device))
            self.window, self.epochs = self._new_window(), 0
        values = self._update_images()
        accuracy = self._measure(0)
        self.window.add(accuracy)
        last = self.window.is_stable(settings.settled_within) or self.position + 1 == settings.max_image_steps
        if last:
            self.iteration += 1
            more = {"image_steps": self.position + 1, "epochs": self.epochs, "accuracy": accuracy}
            self.add_row(values, **more)
            self.position = 0
        else:
            self._train_until_moved()
            self.position += 1
        self._state = self._snapshot()
        return values

    def _update_images(self) -> dict[str, Tensor]:
        self.network.requires_grad_(False).train()  # batch norm, where chosen, uses the batch's own statistics
        block, within = self._draw_number()
        leaves, theirs, ours, embeddings, labels = [], [], [], [], []
        for group, outputs in zip(self.groups, self.outputs):
            if group.block != block:
                group.prepare(block, self.seed, self.strategy)
            leaves.append(group.synthetic.detach().requires_grad_())
            for part in self._parts(group):
                draws = group.draws[within][part]
                with torch.no_grad():
                    real = self.real.normalise(group.real[group.rows[within][part].flatten()])
                    features = self._features(real.unflatten(0, (len(draws), -1)), draws)
                    theirs.append(self.alignment.statistics(features))
                embeddings.append(features.embedding.flatten(0, 1))
                labels.append(outputs[part].repeat_interleave(group.batch))
                ours.append(self.alignment.statistics(self._features(self.seen(leaves[-1][part]), draws)))
        targets, means = ([torch.cat(layer) for layer in zip(*side)] for side in (theirs, ours))
        alignment = self.alignment.loss(tuple(targets), tuple(means))
        told_apart = discrimination(torch.cat(embeddings), torch.cat(labels), means[-1])
        loss = alignment.sum() + self.settings.discrimination_weight * told_apart
        lr, momentum = self.settings.lr_at(self.iteration), self.settings.momentum_img
        for group, gradient in zip(self.groups, torch.autograd.grad(loss, leaves)):
            # New tensors, not in place: the last state is still the one that Ctrl-C saves.
            group.velocity = momentum * group.velocity + gradient
            group.synthetic = group.synthetic - lr * group.velocity
        images = sum(len(some) for some in labels)
        return {"alignment": alignment.detach().mean(), "discrimination": told_apart.detach() / images}

    def _draw_number(self) -> tuple[int, int]:
        """Block of draws of this image step, and the step's place in it: a function of iteration and position."""
        blocks = -(-self.settings.max_image_steps // BLOCK)
        return self.iteration * blocks + self.position // BLOCK, self.position % BLOCK

    def _features(self, images: Tensor, draws: Tensor) -> Features:
        images = augment_classes(images, draws, self.strategy)
        return Features.of(len(images), *self.network.features(images.flatten(0, 1)))

    def _parts(self, group: ClassGroup) -> list[slice]:
        """The classes of a group in parts that go through the network together."""
        size, count = self.execution.classes_at_once, len(group.labels)
        if self.settings.norm == "batch":
            size = count  # batch statistics mix the classes
        elif size is None:
            size = 1 if self.device.type == "cpu" else count  # a class at a time stays in a CPU's cache
        return [slice(start, start + size) for start in range(0, count, size)]

    # ------------------------------------------------------------------ the network between two image steps

    def _train_until_moved(self) -> None:
        images = self.seen(torch.cat([group.synthetic.flatten(0, 1) for group in self.groups]))
        counts = [group.synthetic.shape[1] * self.tiles.images_each for group in self.groups]
        labels = torch.cat([outputs.repeat_interleave(count) for outputs, count in zip(self.outputs, counts)])
        window = self._new_window()
        for epoch in range(1, self.settings.max_epochs + 1):
            self.network.requires_grad_()  # views of the flat buffer, trained in place
            train_further(
                self.network,
                images,
                labels,
                self.optimizer,
                (self.seed, "inner", self.iteration, self.position, epoch),
                epochs=1,
                batch_size=self.settings.batch_net,
                augment=self.settings.siamese_augment,
            )
            self.epochs += 1
            window.add(self._measure(epoch))
            if window.has_changed(self.settings.moved_beyond):
                return

    def _measure(self, turn: int) -> float:
        return self.accuracy(self.network, (self.iteration, self.position), turn)

    def _new_window(self, values: Iterable[float] = ()) -> AccuracyWindow:
        classes = len(self.real.classes)
        # Of a single class the sum would only grow, and no network would ever be done with.
        carried = 1 / classes if self.settings.carry_accuracies and classes > 1 else 0.0
        return AccuracyWindow(self.settings.window, carried, values)

    def progress(self) -> tuple[int, int] | None:
        """Networks done and in all, reported after every network."""
        return None if self.position else (self.iteration, self.iterations)

    # ------------------------------------------------------------------ saving and going on

    def _own_values(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "accuracies": list(self.window.values)}

    def _take_own(self, state: dict[str, Any]) -> None:
        self.epochs = state["epochs"]
        self.window = self._new_window(state["accuracies"])
