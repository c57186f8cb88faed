"""ConvNet against a slow reference; fresh weights in place for whole models and for the flat buffer."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clreplay.networks import ConvNet, FlatParameters, reinitialize
from clreplay.networks.convnet import AveragePool2, default_depth
from clreplay.networks.redraw import parameter_count
from clreplay.runtime.seeding import generator

# ---------------------------------------------------------------- ConvNet


@pytest.mark.parametrize(
    ("classes", "image_size", "count"), [(10, 32, 320_010), (100, 32, 504_420), (200, 64, 857_160)]
)
def test_parameter_counts_are_the_published_ones(classes, image_size, count):
    assert parameter_count(ConvNet(classes, image_size=image_size)) == count


@pytest.mark.parametrize(("image_size", "depth"), [(8, 3), (28, 3), (32, 3), (33, 4), (64, 4), (65, 5), (128, 5)])
def test_depth_follows_the_resolution(image_size, depth):
    assert default_depth(image_size) == depth
    assert len(ConvNet(2, image_size=image_size, width=1).blocks) == depth


@pytest.mark.parametrize("image_size", [28, 32, 64, 128])
def test_the_embedding_has_2048_values_at_width_128(image_size):
    assert ConvNet(10, image_size=image_size).embedding_size == 2048


def double(**options):
    """A small float64 network whose norm layers are not at their trivial start."""
    network = ConvNet(5, **{"image_size": 8, "width": 8, "depth": 2, **options}).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def slow_norm(kind, maps, layer):
    n, channels, h, w = maps.shape
    if kind == "none":
        return maps
    sets = {  # which values share a mean and a variance
        "instance": [[(i, slice(c, c + 1))] for i in range(n) for c in range(channels)],
        "group": [[(i, slice(g * channels // 4, (g + 1) * channels // 4))] for i in range(n) for g in range(4)],
        "layer": [[(i, slice(0, channels))] for i in range(n)],
        "batch": [[(i, slice(c, c + 1)) for i in range(n)] for c in range(channels)],
    }[kind]
    result = torch.zeros_like(maps)
    for members in sets:
        values = torch.cat([maps[i, c].flatten() for i, c in members])
        mean = values.sum() / values.numel()
        variance = (values - mean).square().sum() / values.numel()
        for i, c in members:
            result[i, c] = (maps[i, c] - mean) / (variance + 1e-5).sqrt()
    if kind == "layer":
        return result * layer.weight + layer.bias
    return result * layer.weight[None, :, None, None] + layer.bias[None, :, None, None]


def slow_pool(kind, maps):
    if kind == "none":
        return maps
    quads = torch.stack([maps[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)])
    return quads.mean(0) if kind == "avg" else quads.amax(0)


SLOW_ACTIVATIONS = {
    "relu": lambda x: torch.where(x > 0, x, 0.0),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "leakyrelu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "swish": lambda x: x / (1 + torch.exp(-x)),
}
ALL_OPTIONS = (
    [{"norm": norm} for norm in ("instance", "batch", "layer", "group", "none")]
    + [{"activation": activation} for activation in ("sigmoid", "leakyrelu", "swish")]
    + [{"pooling": pooling} for pooling in ("max", "none")]
    + [{"channels": 1, "depth": 3}]
)


@pytest.mark.parametrize("options", ALL_OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_every_option_equals_a_slow_network_in_value_and_gradient(options):
    network = double(**options)
    images = torch.randn(3, options.get("channels", 3), 8, 8, dtype=torch.float64, requires_grad=True)
    maps, taps = images, []
    for block in network.blocks:
        maps = F.conv2d(maps, block.conv.weight, block.conv.bias, padding=1)
        maps = slow_norm(options.get("norm", "instance"), maps, block.norm)
        taps.append(SLOW_ACTIVATIONS[options.get("activation", "relu")](maps))
        maps = slow_pool(options.get("pooling", "avg"), taps[-1])
    logits = maps.flatten(1) @ network.classifier.weight.T + network.classifier.bias

    torch.testing.assert_close(network(images), logits)
    embedding, found = network.features(images)
    torch.testing.assert_close(embedding, maps.flatten(1))
    assert len(found) == len(taps)
    for one, other in zip(found, taps):
        torch.testing.assert_close(one, other)
    weights = [torch.randn_like(tensor) for tensor in [logits, *taps]]
    slow, fast = (
        sum((w * t).sum() for w, t in zip(weights, tensors)) for tensors in ([logits, *taps], [network(images), *found])
    )
    torch.testing.assert_close(*(torch.autograd.grad(loss, images)[0] for loss in (fast, slow)))


def test_taps_are_the_activation_s_output_and_nothing_writes_over_them():
    network = double()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    inputs, outputs = [], []
    for block in network.blocks:
        block.norm.register_forward_hook(lambda module, args, output: inputs.append((output, output.clone())))
        block.pool.register_forward_hook(lambda module, args, output: outputs.append((args[0], args[0].clone())))
    taps = network.taps(images)
    for tap, (norm_output, norm_copy), (pool_input, pool_copy) in zip(taps, inputs, outputs):
        assert torch.equal(norm_output, norm_copy), "the activation wrote over the norm's output"
        assert (norm_copy < 0).any()
        assert torch.equal(tap, norm_copy.clamp_min(0))
        assert torch.equal(tap, pool_copy)
        assert tap.data_ptr() != norm_output.data_ptr()


def test_embedding_taps_and_features_agree():
    network = double()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    embedding, taps = network.features(images)
    assert embedding.shape == (2, network.embedding_size)
    assert torch.equal(network.embedding(images), embedding)
    assert all(torch.equal(one, other) for one, other in zip(network.taps(images), taps))
    assert torch.equal(network(images), network.classifier(embedding))


def test_digits_of_28_pixels_are_padded_to_32():
    network = ConvNet(10, channels=1, image_size=28, width=4, norm="none")
    images = torch.randn(2, 1, 28, 28)
    assert [tuple(tap.shape[1:]) for tap in network.taps(images)] == [(4, 32, 32), (4, 16, 16), (4, 8, 8)]
    first = network.blocks[0].conv
    padded = F.conv2d(F.pad(images, (2, 2, 2, 2)), first.weight, first.bias, padding=1)
    torch.testing.assert_close(network.taps(images)[0], padded.relu())
    assert [block.conv.padding for block in network.blocks] == [(3, 3), (1, 1), (1, 1)]


@pytest.mark.parametrize("norm", ["instance", "layer", "group", "none"])
def test_train_and_eval_mode_agree_without_batch_norm(norm):
    network = double(norm=norm)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(network.train()(images), network.eval()(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "instanse"}, "norm must be one of instance, batch.*'instanse'"),
        ({"activation": "gelu"}, "activation must be one of relu.*'gelu'"),
        ({"pooling": "mean"}, "pooling must be one of avg, max, none, got 'mean'"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"image_size": 7}, "depth 3 needs images of at least 8 pixels, got 7"),
        ({"norm": "group", "width": 6}, "width must be a multiple of 4.*got 6"),
    ],
)
def test_an_impossible_network_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ConvNet(**{"num_classes": 2, "width": 4, **options})


@pytest.mark.parametrize("shape", [(2, 3, 8, 6), (2, 3, 7, 5), (1, 2, 9, 4)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_average_pooling_equals_pytorch_s(shape, layout):
    maps = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    torch.testing.assert_close(AveragePool2()(maps), F.avg_pool2d(maps, 2))
    assert torch.autograd.gradcheck(AveragePool2(), maps)
    assert torch.autograd.gradgradcheck(lambda m: AveragePool2()(m).square(), maps)


# ---------------------------------------------------------------- FlatParameters


def named_draws(network, times, redraw):
    """Every parameter's values over several draws, one flat tensor a parameter."""
    draws = {name: [] for name, _ in network.named_parameters()}
    for index in range(times):
        redraw(index)
        for name, parameter in network.named_parameters():
            draws[name].append(parameter.detach().clone().flatten())
    return {name: torch.cat(values) for name, values in draws.items()}


