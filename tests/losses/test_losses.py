"""The terms of a matching loss against per-class, per-image references written from the formulas."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clreplay.losses import (
    CorrelationMatching,
    IntraClassDiversity,
    MeanMatching,
    MomentMatching,
    channel_moments,
    gram,
    intra_class_diversity,
    mean_matching,
    neighbour_count,
    style,
)
from clreplay.networks.features import Features

CLASSES, REAL, SYNTHETIC = 3, 5, 4


def features(n, classes=CLASSES, dtype=torch.float64, seed=0):
    """Random features of two blocks, post-activation: at least zero, one channel of the second block dead."""
    chance = torch.Generator().manual_seed(seed)
    taps = [torch.randn(classes, n, c, s, s, generator=chance, dtype=torch.float64).relu() for c, s in ((4, 6), (3, 2))]
    taps[1][:, :, 0] = 0
    embedding = torch.randn(classes, n, 7, generator=chance, dtype=torch.float64)
    return Features(embedding.to(dtype), [tap.to(dtype) for tap in taps])


def value_and_gradients(loss_of, some):
    """A loss of features, with its gradients with respect to the embedding and every tap."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (some.embedding, *some.taps)]
    loss = loss_of(Features(leaves[0], leaves[1:]))
    weights = torch.arange(1, len(loss) + 1, dtype=loss.dtype)  # so that classes cannot be swapped
    gradients = torch.autograd.grad((loss * weights).sum(), leaves, allow_unused=True)
    return loss.detach(), [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, gradients)]


def fast_loss(term, real):
    target = term.statistics(real)
    return lambda synthetic: term.loss(target, term.statistics(synthetic), synthetic)


def assert_same(term, slow, real, synthetic):
    def slow_loss(some):
        return torch.stack([slow(real, some, c) for c in range(CLASSES)])

    got, gradients = value_and_gradients(fast_loss(term, real), synthetic)
    expected, slow_gradients = value_and_gradients(slow_loss, synthetic)
    assert got.shape == (CLASSES,)
    torch.testing.assert_close(got, expected)
    for one, other in zip(gradients, slow_gradients):
        torch.testing.assert_close(one, other)


# ---------------------------------------------------------------- slow references: one class, image by image


def slow_mean_matching(real, synthetic, c):
    total = 0.0
    for entry in range(real.embedding.shape[2]):
        a = sum(real.embedding[c, i, entry] for i in range(REAL)) / REAL
        b = sum(synthetic.embedding[c, i, entry] for i in range(SYNTHETIC)) / SYNTHETIC
        total = total + (a - b) ** 2
    return total


def slow_moments(maps, sigma_of, spread):
    """Lists of the channels' mean and spread of one class's maps (n, channels, h, w)."""
    n, channels = maps.shape[:2]
    if sigma_of == "mean_map":
        maps = sum(maps[i] for i in range(n))[None] / n
        n = 1
    means, sigmas = [], []
    for channel in range(channels):
        mean, sigma = 0.0, 0.0
        for i in range(n):
            values = maps[i, channel].flatten()
            centre = values.sum() / len(values)
            variance = (values - centre).square().sum() / (len(values) - 1)
            mean = mean + centre / n
            sigma = sigma + (torch.sqrt(variance + 1e-5) if spread == "std" else variance) / n
        means.append(mean)
        sigmas.append(sigma)
    return means, sigmas


def slow_moment_matching(sigma_of, spread, channels, layers):
    def loss(real, synthetic, c):
        total = 0.0
        for layer in layers:
            ours = slow_moments(synthetic.taps[layer][c], sigma_of, spread)
            theirs = slow_moments(real.taps[layer][c], sigma_of, spread)
            for mine, target in zip(ours, theirs):
                squares = [(m - t) ** 2 for m, t in zip(mine, target)]
                total = total + 0.5 * sum(squares) / (len(squares) if channels == "mean" else 1)
        return total

    return loss


def slow_gram(maps):
    n, channels, h, w = maps.shape
    total = torch.zeros(channels, channels, dtype=maps.dtype)
    for image in maps:
        flat = image.reshape(channels, h * w)
        total = total + flat @ flat.T / (channels * h * w) / n
    return total


def slow_correlation_matching(quarter, layers):
    def loss(real, synthetic, c):
        gaps = [slow_gram(real.taps[layer][c]) - slow_gram(synthetic.taps[layer][c]) for layer in layers]
        return sum((gap**2).sum() for gap in gaps) * (0.25 if quarter else 1)

    return loss


