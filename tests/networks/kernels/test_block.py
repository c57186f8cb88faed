"""The compiled block against PyTorch's own layers in double precision, and what it refuses."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from clreplay.networks import ConvNet
from clreplay.networks.convnet import AveragePool2, suits
from clreplay.networks.kernels.block import norm_relu_pool
from clreplay.networks.kernels.build import failure

pytestmark = pytest.mark.skipif(failure() is not None, reason=f"no native kernels here: {failure()}")


def reference(maps, norm):
    """Instance norm, ReLU, pooling and moments by PyTorch's own operators in float64."""
    tap = F.group_norm(maps, norm.num_groups, norm.weight.double(), norm.bias.double(), norm.eps).relu()
    moments = [over.mean((2, 3)) for over in (tap, tap.square(), maps, maps.square())]
    return F.avg_pool2d(tap, 2), tap, *moments


def some_norm(channels, seed=0, plain=False):
    norm = nn.GroupNorm(channels, channels)
    chance = torch.Generator().manual_seed(seed)
    if not plain:
        with torch.no_grad():
            norm.weight.copy_(torch.randn(channels, generator=chance))
            norm.bias.copy_(torch.randn(channels, generator=chance))
    return norm.requires_grad_(False)


@given(
    n=st.integers(1, 5),
    strips=st.integers(1, 3),
    h=st.sampled_from([2, 4, 6, 8]),
    w=st.sampled_from([2, 4, 10]),
    scale=st.floats(0.01, 100),
    shift=st.floats(-50, 50),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
    weights=st.tuples(*[st.sampled_from([0.0, 1.0, -2.5])] * 6),
    seed=st.integers(0, 2**20),
)
def test_values_and_gradients_equal_the_layers_in_double_precision(
    n, strips, h, w, scale, shift, layout, weights, seed
):
    chance = torch.Generator().manual_seed(seed)
    channels = 16 * strips
    norm = some_norm(channels, seed)
    plain = (torch.randn(n, channels, h, w, generator=chance) * scale + shift).requires_grad_()
    exact = plain.detach().double().requires_grad_()
    found = norm_relu_pool(plain.contiguous(memory_format=layout), norm)
    wanted = reference(exact, norm)
    for name, one, other in zip(found._fields, found, wanted, strict=True):
        # A large shift beside the scale leaves few digits of single precision for what is centred.
        lost = (scale + abs(shift)) ** 2 if name == "mean_square" else abs(shift) / scale / 100
        near = {"rtol": 2e-4 * (1 + lost), "atol": 2e-4 * (1 + lost)}
        torch.testing.assert_close(one.double(), other, **near, msg=lambda m, name=name: f"{name}: {m}")
    if not any(weights):
        return
    factors = [torch.randn(value.shape, generator=chance) for value in wanted]
    losses = [
        sum(weight * (factor * value).sum() for weight, factor, value in zip(weights, factors, values) if weight)
        for values in (found, wanted)
    ]
    (gradient,) = torch.autograd.grad(losses[0], plain)
    (slow,) = torch.autograd.grad(losses[1], exact)
    # Where the shift is large beside the scale, what is left of a single-precision number decides.
    tolerance = 1e-3 * (1 + abs(shift) / scale / 100) * float(slow.abs().max() + 1e-6)
    # An entry at the very kink of the ReLU may fall on either side in single precision.
    far = (reference_preactivation(exact, norm).abs() > 1e-3).flatten(2).all(2)[:, :, None, None]
    off = ((gradient - slow).abs() * far).max()
    assert off <= tolerance, (float(off), tolerance)


def reference_preactivation(maps, norm):
    with torch.no_grad():
        return F.group_norm(maps, norm.num_groups, norm.weight.double(), norm.bias.double(), norm.eps)


def test_a_usual_map_is_within_1e_5_of_the_double_precision_gradient():
    chance = torch.Generator().manual_seed(0)
    norm = some_norm(32, plain=True)
    plain = torch.randn(20, 32, 32, 32, generator=chance).requires_grad_()
    exact = plain.detach().double().requires_grad_()
    factors = [torch.randn(value.shape, generator=chance) for value in reference(exact, norm)]
    one, other = (
        torch.autograd.grad(sum((f * v).sum() for f, v in zip(factors, values)), images)[0]
        for values, images in ((norm_relu_pool(plain, norm), plain), (reference(exact, norm), exact))
    )
    assert (one - other).norm() / other.norm() < 1e-5


def test_scale_and_shift_get_their_gradients_too():
    chance = torch.Generator().manual_seed(5)
    norm = some_norm(32).requires_grad_()
    double = nn.GroupNorm(32, 32).double()
    double.load_state_dict(norm.state_dict())
    maps = torch.randn(6, 32, 8, 8, generator=chance)
    factors = [torch.randn(value.shape, generator=chance) for value in reference(maps.double(), double)]
    found, wanted = (
        torch.autograd.grad(sum((f * v).sum() for f, v in zip(factors, values)), [layer.weight, layer.bias])
        for values, layer in ((norm_relu_pool(maps, norm), norm), (reference(maps.double(), double), double))
    )
    for one, other in zip(found, wanted):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [8, 28, 32, (24, 40), (56, 16)], ids=str)
