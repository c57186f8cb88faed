"""The watch on the global generators sees what it is meant to see."""

import random

import numpy as np
import pytest
import torch


@pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: torch.rand(1)])
def test_the_watch_notices_a_draw_from_any_global_generator(draw, global_chance_untouched):
    with pytest.raises(AssertionError, match="generator"):
        with global_chance_untouched():
            draw()


def test_the_watch_lets_private_generators_pass(global_chance_untouched):
    with global_chance_untouched():
        torch.rand(1, generator=torch.Generator().manual_seed(0))
        np.random.RandomState(0).rand()
        random.Random(0).random()
