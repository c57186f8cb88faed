"""Spatial attention matching (DataDAM) against a reference position by position; its place in the engine."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clreplay.condensation import METHODS, RealImages
from clreplay.condensation.engine.execution import Execution
from clreplay.condensation.matching.engine import MatchingEngine
from clreplay.condensation.matching.settings import MatchingSettings
from clreplay.condensation.matching.terms import terms_of
from clreplay.data import NORMALIZATIONS
from clreplay.losses import AttentionMatching, attention_maps
from clreplay.networks import ConvNet
from clreplay.networks.features import Features
from clreplay.networks.kernels.build import failure
from clreplay.recipes.recipe import load_recipe
from clreplay.runtime.seeding import generator

CPU = torch.device("cpu")
CLASSES, REAL, SYNTHETIC = 3, 5, 4
DATADAM = MatchingSettings(
    width=4, depth=3, iterations=3, real_batch=50, lr_img=0.5, siamese_augment=None, attention_weight=100.0
)


def features(n, seed=0):
    """Random features of three blocks in double precision; signs vary, as with leaky activations."""
    chance = torch.Generator().manual_seed(seed)
    sizes = ((4, 6), (3, 4), (2, 2))
    taps = [torch.randn(CLASSES, n, c, s, s, generator=chance, dtype=torch.float64) for c, s in sizes]
    return Features(torch.randn(CLASSES, n, 7, generator=chance, dtype=torch.float64), taps)


# ---------------------------------------------------------------- the slow reference: position by position


def slow_attention(image, power):
    """One image's map (channels, h, w): a list of h * w numbers."""
    channels, h, w = image.shape
    strength = [sum(abs(image[c, y, x]) ** power for c in range(channels)) for y in range(h) for x in range(w)]
    length = torch.sqrt(sum(value**2 for value in strength))
    return [value / length for value in strength]


def slow_attention_matching(real, synthetic, layers, power):
    """Sum over layers and positions of the squared gap of the mean maps, (classes,)."""
    losses = []
    for c in range(CLASSES):
        total = 0.0
        for layer in layers:
            theirs = [slow_attention(image, power) for image in real.taps[layer][c]]
            ours = [slow_attention(image, power) for image in synthetic.taps[layer][c]]
            for position in range(len(ours[0])):
                gap = sum(one[position] for one in theirs) / REAL - sum(one[position] for one in ours) / SYNTHETIC
                total = total + gap**2
        losses.append(total)
    return torch.stack(losses)


def value_and_gradients(loss_of, some):
    leaves = [tap.detach().clone().requires_grad_() for tap in some.taps]
    loss = loss_of(Features(some.embedding, leaves))
    weights = torch.arange(1, CLASSES + 1, dtype=loss.dtype)  # so that classes cannot be swapped
    gradients = torch.autograd.grad((loss * weights).sum(), leaves, allow_unused=True)
    return loss.detach(), gradients


@pytest.mark.parametrize("power", [1.0, 2.0, 3.5, 4.0])
@pytest.mark.parametrize("layers", [None, (0,), (2, 0)])
def test_values_and_gradients_equal_the_reference(power, layers):
    real, synthetic = features(REAL), features(SYNTHETIC, seed=1)
    term = AttentionMatching(power=power, layers=layers)
    target = term.statistics(real)
    got, gradients = value_and_gradients(lambda some: term.loss(target, term.statistics(some), some), synthetic)
    chosen = (0, 1) if layers is None else layers
    slow, expected = value_and_gradients(
        lambda some: slow_attention_matching(real, some, chosen, power), features(SYNTHETIC, seed=1)
    )
    assert got.shape == (CLASSES,) and (slow > 0).all()
    torch.testing.assert_close(got, slow)
    for layer, (one, other) in enumerate(zip(gradients, expected)):
        assert (one is None) == (other is None) == (layer not in chosen)
        if one is not None:
            torch.testing.assert_close(one, other)


def test_the_last_layer_is_left_out_unless_asked_for():
    real, synthetic = features(REAL), features(SYNTHETIC, seed=1)
    other = synthetic._replace(taps=[*synthetic.taps[:-1], synthetic.taps[-1] * 2 + 1])

    def loss(layers, some):
        term = AttentionMatching(layers=layers)
        return term.loss(term.statistics(real), term.statistics(some), some)

    assert torch.equal(loss(None, synthetic), loss(None, other))
    assert not torch.equal(loss((2,), synthetic), loss((2,), other))
    torch.testing.assert_close(loss((0,), synthetic) + loss((1,), synthetic), loss(None, synthetic))


