"""Patch statistics against loops over patches, and against the convolution whose map they fix."""

import slow_losses as slow
import torch
import torch.nn.functional as F
from slow_losses import REAL, SYNTHETIC, assert_equals_slow, fast_loss, features

from clreplay.losses.patch_statistics import PatchMatching, patch_moments


def test_patch_matching_equals_its_formula():
    assert_equals_slow(PatchMatching(1.0), slow.patch_matching, features(REAL), features(SYNTHETIC, seed=1))


def test_they_fix_mean_and_mean_square_of_every_map_of_a_first_convolution():
    images = features(REAL).images
    mean, second = patch_moments(images)
    filters = torch.randn(8, images.shape[2], 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for one, m, s in zip(images, mean, second):
        maps = F.conv2d(one, filters, padding=1)
        rows = filters.flatten(1)
        torch.testing.assert_close(maps.mean((0, 2, 3)), rows @ m)
        gram = torch.einsum("nihw,njhw->ij", maps, maps) / maps[:, 0].numel()
        torch.testing.assert_close(gram, rows @ s @ rows.T)


def test_contrast_is_seen_which_an_instance_norm_hides():
    real = features(REAL)
    louder = real._replace(images=1.5 * real.images)
    found = fast_loss(PatchMatching(), real)(louder)
    means, power = patch_moments(real.images)[0], patch_moments(real.images)[1].diagonal(dim1=1, dim2=2).sum(1)
    expected = 0.5 * (0.25 * means.square().sum(1) / power + (1.5**2 - 1) ** 2)
    torch.testing.assert_close(found, expected)


def test_a_class_whose_mean_colour_is_zero_has_finite_values():
    real = features(REAL)
    real = real._replace(images=real.images - patch_moments(real.images)[0].mean())
    centred = torch.cat([real.images, -real.images], 1)  # its mean is zero exactly
    found = fast_loss(PatchMatching(), real._replace(images=centred))(features(SYNTHETIC, seed=1))
    assert torch.isfinite(found).all() and (found < 10).all()
