"""Mean matching against its formula."""

import slow_losses as slow
import torch
from slow_losses import REAL, SYNTHETIC, assert_equals_slow, features

from clreplay.losses.mean_matching import MeanMatching, mean_matching


def test_mean_matching_is_a_sum_over_the_embedding_and_separate_over_classes():
    assert_equals_slow(MeanMatching(), slow.mean_matching, features(REAL), features(SYNTHETIC, seed=1))
    assert mean_matching(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)).tolist() == [25.0]