# ---------------------------------------------------------------- what must hold for any maps


maps_of = st.builds(
    lambda seed, n, c, s: torch.randn(2, n, c, s, s, generator=torch.Generator().manual_seed(seed)).double(),
    st.integers(0, 2**20),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 5),
)
powers = st.sampled_from([1.0, 1.5, 2.0, 4.0])


@given(maps_of, powers, st.floats(0.01, 100.0))
def test_a_map_has_length_one_and_knows_neither_scale_nor_sign_nor_order_of_channels(maps, power, scale):
    attention = attention_maps(maps, power)
    assert attention.shape == (*maps.shape[:2], maps.shape[3] * maps.shape[4])
    torch.testing.assert_close(attention.norm(dim=2), torch.ones(maps.shape[:2], dtype=maps.dtype))
    assert (attention >= 0).all()
    for same in (scale * maps, -maps, maps.flip(2)):
        torch.testing.assert_close(attention_maps(same, power), attention)


@given(maps_of, powers)
def test_equal_sets_match_and_the_order_of_images_does_not_matter(maps, power):
    term = AttentionMatching(power=power, layers=(0,))
    one, turned = (Features(maps.new_zeros(2, 1, 1), [some]) for some in (maps, maps.flip(1)))
    loss = term.loss(term.statistics(one), term.statistics(turned), turned)
    torch.testing.assert_close(loss, torch.zeros_like(loss))


def test_a_higher_power_looks_where_a_single_channel_is_strong():
    spread, peaked = torch.tensor([2.0, 2.0]), torch.tensor([3.0, 0.0])
    maps = torch.stack([spread, peaked], 1).view(1, 1, 2, 1, 2)  # two channels at two positions
    low, high = attention_maps(maps, 1.0)[0, 0], attention_maps(maps, 4.0)[0, 0]
    assert low[0] > low[1] and high[0] < high[1]
    assert high[1] / high[0] == pytest.approx(3**4 / (2 * 2**4))


@pytest.mark.parametrize("power", [1.0, 1.5, 4.0])
def test_a_dead_map_has_no_attention_and_a_finite_gradient(power):
    maps = torch.randn(1, 3, 2, 2, 2)
    maps[0, 1] = 0
    leaf = maps.requires_grad_()
    attention = attention_maps(leaf, power)
    assert not attention[0, 1].any()
    attention.square().sum().backward()
    assert torch.isfinite(leaf.grad).all() and not leaf.grad[0, 1].any()


# ---------------------------------------------------------------- in the engine


def slow_network(seed, number, settings):
    """The network of an iteration from its keyed numbers, in double precision."""
    network = ConvNet(1, 3, 8, settings.width, settings.depth)
    count = sum(parameter.numel() for parameter in network.parameters())
    numbers = torch.empty(count).uniform_(-1, 1, generator=generator(seed, "network", number)).double()
    network = network.double()
    with torch.no_grad():
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                values, numbers = numbers[: parameter.numel()], numbers[parameter.numel() :]
                if isinstance(module, torch.nn.GroupNorm):
                    parameter.fill_(1.0 if name == "weight" else 0.0)
                else:
                    parameter.copy_(values.view_as(parameter) / math.sqrt(module.weight[0].numel()))
    return network


@pytest.fixture
def real(pixels):
    return RealImages(*pixels(3, 12), NORMALIZATIONS["cifar10"])


