"""Spread along principal directions against a singular value decomposition and loops over images."""

import pytest
import slow_losses as slow
import torch
from slow_losses import CLASSES, REAL, SYNTHETIC, assert_equals_slow, fast_loss, features, part_of, value_and_gradients

from clreplay.losses.content_diversity import ContentDiversity, principal_directions, spread_along


@pytest.mark.parametrize("synthetic", [2, 3, SYNTHETIC, 9])
def test_content_diversity_equals_its_formula(synthetic):
    assert_equals_slow(ContentDiversity(1.0), slow.content_diversity, features(REAL), features(synthetic, seed=1))


def test_sixteen_directions_are_compared_at_most():
    real, synthetic = (wide(n, seed) for n, seed in ((40, 0), (30, 1)))
    assert ContentDiversity(1.0).targets(real)[0].shape == (CLASSES, 16, 50)
    assert_equals_slow(ContentDiversity(1.0), slow.content_diversity, real, synthetic)


def wide(n, seed):
    chance = torch.Generator().manual_seed(seed)
    some = features(n, seed=seed)
    return some._replace(embedding=torch.randn(CLASSES, n, 50, generator=chance, dtype=torch.float64) + 3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_directions_are_orthonormal_and_those_of_a_singular_value_decomposition(dtype):
    embedding = features(REAL).embedding.to(dtype)
    found = principal_directions(embedding, REAL - 1)
    torch.testing.assert_close(found @ found.mT, torch.eye(REAL - 1, dtype=dtype).expand(CLASSES, -1, -1))
    for one, directions in zip(embedding.double(), found.double()):
        expected = torch.linalg.svd(one - one.mean(0)).Vh[: REAL - 1]
        torch.testing.assert_close((directions * expected).sum(1).abs(), torch.ones(REAL - 1, dtype=torch.float64))
    spreads = spread_along(embedding, found)
    assert (spreads[:, :-1] >= spreads[:, 1:]).all()


def test_one_image_a_class_has_no_diversity_and_a_finite_gradient():
    assert ContentDiversity(1.0).parts(1) == [] and len(ContentDiversity(1.0).parts(2)) == 1
    for real, synthetic in ((REAL, 1), (1, SYNTHETIC)):
        target = ContentDiversity().targets(features(real))
        assert torch.equal(ContentDiversity().loss(target, (), features(synthetic)), torch.zeros(CLASSES))


def test_a_class_too_narrow_and_a_class_too_wide_are_both_pulled_back():
    real = features(REAL)
    centre = real.embedding.mean(1, keepdim=True)
    losses = []
    for scale, sign in ((0.5, -1), (1.0, 0), (2.0, 1)):
        some = real._replace(embedding=centre + scale * (real.embedding - centre))
        loss, (gradient, *_) = value_and_gradients(fast_loss(ContentDiversity(), real), some)
        outwards = ((some.embedding - centre) * gradient).sum((1, 2))
        assert (outwards.sign() == sign).all() or (sign == 0 and outwards.abs().max() < 1e-6)
        losses.append(loss)
    assert (losses[1] < 1e-12).all() and (losses[0] > 0.1).all() and (losses[2] > 0.1).all()


def test_images_that_are_all_alike_give_finite_values_and_gradients():
    alike = part_of(features(SYNTHETIC), images=[0] * SYNTHETIC)
    for real, synthetic in ((features(REAL), alike), (part_of(features(REAL), images=[1] * REAL), features(SYNTHETIC))):
        loss, gradients = value_and_gradients(fast_loss(ContentDiversity(), real), synthetic)
        assert torch.isfinite(loss).all() and all(torch.isfinite(gradient).all() for gradient in gradients)
