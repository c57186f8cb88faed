"""Where the network of an iteration comes from: networks trained on the data of the experience, at any age.

Several networks are trained from scratch on the experience's own real images before the first image update. An
iteration takes one of them as it was after a random epoch (TGDD), or a random point between its first and its last
weights (DANCE). A further network of the same training may judge the class of the synthetic images.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from clreplay.condensation.engine.weight_file import Saved, WeightFile
from clreplay.condensation.real_images import RealImages
from clreplay.data import Normalization
from clreplay.networks import ConvNet, FlatParameters, Network
from clreplay.networks.features import Features
from clreplay.networks.fused_forward import Forward
from clreplay.networks.settings import NetworkSettings
from clreplay.runtime.checks import check_choice, check_counts, check_not_negative, check_positive, check_share
from clreplay.runtime.later import later
from clreplay.runtime.progress import Progress
from clreplay.runtime.progress_file import seconds_between_saves
from clreplay.runtime.seeding import generator
from clreplay.training.augmentation import parse_strategy
from clreplay.training.cutmix import CutMixSettings, batches, mixed_loss
from clreplay.training.loop import fit, sgd_with

ENCODERS = ("random", "trajectory", "interpolated")
UNIT = "epochs of the encoders"


@dataclass(frozen=True)
class EncoderSettings:
    """Which networks the features are those of.

    Attributes:
        encoders: ``random`` draws a fresh network for every iteration. ``trajectory`` takes a trained one as it was
            after an epoch drawn from 0 to the last (TGDD, AAAI 2026), ``interpolated`` the weights
            ``l * first + (1 - l) * last`` with l ~ U(0, 1) (DANCE, IJCAI 2024).
        encoder_networks: networks trained, of which every iteration draws one.
        encoder_epochs: of each, on all real images of the experience, in IDC's way: CutMix, batches of
            ``encoder_batch``, rate x 0.2 after two thirds and five sixths.
        encoder_lr, encoder_batch, encoder_augment: of that training.
        encoder_mix: probability that a batch is mixed by CutMix.
        constraint_weight: of the cross-entropy of the synthetic images under a trained network, mean over the images
            of a class (TGDD's constraint, DANCE's calibration; 1 in both); 0 leaves it out.
        constraint_span: with ``trajectory``, that network is the one of the encoder, at most so many epochs further
            on; with 0 it is the encoder itself, which costs no further pass. With ``interpolated`` it is always the
            last.
    """

    encoders: str = later("random")
    encoder_networks: int = later(5)
    encoder_epochs: int = later(60)
    encoder_lr: float = later(0.01)
    encoder_batch: int = later(64)
    encoder_augment: str | None = later("color_crop_flip_scale_rotate")
    encoder_mix: float = later(0.5)
    constraint_weight: float = later(0.0)
    constraint_span: int = later(6)

    def check_encoders(self) -> None:
        """Raises ``ValueError`` where a value is wrong or does not fit the others."""
        check_choice("encoders", self.encoders, ENCODERS)
        check_counts(self, "encoder_networks", "encoder_epochs", "encoder_batch")
        check_positive(self, "encoder_lr")
        parse_strategy(self.encoder_augment, "encoder_augment")
        check_not_negative(self, "constraint_weight", "constraint_span")
        check_share(self, "encoder_mix")
        if self.constraint_weight > 0 and self.encoders == "random":
            raise ValueError(
                f"constraint_weight {self.constraint_weight:g} needs trained networks; set encoders to trajectory or "
                "interpolated"
            )


def encoder_training(settings: Any) -> CutMixSettings:
    """How an encoder is trained.

    Args:
        settings: :class:`EncoderSettings` with the network's and the ``precision`` beside them.
    """
    network = {one.name: getattr(settings, one.name) for one in fields(NetworkSettings)}
    return CutMixSettings(
        **network,
        epochs=settings.encoder_epochs,
        lr=settings.encoder_lr,
        batch_size=settings.encoder_batch,
        augment=settings.encoder_augment,
        mix=settings.encoder_mix,
        precision=settings.precision,
    )


class TrainedNetworks:
    """One network object that takes the weights of one trained network after another.

    Args:
        network: on its device; its parameters become views of one flat buffer.
        twin: another of the same kind: it is trained, and judges classes afterwards.
        real: the experience, by which its networks are found again.
        images: its images, class after class, (n, c, h, w); uint8 with ``normalization``.
        labels: (n,), outputs of the network.
        settings: :class:`EncoderSettings` with the network's and the ``precision`` beside them.
        seed: of all chance.
        normalization: of uint8 images.

    Attributes:
        network: in training mode: batch norm, where chosen, uses the batch's own statistics.
        seconds: that training took, whenever it was.
        found: networks that had been trained before.
    """

    def __init__(
        self,
        network: Network,
        twin: Network,
        real: RealImages,
        images: Tensor,
        labels: Tensor,
        settings: Any,
        seed: int,
        normalization: Normalization | None = None,
    ) -> None:
        self.network, self.twin, self.settings, self.seed = network.train(), twin, settings, seed
        self.real, self.images, self.labels, self.normalization = real, images, labels, normalization
        self.parameters, self._twin = FlatParameters(network), FlatParameters(twin)
        self.seconds, self.found = 0.0, 0
        self._weights: list[Tensor] = []  # of every network the kept ones, (rows, parameters)
        self._number: int | None = None
        self._judge: Callable[[Tensor], Features] | None = None
        self._judged_by_itself = False

    # ------------------------------------------------------------------ what the engine asks

    def take(self, number: int) -> None:
        """Give ``network`` the weights of this number, and the twin those that judge."""
        if number == self._number:
            return
        self.prepare()
        network, encoder, judge = self.drawn(number)
        weights = self._weights[network]
        self.parameters.buffer.copy_(_between(weights, encoder))
        self._judged_by_itself = judge == encoder
        if self.settings.constraint_weight > 0 and not self._judged_by_itself:
            self._twin.buffer.copy_(_between(weights, judge))
        self._number = number

    def drawn(self, number: int) -> tuple[int, float, float]:
        """Of a number: which network, and the rows of its kept weights that the encoder and the judge are; a row
        between two means weights between theirs.
        """
        s, chance = self.settings, generator(self.seed, "encoder", number)
        network = int(torch.randint(s.encoder_networks, (), generator=chance))
        if s.encoders == "interpolated":
            return network, 1.0 - float(torch.rand((), generator=chance)), 1.0
        epoch = int(torch.randint(s.encoder_epochs + 1, (), generator=chance))
        further = int(torch.randint(min(s.constraint_span, s.encoder_epochs - epoch) + 1, (), generator=chance))
        return network, float(epoch), float(epoch + further)

    def judged_with(self, kernels: str, layout: str, precision: str) -> None:
        """How the twin is run forward when it judges."""
        self._judge = Forward(self.twin.train(), kernels, layout, precision)

    def logits(self, features: Features) -> Tensor:
        """What the judge says of images: (classes, n, outputs)."""
        if self._judged_by_itself:
            return self.network.classifier(features.embedding)
        return self.twin.classifier(self._judge(features.images, (), ()).embedding)

    def advance(self, number: int) -> None:
        """Nothing: all training is done before."""

    def state_dict(self, number: int) -> dict[str, Any]:
        """Nothing: trained networks are in files of their own, and come out the same if those are gone."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was taken."""
        self._number = None

    # ------------------------------------------------------------------ training

    def prepare(self, progress: Progress | None = None) -> None:
        """Train all networks, or find those that were trained before; nothing if that is done.

        Raises:
            FloatingPointError: a training diverged.
        """
        epochs, total = self.settings.encoder_epochs, self.settings.encoder_networks
        while (index := len(self._weights)) < total:

            def report(done: int, before: int = index * epochs) -> None:
                if progress is not None:
                    progress(before + done, total * epochs, UNIT)

            self._weights.append(self._trained(index, report))
        self._number = None
        self.twin.requires_grad_(False)

    def _trained(self, index: int, report: Callable[[int], None]) -> Tensor:
        """The kept weights of one network: after every epoch, or the first and the last, (rows, parameters)."""
        how, device = encoder_training(self.settings), self._twin.buffer.device
        key = (self.seed, "encoder", *(self.real.keys[label] for label in self.real.classes), index)
        file = self._file(how, index, device)
        every = self.settings.encoders == "trajectory"
        self._twin.redraw(generator(*key, "network", device=device))
        kept, momentum = [self._twin.buffer.clone()], torch.zeros_like(self._twin.buffer)
        epoch, seconds = 0, 0.0
        if (saved := file.load(len(momentum))) is not None:
            epoch, seconds = saved.epoch, saved.seconds
            if epoch == how.epochs:
                self.found, self.seconds = self.found + 1, self.seconds + seconds
                return saved.weights.to(device)
            kept = list(saved.weights.to(device))
            self._twin.buffer.copy_(saved.current)
            momentum.copy_(saved.momentum)
        network = self.twin.requires_grad_().train()
        if isinstance(network, ConvNet) and device.type == "cpu":
            network.fuse()
        optimizer = sgd_with(
            network.parameters(), momentum, lr=how.lr, momentum=how.momentum, weight_decay=how.weight_decay
        )
        start = time.perf_counter() - seconds
        last_save, between = time.monotonic(), seconds_between_saves()
        while epoch < how.epochs:
            loss = self._one_epoch(network, optimizer, how, (*key, "epoch", epoch))
            epoch += 1
            if every or epoch == how.epochs:
                kept.append(self._twin.buffer.clone())
            report(epoch)
            if epoch < how.epochs and time.monotonic() - last_save > between:
                seconds = time.perf_counter() - start
                file.save(Saved(torch.stack(kept), epoch, seconds, self._twin.buffer, momentum))
                last_save = time.monotonic()
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"training of encoder {index} diverged (loss {loss.item()}); lower encoder_lr (now {how.lr:g})"
            )
        seconds = time.perf_counter() - start
        found = torch.stack(kept)
        file.save(Saved(found, epoch, seconds))
        self.seconds += seconds
        return found

    def _file(self, how: CutMixSettings, index: int, device: torch.device) -> WeightFile:
        parts = ["encoder", asdict(how), self.settings.encoders, self.seed, index]
        return WeightFile(self.real, device, parts, how.network_is_traced)

    def _one_epoch(
        self, network: Network, optimizer: torch.optim.SGD, how: CutMixSettings, key: tuple[int | str, ...]
    ) -> Tensor:
        epoch = int(key[-1])
        passed = sum(epoch > drop for drop in how.drops_after(len(self.images)))
        for group in optimizer.param_groups:
            group["lr"] = how.lr * how.lr_drop**passed
        return fit(
            network,
            1,
            lambda _: batches(self.images, self.labels, how, key, self.normalization),
            optimizer,
            partial(mixed_loss, network, how.precision),
        )


def _between(weights: Tensor, row: float) -> Tensor:
    """A row of (rows, parameters), or what lies between two."""
    low = min(int(row), len(weights) - 1)
    share = row - low
    return weights[low] if share == 0 else torch.lerp(weights[low], weights[low + 1], share)