@pytest.mark.parametrize("changes", [{}, {"attention_power": 1.0}, {"attention_layers": (2,)}], ids=str)
def test_updates_equal_100_times_attention_and_a_hundredth_of_mean_matching(real, changes):
    """The authors' total, 100 (L_att + 0.01 L_out), written out in double precision."""
    settings = replace(DATADAM, **changes)
    some = MatchingEngine(real, dict.fromkeys(real.classes, 4), settings, 3, CPU)
    images = {label: first.double().requires_grad_() for label, first in some.images().items()}
    optimizer = torch.optim.SGD(images.values(), lr=0.5, momentum=0.5)
    layers = (0, 1) if settings.attention_layers is None else settings.attention_layers
    found = some.run().images
    for iteration in range(settings.iterations):
        network, total = slow_network(3, iteration, settings), 0.0
        for label, ours in images.items():
            theirs, (embedding, taps) = network.features(real.normalised(label).double()), network.features(ours)
            attention = 0.0
            for layer in layers:
                mean = []
                for maps in (theirs[1][layer], taps[layer]):
                    strength = (maps.abs() ** settings.attention_power).sum(1).flatten(1)
                    mean.append((strength / strength.square().sum(1, keepdim=True).sqrt()).mean(0))
                attention = attention + (mean[0] - mean[1]).square().sum()
            output = (theirs[0].mean(0) - embedding.mean(0)).square().sum()
            total = total + 100 * (attention + 0.01 * output)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    for label, ours in images.items():
        torch.testing.assert_close(found[label].double(), ours.detach(), rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(failure() is not None, reason=f"no native kernels: {failure()}")
def test_the_fused_blocks_give_the_maps_that_attention_reads(real):
    counts, settings = dict.fromkeys(real.classes, 2), replace(DATADAM, width=16)
    plain = MatchingEngine(real, counts, settings, 0, CPU, Execution(kernels="eager")).run()
    fused = MatchingEngine(real, counts, settings, 0, CPU, Execution(kernels="native")).run()
    for label in real.classes:
        torch.testing.assert_close(fused.images[label], plain.images[label], rtol=1e-3, atol=1e-3)
    assert {"mean_matching", "attention_matching"} < set(fused.record[0])


def test_with_batch_norm_all_classes_go_through_the_network_together(real):
    """The authors' network: a class then depends on those beside it, so it cannot be taken from the cache."""
    settings = replace(DATADAM, norm="batch")
    assert METHODS["matching"].separable(DATADAM) and not METHODS["matching"].separable(settings)
    some = MatchingEngine(real, dict.fromkeys(real.classes, 4), settings, 3, CPU)
    assert [group.labels for group in some.groups] == [[0, 1, 2]]
    assert all(torch.isfinite(images).all() for images in some.run().images.values())


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_power": 0.5}, "attention_power must be at least 1, got 0.5"),
        ({"attention_power": float("nan")}, "attention_power must be at least 1, got nan"),
        ({"attention_weight": -1.0}, "attention_weight must not be negative, got -1.0"),
        ({"attention_layers": ()}, "attention_layers must name at least one block"),
    ],
)
def test_a_setting_out_of_range_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(DATADAM, **changes)


def test_a_power_below_one_is_refused():
    with pytest.raises(ValueError, match="power must be at least 1, got 0.9"):
        attention_maps(torch.ones(1, 1, 1, 1, 1), 0.9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 1}, r"takes all layers but the last, and this network has 1; name attention_layers, e.g. \[0\]"),
        ({"attention_layers": (3,)}, r"layers must be within 0\.\.2 for this network, got 3"),
    ],
)
def test_layers_that_the_network_lacks_are_an_error_and_move_nothing(real, changes, message):
    some = MatchingEngine(real, dict.fromkeys(real.classes, 4), replace(DATADAM, **changes), 3, CPU)
    before = some.images()
    with pytest.raises(ValueError, match=message):
        some.step()
    assert all(torch.equal(some.images()[label], before[label]) for label in before)


# ---------------------------------------------------------------- the recipe


def test_attention_is_off_by_default_and_left_out_then():
    assert MatchingSettings().attention_weight == 0
    assert [term.name for term in terms_of(MatchingSettings(), 10)] == ["mean_matching"]


def test_the_recipe_has_the_paper_s_numbers():
    recipe = load_recipe("datadam")
    paper = recipe.settings()
    assert (paper.attention_weight, paper.mean_weight, paper.attention_power) == (100.0, 100 * 0.01, 4.0)
    assert (paper.attention_layers, paper.norm, paper.iterations) == (None, "instance", 8000)
    assert (paper.lr_img, paper.momentum_img, paper.init) == (1.0, 0.5, "real")
    assert [recipe.settings(images_per_class=count).lr_img for count in (50, 51)] == [1.0, 10.0]