def kolmogorov_smirnov(one, other):
    """Two-sample statistic, scaled: above 2 has a probability of less than 0.001 under equal distributions."""
    grid = torch.cat([one, other]).sort().values
    gap = torch.searchsorted(one.sort().values, grid, right=True) / len(one)
    gap = gap - torch.searchsorted(other.sort().values, grid, right=True) / len(other)
    return float(gap.abs().max()) * math.sqrt(len(one) * len(other) / (len(one) + len(other)))


@pytest.mark.parametrize("norm", ["instance", "batch", "layer", "none"])
def test_redrawn_weights_are_distributed_as_pytorch_s_default(norm):
    network = ConvNet(10, image_size=16, width=8, norm=norm)
    owners = [module for module in network.modules() if list(module.parameters(recurse=False))]
    default = named_draws(network, 60, lambda i: [module.reset_parameters() for module in owners])
    flat = FlatParameters(network)
    redrawn = named_draws(network, 60, lambda i: flat.redraw(generator("redraw", i)))
    for name, values in redrawn.items():
        if "norm" in name:
            assert torch.equal(values, torch.full_like(values, 1.0 if name.endswith("weight") else 0.0))
            assert torch.equal(default[name], values)
            continue
        layer = network.get_submodule(name.rpartition(".")[0])
        bound = 1 / math.sqrt(math.prod(layer.weight.shape[1:]))
        assert 0.95 * bound < values.abs().max() <= bound * (1 + 1e-6)
        assert kolmogorov_smirnov(values, default[name]) < 2, name


