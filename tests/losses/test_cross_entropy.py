"""The cross-entropy of synthetic images, weighted by how well the network that judges them classifies."""

import math

import slow_losses as slow
import torch

from clreplay.losses.cross_entropy import TrustedCrossEntropy, class_cross_entropy
from clreplay.networks import ConvNet
from clreplay.networks.features import Features


class Judge:
    def __init__(self, percent):
        self.network = ConvNet(3, 3, 8, width=4, depth=2).double()
        self.accuracy = torch.tensor(percent, dtype=torch.float64)


def test_the_term_is_percent_times_the_mean_cross_entropy_of_a_class():
    judge = Judge(62.5)
    images = torch.randn(2, 5, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    features = Features.of(2, *judge.network.features(images.flatten(0, 1)))
    term = TrustedCrossEntropy(0.5, torch.tensor([2, 0]), judge)
    assert term.name == "cross_entropy" and term.weight == 0.5 and not term.reads_maps
    found = term.loss(term.statistics(features), term.statistics(features), features)
    expected = torch.stack([62.5 * slow.cross_entropy(judge.network(own), i) for own, i in zip(images, (2, 0))])
    torch.testing.assert_close(found, expected)
    sides = (torch.autograd.grad(loss.sum(), images)[0] for loss in (found, expected))
    torch.testing.assert_close(*sides)


def test_the_term_follows_its_judge():
    judge, embedding = Judge(10.0), torch.randn(3, 2, 16, dtype=torch.float64)
    term, features = TrustedCrossEntropy(1.0, torch.arange(3), judge), Features(embedding, [])
    first = term.loss((), (), features)
    judge.accuracy = torch.tensor(40.0, dtype=torch.float64)
    torch.testing.assert_close(term.loss((), (), features), 4 * first)
    judge.network.classifier.bias.data[0] += 100
    later = term.loss((), (), features)
    assert later[0] < 1e-9 and later[1] > 90 * 40


def test_cross_entropy_is_never_negative_and_log_of_the_outputs_where_nothing_is_known():
    flat = class_cross_entropy(torch.zeros(3, 4, 7), torch.tensor([0, 6, 2]))
    torch.testing.assert_close(flat, torch.full((3,), math.log(7)))
    assert (class_cross_entropy(torch.randn(3, 4, 7) * 50, torch.tensor([1, 1, 1])) >= 0).all()
