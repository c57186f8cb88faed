"""The slow reference of training: SGD from its formulas, on batches augmented image after image.

Everything is drawn from the same keys as in the library.
"""

import torch
import torch.nn.functional as F

from clreplay.runtime.seeding import generator
from clreplay.training.augmentation import OPERATORS, draw, parse_strategy


class SlowSGD:
    """v = momentum * v + g + decay * w; the step is lr * v, or lr * (g + decay * w + momentum * v) by Nesterov."""

    def __init__(self, network, lr, momentum=0.0, weight_decay=0.0, nesterov=False):
        self.weights = [p for p in network.parameters() if p.requires_grad]
        self.lr, self.momentum, self.weight_decay, self.nesterov = lr, momentum, weight_decay, nesterov
        self.velocity = [torch.zeros_like(weight) for weight in self.weights]

    def step(self, loss):
        gradients = torch.autograd.grad(loss, self.weights)
        with torch.no_grad():
            for i, (weight, gradient) in enumerate(zip(self.weights, gradients)):
                gradient = gradient + self.weight_decay * weight
                self.velocity[i] = self.momentum * self.velocity[i] + gradient
                ahead = gradient + self.momentum * self.velocity[i] if self.nesterov else self.velocity[i]
                weight.sub_(self.lr * ahead)


def in_bfloat16(network):
    """Logits of a ConvNet of a convolution, a norm, ReLU and pooling a block, whose convolutions and linear layer see
    everything rounded to bfloat16; the network's own norm works on what they give.
    """

    def rounded(layer, values):
        return F.conv2d(values, *layer, padding=1) if values.ndim == 4 else F.linear(values, *layer)

    def forward(images):
        maps = images
        for block in network.blocks:
            low = rounded([p.bfloat16() for p in (block.conv.weight, block.conv.bias)], maps.bfloat16())
            maps = F.avg_pool2d(block.norm(low.float()).relu(), 2)
        last = network.classifier
        return rounded([last.weight.bfloat16(), last.bias.bfloat16()], maps.flatten(1).bfloat16()).float()

    return forward


def slow_epoch(network, images, labels, sgd, key, epoch, batch_size, augment=None, forward=None):
    """Cross-entropy on the mini-batches of one epoch, each in one pass since batch norm looks at all its images.

    Args:
        forward: gives the logits; the network itself by default.

    Returns:
        (row, whether it was right before the update) of every image, in the order of presentation.
    """
    chance, strategy, seen = generator(*key, "epoch", epoch), parse_strategy(augment), []
    order = torch.randperm(len(images), generator=chance).tolist()
    starts = range(0, len(images), batch_size)
    choices = torch.rand(len(starts), generator=chance).tolist()
    parameters = draw(len(images), strategy, chance)[:, 1:]
    for start, choice in zip(starts, choices):
        batch, rows = [], order[start : start + batch_size]
        for place, row in enumerate(rows, start=start):
            image = images[row : row + 1]
            for i, name in enumerate(strategy.chosen(choice)):
                image = OPERATORS[name](image, parameters[place : place + 1, 3 * i : 3 * i + 3])
            batch.append(image)
        logits = (forward or network)(torch.cat(batch))
        seen += [(row, int(one.argmax()) == int(labels[row])) for row, one in zip(rows, logits)]
        sgd.step(-sum(one.log_softmax(0)[labels[row]] for row, one in zip(rows, logits)) / len(rows))
    return seen


def slow_training(network, images, labels, settings, key, forward=None):
    """The loop of DM's authors: where the learning rate drops, momentum starts anew.

    Returns:
        of every image, whether it was right before each update that it took part in.
    """
    sgd = SlowSGD(network, settings.lr, settings.momentum, settings.weight_decay, settings.nesterov)
    histories = [[] for _ in images]
    for epoch in range(settings.epochs_for(len(images))):
        how = (settings.batch_size, settings.augment, forward)
        for row, right in slow_epoch(network, images, labels, sgd, key, epoch, *how):
            histories[row].append(right)
        if epoch in settings.drops_after(len(images)):
            sgd.lr *= settings.lr_drop
            if settings.drop_resets_momentum:
                sgd.velocity = [torch.zeros_like(weight) for weight in sgd.weights]
    return histories