def test_a_redraw_is_keyed_and_leaves_no_trace_of_the_last_one(global_chance_untouched):
    network = ConvNet(2, image_size=8, width=4)
    flat = FlatParameters(network)
    with global_chance_untouched():
        flat.redraw(generator(0))
        first = flat.buffer.clone()
        flat.redraw(generator(1))
        second = flat.buffer.clone()
        flat.buffer.fill_(float("nan"))
        flat.redraw(generator(0))
    assert torch.equal(flat.buffer, first)
    assert not torch.equal(first, second)


def test_parameters_stay_views_of_the_buffer():
    network = ConvNet(3, image_size=8, width=4)
    flat = FlatParameters(network)
    flat.redraw(generator(0))
    assert flat.buffer.numel() == parameter_count(network)
    assert torch.equal(torch.cat([p.flatten() for p in network.parameters()]), flat.buffer)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    images = torch.randn(2, 3, 8, 8)
    before = network(images)
    flat.redraw(generator(1))
    assert torch.equal(torch.cat([p.flatten() for p in network.parameters()]), flat.buffer)
    assert not torch.allclose(network(images), before)


def test_a_redraw_forgets_batch_norm_statistics():
    network = ConvNet(2, image_size=8, width=4, norm="batch")
    flat = FlatParameters(network)
    flat.redraw(generator(0))
    network.train()(torch.randn(4, 3, 8, 8) + 3)
    assert network.blocks[0].norm.running_mean.abs().max() > 0
    flat.redraw(generator(1))
    for block in network.blocks:
        assert torch.equal(block.norm.running_mean, torch.zeros(4))
        assert torch.equal(block.norm.running_var, torch.ones(4))
        assert block.norm.num_batches_tracked == 0


def test_the_flat_buffer_refuses_layers_it_cannot_redraw():
    with pytest.raises(TypeError, match="cannot redraw weight of a Embedding"):
        FlatParameters(nn.Sequential(nn.Linear(2, 2), nn.Embedding(2, 2)))


# ---------------------------------------------------------------- reinitialize


