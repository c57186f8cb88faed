"""How styles vary over the images of a class, against loops over images."""

import pytest
import slow_losses as slow
import torch
from slow_losses import CLASSES, REAL, SYNTHETIC, assert_equals_slow, fast_loss, features, part_of

from clreplay.losses.style import map_moments
from clreplay.losses.style_diversity import StyleDiversity


@pytest.mark.parametrize("layers", [None, (0,), (1,)], ids=str)
@pytest.mark.parametrize("synthetic", [2, SYNTHETIC])
def test_style_diversity_equals_its_formula(layers, synthetic):
    term = StyleDiversity(1.0, layers)
    # Sums of squares lose a little against sums of differences where a spread is small beside its mean.
    assert_equals_slow(term, slow.style_diversity, features(REAL), features(synthetic, seed=1), layers=layers)


def test_moments_that_the_forward_pass_has_are_used_in_place_of_maps():
    real, synthetic = features(REAL), features(SYNTHETIC, seed=1)
    fused = [f._replace(elsewhere={"conv": ([], [map_moments(tap) for tap in f.taps])}) for f in (real, synthetic)]
    torch.testing.assert_close(
        fast_loss(StyleDiversity(), fused[0])(fused[1]), fast_loss(StyleDiversity(), real)(synthetic)
    )


def test_one_image_a_class_has_no_style_diversity():
    assert StyleDiversity(1.0).parts(1) == [] and len(StyleDiversity(1.0).parts(2)) == 1
    for real, synthetic in ((REAL, 1), (1, SYNTHETIC)):
        found = fast_loss(StyleDiversity(), features(real))(features(synthetic))
        assert torch.equal(found, torch.zeros(CLASSES, dtype=torch.float64))


def test_a_set_of_one_style_differs_from_a_set_of_many():
    real = features(REAL)
    alike = part_of(real, images=[0] * REAL)
    assert (fast_loss(StyleDiversity(), real)(alike) > 0.5).all()  # half of the square of a whole, for both moments
    with pytest.raises(ValueError, match="layers must name at least one block"):
        StyleDiversity(layers=())
