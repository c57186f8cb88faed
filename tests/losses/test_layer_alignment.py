"""CAFE's alignment of class means, layer by layer, against its formula."""

import slow_losses as slow
import torch
from slow_losses import REAL, SYNTHETIC, assert_equals_slow, signed_features

from clreplay.losses.layer_alignment import LayerAlignment, layer_alignment


def test_alignment_weighs_every_layer_as_the_authors_do():
    assert_equals_slow(
        LayerAlignment(), slow.layer_alignment, signed_features(REAL), signed_features(SYNTHETIC, seed=1)
    )


def test_a_network_without_maps_is_aligned_by_its_embedding():
    real, synthetic = (signed_features(n)._replace(taps=[]) for n in (3, 4))
    term = LayerAlignment(embedding=3.0)
    loss = term.loss(term.statistics(real), term.statistics(synthetic))
    torch.testing.assert_close(loss, 3 * layer_alignment(real.embedding.mean(1), synthetic.embedding.mean(1)))
