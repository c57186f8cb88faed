"""What a network says of images: its embedding and feature maps, by class."""

import torch

from clreplay.networks.features import Features


def test_features_split_the_leading_axis_into_classes():
    embedding, taps = torch.arange(12.0).view(6, 2), [torch.arange(6.0).view(6, 1, 1, 1)]
    some = Features.of(3, embedding, taps)
    assert torch.equal(some.embedding[1], embedding[2:4])
    assert some.taps[0].shape == (3, 2, 1, 1, 1) and torch.equal(some.taps[0][2].flatten(), torch.tensor([4.0, 5.0]))
