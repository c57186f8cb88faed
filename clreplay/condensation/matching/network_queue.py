"""Where the network of an iteration comes from: a queue of networks that train beside the condensation.

Networks of different ages are in the queue: new ones are added now and then, the oldest are removed, and after every
image update a few random ones train a little on real images (IDM, Zhao et al., CVPR 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clreplay.data import Normalization
from clreplay.networks import FlatParameters, Network
from clreplay.runtime.checks import check_counts, check_momentum, check_not_negative, check_positive
from clreplay.runtime.seeding import generator
from clreplay.training.loop import sgd_with, train_further


@dataclass(frozen=True)
class QueueSettings:
    """How a queue of networks grows and trains; the defaults are those of IDM's authors where not said otherwise.

    Attributes:
        queue_start: random networks to start with; the authors draw three, and a fourth before the first update.
        queue_every: image updates after which a fresh random network joins.
        queue_size: networks beyond which the oldest leaves.
        queue_trained: networks that train after every image update.
        queue_steps: updates of each of them; 0 leaves all networks as they were drawn.
        lr_net, momentum_net, decay_net: SGD on a network's weights. A network's momentum waits with it from one of
            its trainings to the next.
        batch_net: real images of all classes in an update, without augmentation.
        accuracy_every: image updates after which all running accuracies start anew, at zero.
    """

    queue_start: int = 4
    queue_every: int = 30
    queue_size: int = 100
    queue_trained: int = 2
    queue_steps: int = 10
    lr_net: float = 0.01
    momentum_net: float = 0.9
    decay_net: float = 5e-4
    batch_net: int = 256
    accuracy_every: int = 100

    def __post_init__(self) -> None:
        check_counts(self, "queue_start", "queue_every", "queue_size", "queue_trained", "batch_net", "accuracy_every")
        if self.queue_start > self.queue_size:
            raise ValueError(f"queue_start must be at most queue_size {self.queue_size}, got {self.queue_start}")
        check_not_negative(self, "queue_steps", "decay_net")
        check_positive(self, "lr_net")
        check_momentum(self, "momentum_net")


class Member(NamedTuple):
    """A network of the queue; never changed, only replaced.

    Attributes:
        weights, momentum: flat vectors.
        buffers: what it has beside weights, by name: statistics of batch norm.
        shares: sum of the shares classified right in its trainings since accuracies started anew, a scalar.
        trainings: how many those are.
    """

    weights: Tensor
    momentum: Tensor
    buffers: dict[str, Tensor]
    shares: Tensor
    trainings: int

    @property
    def accuracy(self) -> Tensor:
        """Running training accuracy in percent, a scalar; zero before the first training."""
        return 100.0 * self.shares / max(self.trainings, 1)


class NetworkQueue:
    """One network object that takes the weights of one network of the queue after another.

    The queue's content is a function of the number; it is one tuple, replaced all at once, so whenever Ctrl-C
    comes a number's training has been made or it has not. Drawing, choosing and shuffling are keyed by the seed and
    the number.

    Args:
        network: on its device; its parameters become views of one flat buffer.
        images: real images of all classes on that device, (n, c, h, w); uint8 with ``normalization``.
        labels: (n,), outputs of the network.
        settings: see :class:`QueueSettings`.
        seed: of all chance.
        normalization: of uint8 images.

    Attributes:
        network: in evaluation mode while its features are computed.
        accuracy: of the network taken, in percent, a scalar tensor on the device.
    """

    def __init__(
        self,
        network: Network,
        images: Tensor,
        labels: Tensor,
        settings: QueueSettings,
        seed: int,
        normalization: Normalization | None = None,
    ) -> None:
        self.network, self.settings, self.seed = network, settings, seed
        self.images, self.labels, self.normalization = images, labels, normalization
        self.parameters = FlatParameters(network)
        self._number = 0  # whose training has not been made
        self._members = tuple(self._fresh(index) for index in range(settings.queue_start))
        self._before: tuple[Member, ...] | None = None  # members one number ago
        self.take(0)

    def members(self, number: int) -> tuple[Member, ...]:
        """The queue before ``advance(number)``, the oldest first.

        Raises:
            ValueError: the queue has gone on further than one number, or is not there yet.
        """
        if number == self._number:
            return self._members
        if number == self._number - 1 and self._before is not None:
            return self._before
        raise ValueError(f"number must be that of the queue, {self._number}, or the one before, got {number}")

    def chosen(self, number: int) -> int:
        """Place in the queue of the network that a number takes."""
        chance = generator(self.seed, "queue", number)
        return int(torch.randint(len(self.members(number)), (), generator=chance))

    def take(self, number: int) -> None:
        """Give ``network`` the weights of a random network of the queue, as it was before ``advance(number)``."""
        member = self.members(number)[self.chosen(number)]
        self._put(member)
        self.network.requires_grad_(False).eval()
        self.accuracy = member.accuracy

    def advance(self, number: int) -> None:
        """Train a few random networks of the queue, and let a fresh one join where it is time; once a number."""
        if number < self._number:
            return
        settings, before = self.settings, self.members(number)
        members, done = list(before), number + 1
        if settings.queue_steps:
            order = torch.randperm(len(members), generator=generator(self.seed, "queue", number, "trained"))
            for place in order[: settings.queue_trained].tolist():
                members[place] = self._trained(members[place], (self.seed, "queue", number, place))
        if done % settings.queue_every == 0:
            fresh = self._fresh(settings.queue_start + done // settings.queue_every - 1)
            members = [*members, fresh][-settings.queue_size :]
        if done % settings.accuracy_every == 0:
            members = [m._replace(shares=torch.zeros_like(m.shares), trainings=0) for m in members]
        self.__dict__.update(_number=done, _members=tuple(members), _before=before)

    def state_dict(self, number: int) -> dict[str, Any]:
        """The queue as it was before ``advance(number)``."""
        members = self.members(number)
        return {
            "number": number,
            "weights": torch.stack([m.weights for m in members]),
            "momentum": torch.stack([m.momentum for m in members]),
            "buffers": {name: torch.stack([m.buffers[name] for m in members]) for name in members[0].buffers},
            "shares": torch.stack([m.shares for m in members]),
            "trainings": [m.trainings for m in members],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was taken.

        Raises:
            ValueError: the state is of another network; nothing is changed then.
        """
        buffer, trainings = self.parameters.buffer, state["trainings"]
        if state["weights"].shape != (len(trainings), len(buffer)):
            shape = tuple(state["weights"].shape)
            raise ValueError(f"the state does not fit: its weights are {shape}, a network here has {len(buffer)}")
        parts = [state[name].to(buffer.device) for name in ("weights", "momentum", "shares")]
        buffers = {name: values.to(buffer.device) for name, values in state["buffers"].items()}
        members = tuple(
            Member(weights, momentum, {name: values[i] for name, values in buffers.items()}, shares, trainings[i])
            for i, (weights, momentum, shares) in enumerate(zip(*parts))
        )
        self.__dict__.update(_number=state["number"], _members=members, _before=None)

    # ------------------------------------------------------------------ networks to members and back

    def _fresh(self, index: int) -> Member:
        """The random network that joins as number ``index`` of all that ever do."""
        buffer = self.parameters.buffer
        self.parameters.redraw(generator(self.seed, "network", index, device=buffer.device))
        return self._member(torch.zeros_like(buffer), torch.zeros((), device=buffer.device), 0)

    def _trained(self, member: Member, key: tuple[int | str, ...]) -> Member:
        settings = self.settings
        self._put(member)
        momentum = member.momentum.clone()
        optimizer = sgd_with(
            self.network.requires_grad_().parameters(),
            momentum,
            lr=settings.lr_net,
            momentum=settings.momentum_net,
            weight_decay=settings.decay_net,
        )
        share = train_further(
            self.network,
            self.images,
            self.labels,
            optimizer,
            key,
            steps=settings.queue_steps,
            batch_size=settings.batch_net,
            normalization=self.normalization,
        )
        # Every training sees equally many images, so the mean of shares is the share of all.
        return self._member(momentum, member.shares + share, member.trainings + 1)

    def _member(self, momentum: Tensor, shares: Tensor, trainings: int) -> Member:
        """What ``network`` is now, as a member."""
        buffers = {name: values.clone() for name, values in self.network.named_buffers()}
        return Member(self.parameters.buffer.clone(), momentum, buffers, shares, trainings)

    def _put(self, member: Member) -> None:
        self.parameters.buffer.copy_(member.weights)
        for name, values in self.network.named_buffers():
            values.copy_(member.buffers[name])
