"""What holds for every term of a matching loss: equal sets, order, neighbours, dead channels, precision."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from slow_losses import CLASSES, REAL, SYNTHETIC, fast_loss, features, value_and_gradients

from clreplay.losses import (
    TERMS,
    AttentionMatching,
    CorrelationMatching,
    IntraClassDiversity,
    LayerAlignment,
    MeanMatching,
    MomentMatching,
)
from clreplay.networks.features import Features

MATCHING = [
    MeanMatching(),
    MomentMatching(),
    MomentMatching(sigma_of="mean_map"),
    MomentMatching(spread="var", channels="sum"),
    CorrelationMatching(),
    CorrelationMatching(quarter=True),
    AttentionMatching(layers=(0,)),
    LayerAlignment(),
]
ALL = [*MATCHING, IntraClassDiversity(neighbours=0.5), IntraClassDiversity(reduction="sum", detach_neighbours=True)]
# A term that is registered and not named above is tested with its defaults.
PARTS = [part for term in TERMS.values() for part in term(weight=1.0).parts(SYNTHETIC)]
ALL += [part for part in PARTS if type(part) not in {type(term) for term in ALL}]


@pytest.mark.parametrize("term", MATCHING, ids=repr)
def test_equal_sets_match_exactly(term):
    some = features(REAL)
    loss, gradients = value_and_gradients(fast_loss(term, some), some)
    assert torch.equal(loss, torch.zeros_like(loss))
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)


@pytest.mark.parametrize("term", MATCHING, ids=repr)
def test_a_set_and_its_copies_match(term):
    some = features(REAL)
    twice = Features(some.embedding.repeat(1, 2, 1), [tap.repeat(1, 2, 1, 1, 1) for tap in some.taps])
    assert fast_loss(term, some)(twice).abs().max() < 1e-20


@pytest.mark.parametrize("term", ALL, ids=repr)
@given(order=st.permutations(range(SYNTHETIC)), real_order=st.permutations(range(REAL)))
def test_the_order_of_a_class_s_images_does_not_matter(term, order, real_order):
    real, synthetic = features(REAL), features(SYNTHETIC, seed=1)
    shuffled = [
        Features(some.embedding[:, p], [tap[:, p] for tap in some.taps])
        for some, p in ((real, real_order), (synthetic, order))
    ]
    torch.testing.assert_close(fast_loss(term, shuffled[0])(shuffled[1]), fast_loss(term, real)(synthetic))


@pytest.mark.parametrize("term", ALL, ids=repr)
def test_a_class_does_not_depend_on_the_classes_beside_it(term):
    real, synthetic = features(REAL), features(SYNTHETIC, seed=1)
    together = fast_loss(term, real)(synthetic)
    for c in range(CLASSES):
        one, other = (Features(f.embedding[[c]], [tap[[c]] for tap in f.taps]) for f in (real, synthetic))
        torch.testing.assert_close(fast_loss(term, one)(other), together[[c]])


@pytest.mark.parametrize("term", ALL, ids=repr)
def test_dead_channels_give_finite_gradients(term):
    """A channel that the activation silences has no spread; the root's slope is bounded by the epsilon."""
    real, synthetic = features(REAL, dtype=torch.float32), features(SYNTHETIC, dtype=torch.float32, seed=1)
    synthetic.taps[0].zero_()
    synthetic.embedding.zero_()
    loss, gradients = value_and_gradients(fast_loss(term, real), synthetic)
    assert torch.isfinite(loss).all()
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("term", ALL, ids=repr)
def test_float32_is_within_1e_5_of_float64(term):
    """On maps of the size that instance-normalised networks give: 64 real images, 16 pixels, 8 channels."""
    sets = []
    for n, seed in ((64, 0), (10, 1)):
        chance = torch.Generator().manual_seed(seed)
        maps = torch.randn(2, n, 8, 16, 16, generator=chance).relu() * (1 + seed * 0.2)
        sets.append(Features(maps[..., ::4, ::4].flatten(2).contiguous(), [maps]))
    exact = [Features(some.embedding.double(), [tap.double() for tap in some.taps]) for some in sets]
    found, expected = fast_loss(term, sets[0])(sets[1]), fast_loss(term, exact[0])(exact[1])
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