class Scale(nn.Module):
    """Owns a parameter and does not know how to reset it."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_reinitialize_draws_every_parameter_and_statistic_anew_in_place():
    model = ConvNet(4, image_size=8, width=4, norm="batch")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    model.train()(torch.randn(4, 3, 8, 8) + 3)
    identities = [id(parameter) for parameter in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    reinitialize(model, 5)
    assert [id(parameter) for parameter in model.parameters()] == identities
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == identities
    assert not any((parameter == 7).any() for parameter in model.parameters())
    for block in model.blocks:
        assert torch.equal(block.norm.running_mean, torch.zeros(4))
        assert torch.equal(block.norm.running_var, torch.ones(4))
        assert block.norm.num_batches_tracked == 0
        assert torch.equal(block.norm.weight, torch.ones(4))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_reinitialize_is_a_function_of_its_seed_alone():
    models = [ConvNet(4, image_size=8, width=4) for _ in range(3)]
    for model, seed in zip(models, (5, 5, 6)):
        torch.rand(3)
        reinitialize(model, seed)
    assert all(torch.equal(a, b) for a, b in zip(state(models[0]).values(), state(models[1]).values()))
    assert not torch.equal(models[0].classifier.weight, models[2].classifier.weight)


def test_reinitialize_draws_as_pytorch_does():
    torch.manual_seed(5)
    fresh = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    model = copy.deepcopy(fresh)
    values = named_draws(model, 400, lambda i: reinitialize(model, i))["0.weight"]
    assert values.abs().max() <= 1 / math.sqrt(3)
    assert abs(float(values.mean())) < 4 / math.sqrt(3) / math.sqrt(3 * len(values))
    assert float(values.var()) == pytest.approx(1 / 9, rel=0.1)


def test_reinitialize_leaves_the_global_chance_alone(global_chance_untouched, monkeypatch):
    reseeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", reseeded.append)
    model = nn.Linear(3, 2)
    with global_chance_untouched():
        reinitialize(model, 1)
        reinitialize(model, 1, custom=lambda m: nn.init.normal_(m.weight))
    assert not reseeded, "a model on the CPU must not reseed the GPUs"


def test_reinitialize_leaves_the_global_chance_alone_even_if_it_fails(global_chance_untouched):
    def fail(model):
        nn.init.normal_(model.weight)
        raise RuntimeError("no")

    model = nn.Linear(3, 2)
    with global_chance_untouched(), pytest.raises(RuntimeError, match="no"):
        reinitialize(model, 1, custom=fail)


def test_a_module_that_cannot_reset_is_named_and_the_model_left_untouched():
    model = nn.Sequential(nn.Linear(3, 3), nn.ModuleDict({"gain": Scale()}))
    before = state(model)
    with pytest.raises(TypeError, match=r"cannot re-initialise '1.gain' \(Scale\): it owns scale.*reinitialize="):
        reinitialize(model, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(model).items())
    with pytest.raises(TypeError, match=r"the model \(Scale\)"):
        reinitialize(Scale(), 0)


def test_a_custom_redraw_gets_the_model_and_a_keyed_chance():
    model = Scale()
    identity = id(model.scale)

    def redraw(same):
        assert same is model
        same.scale.uniform_(-1, 1)  # no torch.no_grad() needed

    reinitialize(model, 3, custom=redraw)
    first = model.scale.detach().clone()
    reinitialize(model, 4, custom=redraw)
    assert not torch.equal(model.scale, first)
    reinitialize(model, 3, custom=redraw)
    assert torch.equal(model.scale, first)
    assert id(model.scale) == identity


def test_a_parent_has_the_last_word_about_its_children():
    class ZeroHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 2)

        def reset_parameters(self):
            nn.init.zeros_(self.head.weight)

    model = ZeroHead()
    reinitialize(model, 0)
    assert torch.equal(model.head.weight, torch.zeros(2, 3))
