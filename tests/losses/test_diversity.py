"""Diversity inside a class against a loop over its images: neighbours, ties, and what must stay finite."""

import pytest
import slow_losses as slow
import torch
from slow_losses import CLASSES, REAL, SYNTHETIC, assert_equals_slow, fast_loss, features, value_and_gradients

from clreplay.losses.diversity import IntraClassDiversity, intra_class_diversity, neighbour_count


@pytest.mark.parametrize(
    ("images_per_class", "fraction", "k"),
    [(1, 0.2, 0), (2, 0.2, 1), (10, 0.2, 2), (20, 0.2, 4), (50, 0.2, 10), (12, 0.2, 2), (13, 0.2, 3)]
    + [(10, 1.0, 9), (50, 1.0, 49), (1, 1.0, 0), (10, 0.9, 9), (10, 0.1, 1), (3, 0.01, 1), (5, 0.3, 2), (5, 0.5, 3)],
)
def test_neighbour_counts(images_per_class, fraction, k):
    assert neighbour_count(images_per_class, fraction) == k


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_diversity_equals_eq_8(k, reduction, detach):
    term = IntraClassDiversity(1.0, k / SYNTHETIC, reduction, detach)
    how = {"k": k, "reduction": reduction, "detach": detach}
    assert_equals_slow(term, slow.diversity, features(REAL), features(SYNTHETIC, seed=1), **how)


def test_the_detached_centre_changes_the_gradient_and_not_the_value():
    some = features(SYNTHETIC)
    (kept, kept_gradients), (cut, cut_gradients) = (
        value_and_gradients(lambda f: intra_class_diversity(f.embedding, 2, detach_neighbours=detach), some)
        for detach in (False, True)
    )
    assert torch.equal(kept, cut)
    assert not torch.allclose(kept_gradients[0], cut_gradients[0])


def test_a_duplicate_is_a_neighbour_and_never_the_image_itself():
    """Dropping the first hit instead of the diagonal would make an image its duplicate's only neighbour by luck."""
    twin, far = torch.zeros(3), torch.tensor([9.0, 0.0, 0.0])
    embedding = torch.stack([far, twin, twin])[None].requires_grad_()
    loss = intra_class_diversity(embedding, 1)
    p, q = far.softmax(0), twin.softmax(0)
    torch.testing.assert_close(loss, -(p * (p / q).log()).sum()[None] / 3)  # the twins contribute nothing
    assert torch.isfinite(torch.autograd.grad(loss.sum(), embedding)[0]).all()


def test_neighbours_are_found_among_features_that_hardly_differ():
    """Distances come from differences; the expanded product |x|^2 - 2 x y + |y|^2 would drown them in rounding."""
    steps = torch.tensor([0.0, 1.0, 3.0, 3.5, 7.0, 7.25]) / 64
    embedding = (torch.full((6, 64), 500.0) + steps[:, None] * torch.ones(64))[None]
    embedding[0, :, 0] = torch.tensor([500.0, 501.0, 503.0, 503.5, 507.0, 507.25])
    pairs = {0: 1, 1: 0, 2: 3, 3: 2, 4: 5, 5: 4}
    rows = embedding[0].double()
    logs = rows.log_softmax(1)
    expected = -sum((logs[i].exp() * (logs[i] - logs[j])).sum() for i, j in pairs.items()) / 6
    torch.testing.assert_close(intra_class_diversity(embedding, 1)[0].double(), expected, rtol=1e-3, atol=0)


def test_ties_go_to_the_lower_index():
    centre, left, right = torch.zeros(2), torch.tensor([-1.0, 0.5]), torch.tensor([1.0, -0.5])
    for first, second in ((left, right), (right, left)):
        embedding = torch.stack([first, centre, second])[None]
        alone = torch.stack([centre, first])[None]  # the centre's only neighbour is the one before it
        ends = torch.stack([first, second])

        def divergence(image, other):
            return (image.softmax(0) * (image.log_softmax(0) - other.log_softmax(0))).sum()

        expected = (divergence(alone[0, 0], alone[0, 1]) + sum(divergence(end, centre) for end in ends)) / 3
        torch.testing.assert_close(intra_class_diversity(embedding, 1), -expected[None])


def test_all_images_equal_have_no_divergence_and_a_finite_gradient():
    embedding = torch.ones(2, 4, 5, dtype=torch.float64, requires_grad=True)
    loss = intra_class_diversity(embedding, 2)
    torch.testing.assert_close(loss, torch.zeros_like(loss))
    assert torch.isfinite(torch.autograd.grad(loss.sum(), embedding)[0]).all()


def test_diversity_is_never_positive_and_survives_large_features():
    embedding = (1e3 * torch.randn(3, 6, 9)).requires_grad_()
    loss = intra_class_diversity(embedding, 2)
    assert (loss < 0).all() and torch.isfinite(loss).all()
    assert torch.isfinite(torch.autograd.grad(loss.sum(), embedding)[0]).all()


@pytest.mark.parametrize("k", [0, 4, -1])
def test_a_number_of_neighbours_out_of_range_is_an_error(k):
    with pytest.raises(ValueError, match=rf"neighbours must be within 1\.\.3 for 4 images a class, got {k}"):
        intra_class_diversity(torch.zeros(1, 4, 2), k)


def test_one_image_a_class_has_a_diversity_of_exactly_zero():
    some = features(1)
    assert torch.equal(fast_loss(IntraClassDiversity(), some)(some), torch.zeros(CLASSES, dtype=torch.float64))


def test_two_threads_give_the_diversity_gradient_the_same_bytes_every_time():
    """Scattering into shared neighbours with atomic additions would sum in another order every time."""
    embedding = torch.randn(1, 20, 2048, requires_grad=True)
    torch.set_num_threads(2)
    try:
        gradients = {
            torch.autograd.grad(intra_class_diversity(embedding, 4).sum(), embedding)[0].numpy().tobytes()
            for _ in range(8)
        }
    finally:
        torch.set_num_threads(1)
    assert len(gradients) == 1
