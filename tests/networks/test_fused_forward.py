"""Every way to run a network forward against the network's own layers; the engine under each of them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from mixed import mixed

from clreplay.condensation import RealImages
from clreplay.condensation.matching.engine import MatchingEngine, MatchingSettings
from clreplay.data import NORMALIZATIONS
from clreplay.networks import ConvNet
from clreplay.networks.base import TAP_POINTS
from clreplay.networks.fused_forward import Forward, fusible, plain_block
from clreplay.networks.kernels.build import failure

CPU = torch.device("cpu")
DDM = MatchingSettings(
    width=16, depth=2, iterations=4, real_batch=7, lr_img=0.5, style_weight=5000.0, diversity_weight=10.0
)
needs_compiler = pytest.mark.skipif(failure() is not None, reason=f"no native kernels here: {failure()}")
FUSED = [pytest.param("native", marks=needs_compiler), pytest.param("compiled", marks=pytest.mark.slow)]


@pytest.fixture
def real(pixels):
    return RealImages(*pixels(3, 12), NORMALIZATIONS["cifar10"])


def run(real, **changes):
    settings, execution = mixed(DDM, **changes)
    return MatchingEngine(real, dict.fromkeys(real.classes, 4), settings, 3, CPU, execution).run()


@pytest.mark.parametrize("kernels", FUSED)
@pytest.mark.parametrize("classes", [1, 3])
def test_features_and_their_gradient_equal_the_network_s_own(kernels, classes):
    chance = torch.Generator().manual_seed(0)
    network = ConvNet(1, 3, 8, width=16, depth=2).requires_grad_(False)
    images = torch.randn(classes, 5, 3, 8, 8, generator=chance).requires_grad_()
    outcomes = []
    for way in (
        Forward(network, kernels, "channels_last", "float32"),
        Forward(network, "eager", "contiguous", "float32"),
    ):
        features = way(images)
        style = sum((tap * tap.detach().roll(1, 1)).sum() for tap in features.taps)
        (gradient,) = torch.autograd.grad(features.embedding.square().sum() + style, images)
        outcomes.append((features, gradient))
    (fused, one), (plain, other) = outcomes
    torch.testing.assert_close(fused.embedding, plain.embedding, rtol=1e-4, atol=1e-5)
    assert len(fused.taps) == len(plain.taps) == len(fused.moments) == 2
    for tap, moments, wanted in zip(fused.taps, fused.moments, plain.taps):
        torch.testing.assert_close(tap, wanted, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(moments.first, wanted.mean((3, 4)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(moments.second, wanted.square().mean((3, 4)), rtol=1e-4, atol=1e-5)
        assert moments.pixels == wanted.shape[3] * wanted.shape[4]
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert Forward(network, kernels, "channels_last", "float32")(images, maps=()).taps == []


@pytest.mark.parametrize("kernels", FUSED)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("point", ["conv", "norm", "pool"])
def test_maps_and_moments_at_other_points_equal_the_network_s_own(kernels, precision, point):
    network = ConvNet(1, 3, 8, width=16, depth=2).requires_grad_(False)
    images = torch.randn(3, 5, 3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    plain = Forward(network, "eager", "contiguous", "float32")(images, maps=(point,)).at(point)
    fused = Forward(network, kernels, "channels_last", precision)
    near = {"rtol": 1e-4, "atol": 1e-5} if precision == "float32" else {"rtol": 0.05, "atol": 0.05}
    found = fused(images, maps=(point,)).at(point)
    assert len(found.taps) == len(plain.taps) == 2 and {tap.dtype for tap in found.taps} == {torch.float32}
    for tap, wanted in zip(found.taps, plain.taps):
        torch.testing.assert_close(tap, wanted, **near)
    values = []
    for features in (fused(images, maps=(), moments=(point,)).at(point), plain):
        pairs = features.moments and [(m.first, m.second) for m in features.moments]
        pairs = pairs or [(tap.mean((3, 4)), tap.square().mean((3, 4))) for tap in features.taps]
        loss = sum((first * first.detach().cos() + second * second.detach().sin()).sum() for first, second in pairs)
        values.append([*(one for pair in pairs for one in pair), *torch.autograd.grad(loss, images)])
    for one, other in zip(*values):
        torch.testing.assert_close(one, other, **(near if precision == "float32" else {"rtol": 0.1, "atol": 0.1}))
    assert (fused(images, maps=(), moments=("conv",)).at("conv").moments is not None) and point in TAP_POINTS


@pytest.mark.parametrize("kernels", FUSED)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"diversity_weight": 0.0, "style_weight": 0.0},
        {"correlation": 0.0},
        {"sigma_of": "mean_map"},
        {"spread": "var", "moment_channels": "sum", "alpha": 0.3},
        {"style_layers": (1,)},
        {"attention_weight": 100.0},
        {"style_tap": "conv", "style_relative": True, "spread": "biased_std", "style_over_layers": "mean"},
        {"style_tap": "conv", "correlation": 0.0},
        {"style_tap": "norm", "alpha": 0.0},
        {"style_tap": "pool"},
        {"content_weight": 30.0, "style_diversity_weight": 10.0},
        {"patch_weight": 10.0},
        {"network_reuse": 3},
        {"classes_at_once": 3},
    ],
    ids=str,
)
def test_the_engine_makes_the_same_images_with_fused_blocks(real, kernels, changes):
    fused, plain = run(real, kernels=kernels, **changes), run(real, kernels="eager", **changes)
    assert fused.chosen["kernels"] == kernels and plain.chosen["kernels"] == "eager"
    for label in real.classes:
        torch.testing.assert_close(fused.images[label], plain.images[label], rtol=1e-3, atol=1e-3)
    for one, other in zip(fused.record, plain.record):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("kernels", ["eager", *FUSED[:1]])
def test_classes_in_threads_change_no_bit_whatever_their_number(real, kernels):
    before, outcomes = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outcomes.append(run(real, kernels=kernels, parallel="classes"))
            assert torch.get_num_threads() == threads
        torch.set_num_threads(1)
        outcomes.append(run(real, kernels=kernels, parallel="operators"))
    finally:
        torch.set_num_threads(before)
    for other in outcomes[1:]:
        assert all(torch.equal(outcomes[0].images[label], other.images[label]) for label in real.classes)
        assert outcomes[0].record == other.record


@pytest.mark.parametrize("kernels", ["eager", *FUSED[:1]])
def test_bfloat16_convolutions_keep_statistics_losses_and_images_in_single_precision(real, kernels):
    low, exact = run(real, kernels=kernels, precision="bfloat16"), run(real, kernels=kernels)
    assert all(images.dtype == torch.float32 for images in low.images.values())
    for one, other in zip(low.record[:1], exact.record):
        assert one == pytest.approx(other, rel=0.1)
    assert low.record != exact.record  # it really was another precision


def test_a_step_that_is_interrupted_between_two_classes_is_taken_up_without_moving_any_twice(real):
    unbroken = run(real)
    broken = MatchingEngine(real, dict.fromkeys(real.classes, 4), DDM, 3, CPU)
    broken.step()
    move, moved = MatchingEngine._step_group, []

    def interrupted(self, group, number):
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(group.labels)
        return move(self, group, number)

    MatchingEngine._step_group = interrupted
    try:
        with pytest.raises(KeyboardInterrupt):
            broken.step()
    finally:
        MatchingEngine._step_group = move
    assert broken.iteration == 1
    fresh = MatchingEngine(real, dict.fromkeys(real.classes, 4), DDM, 3, CPU)
    fresh.load_state_dict(broken.state_dict())  # as it was before the broken step
    for going_on in (broken, fresh):
        found = going_on.run()
        assert all(torch.equal(found.images[label], unbroken.images[label]) for label in real.classes)
        assert found.record[-1] == unbroken.record[-1]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"norm": "batch"}, "it needs instance norm"),
        ({"activation": "swish"}, "it needs instance norm, relu"),
        ({"pooling": "max"}, "avg pooling"),
        ({"width": 12}, "multiple of 16"),
    ],
    ids=str,
)
def test_kernels_that_do_not_fit_say_why(real, changes, why):
    with pytest.raises(ValueError, match=f"kernels='native' cannot run this network: .*{why}.*kernels='auto'"):
        run(real, kernels="native", **changes)


def test_native_kernels_are_for_a_cpu():
    assert "run on a CPU" in fusible(ConvNet(1, 3, 8, width=16), "native", torch.device("cuda"))
    assert fusible(ConvNet(1, 3, 8, width=16), "eager", torch.device("cuda")) is None


def test_the_block_that_is_compiled_equals_the_layers():
    chance = torch.Generator().manual_seed(0)
    norm = torch.nn.GroupNorm(8, 8).double()
    maps = torch.randn(4, 8, 6, 6, generator=chance) * 3 + 1
    pooled, tap, first, second, mean, mean_square = plain_block(
        maps, norm.weight.float(), norm.bias.float(), norm.eps, True, torch.float32
    )
    torch.testing.assert_close(mean, maps.mean((2, 3)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mean_square, maps.square().mean((2, 3)), rtol=1e-5, atol=1e-5)
    wanted = norm(maps.double()).relu()
    torch.testing.assert_close(tap.double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pooled.double(), torch.nn.functional.avg_pool2d(wanted, 2), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(first.double(), wanted.mean((2, 3)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(second.double(), wanted.square().mean((2, 3)), rtol=1e-5, atol=1e-5)


def test_draws_made_ahead_are_the_same(real):
    plain, ahead = (
        MatchingEngine(real, dict.fromkeys(real.classes, 4), replace(DDM, iterations=130), 3, CPU) for _ in "ab"
    )
    ahead._helper = ThreadPoolExecutor(1)
    for _ in range(130):  # more than two blocks
        plain.step()
        ahead.step()
    assert ahead.groups[0].ahead[0] == 3
    one, other = plain.images(), ahead.images()
    assert all(torch.equal(one[label], other[label]) for label in real.classes)