def slow_diversity(k, reduction="mean", detach=False):
    def loss(real, synthetic, c):
        images, total = synthetic.embedding[c], 0.0
        for i, image in enumerate(images):
            others = [((image - other).square().sum().item(), j) for j, other in enumerate(images) if j != i]
            nearest = [j for _, j in sorted(others)[:k]]  # ties by index
            centre = sum(images[j] for j in nearest) / k
            centre = centre.detach() if detach else centre
            p = torch.exp(image) / torch.exp(image).sum()
            q = torch.exp(centre) / torch.exp(centre).sum()
            total = total - (p * torch.log(p / q)).sum()
        return total / len(images) if reduction == "mean" else total

    return loss


# ---------------------------------------------------------------- mean matching


def test_mean_matching_is_a_sum_over_the_embedding_and_separate_over_classes():
    assert_same(MeanMatching(), slow_mean_matching, features(REAL), features(SYNTHETIC, seed=1))
    assert mean_matching(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)).tolist() == [25.0]


# ---------------------------------------------------------------- moments


@pytest.mark.parametrize("layers", [None, (0,), (1,), (0, 1)], ids=str)
@pytest.mark.parametrize("channels", ["mean", "sum"])
@pytest.mark.parametrize("spread", ["std", "var"])
@pytest.mark.parametrize("sigma_of", ["image", "mean_map"])
def test_moment_matching_equals_eq_4(sigma_of, spread, channels, layers):
    term = MomentMatching(1.0, sigma_of, spread, channels, layers)
    slow = slow_moment_matching(sigma_of, spread, channels, layers or (0, 1))
    assert_same(term, slow, features(REAL), features(SYNTHETIC, seed=1))


def test_moments_of_one_image_are_the_same_in_both_readings():
    maps = features(1).taps[0]
    for one, other in zip(channel_moments(maps, "image"), channel_moments(maps, "mean_map")):
        torch.testing.assert_close(one, other)


def test_the_spread_of_the_mean_map_is_smaller_than_the_mean_spread():
    maps = features(64).taps[0]
    assert (channel_moments(maps, "mean_map")[1] < 0.5 * channel_moments(maps, "image")[1]).all()


# ---------------------------------------------------------------- correlation


@pytest.mark.parametrize("layers", [None, (0,), (1,)], ids=str)
@pytest.mark.parametrize("quarter", [False, True])
def test_correlation_matching_equals_eq_6(quarter, layers):
    slow = slow_correlation_matching(quarter, layers or (0, 1))
    assert_same(CorrelationMatching(1.0, quarter, layers), slow, features(REAL), features(SYNTHETIC, seed=1))


@pytest.mark.parametrize("way", [gram, style._gram_by_image, style._gram_tall])  # the last is a GPU's
def test_the_gram_matrix_is_that_of_the_formula_and_symmetric(way):
    maps = features(REAL).taps[0]
    found = way(maps)
    torch.testing.assert_close(found, torch.stack([slow_gram(one) for one in maps]))
    torch.testing.assert_close(found, found.transpose(1, 2))


@pytest.mark.parametrize(
    "term", [MomentMatching(layers=(2,)), CorrelationMatching(layers=(0, 2)), MomentMatching(layers=(-1,))]
)
def test_a_layer_the_network_lacks_is_an_error(term):
    with pytest.raises(ValueError, match=r"layers must be within 0\.\.1 for this network, got (2|-1)"):
        term.statistics(features(2))


# ---------------------------------------------------------------- diversity


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
    assert_same(term, slow_diversity(k, reduction, detach), features(REAL), features(SYNTHETIC, seed=1))


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


# ---------------------------------------------------------------- what holds for every term

MATCHING = [
    MeanMatching(),
    MomentMatching(),
    MomentMatching(sigma_of="mean_map"),
    MomentMatching(spread="var", channels="sum"),
    CorrelationMatching(),
    CorrelationMatching(quarter=True),
]
ALL = [*MATCHING, IntraClassDiversity(neighbours=0.5), IntraClassDiversity(reduction="sum", detach_neighbours=True)]


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


def test_maps_of_a_single_pixel_have_no_spread():
    mean, sigma = channel_moments(torch.full((1, 2, 3, 1, 1), 2.0, requires_grad=True))
    torch.testing.assert_close(mean, torch.full((1, 3), 2.0))
    torch.testing.assert_close(sigma, torch.full((1, 3), math.sqrt(1e-5)))


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


def test_features_split_the_leading_axis_into_classes():
    embedding, taps = torch.arange(12.0).view(6, 2), [torch.arange(6.0).view(6, 1, 1, 1)]
    some = Features.of(3, embedding, taps)
    assert torch.equal(some.embedding[1], embedding[2:4])
    assert some.taps[0].shape == (3, 2, 1, 1, 1) and torch.equal(some.taps[0][2].flatten(), torch.tensor([4.0, 5.0]))
