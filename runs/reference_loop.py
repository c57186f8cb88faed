"""The reference way to condense, for the benchmark: a loop over classes, a new module every iteration.

Faithful to how the scripts of DM and its descendants work, and deliberately free of the engine's code: one
forward pass for real and one for synthetic images of every class, PyTorch's own pooling, ``std`` and Gram
products, siamese augmentation class by class, ``torch.optim.SGD`` on the images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clreplay.training.augmentation import DSA_STRATEGY, augment_shared, draw, parse_strategy


class ReferenceNet(nn.Module):
    """ConvNet-3 with PyTorch's stock layers; post-activation maps of every block are kept."""

    def __init__(self, width: int, channels: int = 3) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels if i == 0 else width, width, 3, padding=1) for i in range(3))
        self.norms = nn.ModuleList(nn.GroupNorm(width, width) for _ in range(3))
        self.pool = nn.AvgPool2d(2)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Embedding (n, width * 16) and taps."""
        maps, taps = images, []
        for conv, norm in zip(self.convs, self.norms):
            maps = torch.relu(norm(conv(maps)))
            taps.append(maps)
            maps = self.pool(maps)
        return maps.flatten(1), taps


class ReferenceLoop:
    """One condensation in progress, the slow way.

    Args:
        real: normalised float images of every class, (n, c, h, w) each.
        images_per_class: synthetic images.
        width: of the network.
        real_batch: real images a class and iteration.
        method: ``dm`` or ``ddm-paper``.
    """

    def __init__(self, real: list[Tensor], images_per_class: int, width: int, real_batch: int, method: str) -> None:
        self.real, self.width, self.batch, self.method = real, width, real_batch, method
        self.count = images_per_class
        self.synthetic = torch.cat([images[:images_per_class] for images in real]).clone().requires_grad_()
        self.optimizer = torch.optim.SGD([self.synthetic], lr=1.0, momentum=0.5)
        self.strategy = parse_strategy(DSA_STRATEGY)
        self.chance = torch.Generator().manual_seed(0)

    def step(self) -> None:
        """One iteration over all classes."""
        network = ReferenceNet(self.width, self.real[0].shape[1]).to(self.synthetic.device)
        network.requires_grad_(False)
        loss = torch.zeros((), device=self.synthetic.device)
        for label, images in enumerate(self.real):
            rows = torch.randperm(len(images), generator=self.chance)[: self.batch]
            seed = draw(1, self.strategy, self.chance)[0]
            real = augment_shared(images[rows.to(images.device)], seed, self.strategy)
            own = self.synthetic[label * self.count : (label + 1) * self.count]
            loss = loss + self._loss(network(real), network(augment_shared(own, seed, self.strategy)))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def _loss(self, real: tuple[Tensor, list[Tensor]], synthetic: tuple[Tensor, list[Tensor]]) -> Tensor:
        loss = (real[0].detach().mean(0) - synthetic[0].mean(0)).square().sum()
        if self.method == "dm":
            return loss
        style = torch.zeros((), device=loss.device)
        for target, value in zip(real[1], synthetic[1]):
            target = target.detach()
            means = [maps.mean((2, 3)).mean(0) for maps in (target, value)]
            spreads = [(maps.flatten(2).var(2) + 1e-5).sqrt().mean(0) for maps in (target, value)]
            grams = [_gram(target), _gram(value)]
            style = (
                style + 0.5 * (means[0] - means[1]).square().mean() + 0.5 * (spreads[0] - spreads[1]).square().mean()
            )
            style = style + (grams[0] - grams[1]).square().sum()
        return loss + 5000 * style + 10 * _diversity(synthetic[0])


def _gram(maps: Tensor) -> Tensor:
    n, channels, h, w = maps.shape
    flat = maps.flatten(2)
    return (torch.bmm(flat, flat.transpose(1, 2)) / (channels * h * w)).mean(0)


def _diversity(embedding: Tensor) -> Tensor:
    n = len(embedding)
    k = min(max(1, round(0.2 * n)), n - 1)
    distances = torch.cdist(embedding, embedding).detach().fill_diagonal_(float("inf"))
    centre = embedding[distances.topk(k, largest=False).indices].mean(1)
    return -torch.nn.functional.kl_div(
        centre.log_softmax(1), embedding.log_softmax(1), log_target=True, reduction="batchmean"
    )