def test_a_fused_network_gives_the_logits_and_gradients_of_its_own_layers(size):
    plain, sides = ConvNet(5, 3, size, width=16), (size, size) if isinstance(size, int) else size
    fused = copy.deepcopy(plain).fuse()
    assert fused.fused and not plain.fused
    images = torch.randn(4, 3, *sides, generator=torch.Generator().manual_seed(6))
    outcomes = []
    for network in (plain, fused):
        logits = network(images)
        F.cross_entropy(logits, torch.arange(4)).backward()
        outcomes.append((logits, [p.grad for p in network.parameters()]))
    (logits, gradients), (others, found) = outcomes
    torch.testing.assert_close(others, logits, rtol=1e-4, atol=1e-5)
    for one, other in zip(found, gradients):
        assert (one - other).norm() <= 1e-4 * other.norm() + 1e-6  # biases before a norm have none but rounding
    assert [tap.shape for tap in fused.taps(images)] == [tap.shape for tap in plain.taps(images)]
    assert torch.equal(fused.double()(images.double()), plain.double()(images.double()))  # its own layers there


@pytest.mark.parametrize(
    "option", [{"norm": "batch"}, {"activation": "swish"}, {"pooling": "max"}, {"width": 12}], ids=str
)
def test_a_network_that_does_not_suit_stays_as_it_is(option):
    assert not ConvNet(5, 3, 8, **{"width": 16, **option}).fuse().fused


@pytest.mark.parametrize("pooled", [torch.float32, torch.bfloat16])
def test_bfloat16_maps_are_read_and_written_and_all_between_is_single_precision(pooled):
    chance = torch.Generator().manual_seed(1)
    norm = some_norm(16)
    low = torch.randn(3, 16, 8, 8, generator=chance).bfloat16().requires_grad_()
    same = low.detach().float().requires_grad_()
    found, wanted = norm_relu_pool(low, norm, True, pooled), norm_relu_pool(same, norm)
    assert found.pooled.dtype == pooled and found.rectified.dtype == found.first.dtype == torch.float32
    assert torch.equal(found.pooled, wanted.pooled.to(pooled))  # rounded to nearest even, as PyTorch rounds
    for name in ("rectified", "first", "second"):
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name
    factor = torch.randn(found.pooled.shape, generator=chance).bfloat16().float()
    (gradient,) = torch.autograd.grad((found.pooled.float() * factor).sum(), low)
    (exact,) = torch.autograd.grad((wanted.pooled * factor).sum(), same)
    assert gradient.dtype == torch.bfloat16
    assert torch.equal(gradient, exact.bfloat16())


def test_what_nobody_asked_for_gets_no_gradient_and_no_map():
    maps = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
    found = norm_relu_pool(maps, some_norm(16), keep_map=False)
    assert found.rectified is None
    with_map = norm_relu_pool(maps, some_norm(16))
    for name in ("pooled", "first", "second"):
        assert torch.equal(getattr(found, name), getattr(with_map, name)), name
    (one,) = torch.autograd.grad(found.second.sum(), maps, retain_graph=True)
    (other,) = torch.autograd.grad(with_map.rectified.square().mean((2, 3)).sum(), maps)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_number_of_threads_changes_no_bit():
    maps = torch.randn(7, 48, 8, 8, generator=torch.Generator().manual_seed(3)).requires_grad_()
    norm, before, outcomes = some_norm(48), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found = norm_relu_pool(maps, norm)
            outcomes.append([*found, *torch.autograd.grad(sum(v.square().sum() for v in found), maps)])
    finally:
        torch.set_num_threads(before)
    for other in outcomes[1:]:
        assert all(torch.equal(one, two) for one, two in zip(outcomes[0], other))


def test_not_a_number_comes_out_as_such():
    maps = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(4))
    maps[0, 3, 1, 1] = float("nan")
    found = norm_relu_pool(maps, some_norm(16))
    assert found.pooled[0, 3].isnan().all() and found.first[0, 3].isnan()
    assert not found.pooled[0, :3].isnan().any() and not found.pooled[0, 4:].isnan().any()


def test_what_it_suits_is_exactly_what_it_computes():
    norm, relu, pool = nn.GroupNorm(16, 16), nn.ReLU(), AveragePool2()
    assert suits(norm, relu, pool, (16, 8, 8))
    for other in (nn.GroupNorm(4, 16), nn.BatchNorm2d(16), nn.Identity(), nn.GroupNorm(16, 16, affine=False)):
        assert not suits(other, relu, pool, (16, 8, 8))
    assert not suits(norm, nn.LeakyReLU(0.01), pool, (16, 8, 8))
    assert not suits(norm, nn.SiLU(), pool, (16, 8, 8))
    assert not suits(norm, relu, nn.MaxPool2d(2), (16, 8, 8))
    assert not suits(norm, relu, pool, (16, 7, 7))
    assert not suits(nn.GroupNorm(20, 20), relu, pool, (20, 8, 8))
