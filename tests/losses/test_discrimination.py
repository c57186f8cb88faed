"""CAFE's discrimination against a loop over real images, and what must not change it."""

import slow_losses as slow
import torch
from hypothesis import given
from hypothesis import strategies as st
from slow_losses import features

from clreplay.losses.discrimination import discrimination


def test_discrimination_equals_the_loop_in_value_and_gradient():
    chance = torch.Generator().manual_seed(0)
    real, centres = (torch.randn(n, 6, generator=chance).double() for n in (8, 3))
    labels, leaf = torch.tensor([0, 2, 1, 1, 0, 2, 2, 0]), centres.requires_grad_()
    found, expected = (loss(real, labels, leaf) for loss in (discrimination, slow.discrimination))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, leaf), torch.autograd.grad(expected, leaf))


@given(st.integers(0, 2**20), st.integers(1, 4), st.integers(1, 4))
def test_neither_the_order_of_images_nor_which_class_is_called_which_matters(seed, classes, n):
    some = features(n, classes, seed=seed)
    real, labels = some.embedding.flatten(0, 1), torch.arange(classes).repeat_interleave(n)
    centres = some.embedding.flip(1).mean(1)
    once = discrimination(real, labels, centres)
    order = torch.randperm(classes * n, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(discrimination(real[order], labels[order], centres), once)
    torch.testing.assert_close(discrimination(real, classes - 1 - labels, centres.flip(0)), once)
    assert classes > 1 or float(once) == 0, "a single class has nothing to be told apart from"
