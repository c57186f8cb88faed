"""What every network of the library must give: an embedding, taps that nothing writes over, logits, gradients."""

import pytest
import torch
import torch.nn.functional as F
from network_helpers import BATCH_NORM, SIZES, double, pictures
from torch import nn

from clreplay.networks import build_network

every_network = pytest.mark.parametrize("name", SIZES)


@every_network
def test_the_embedding_has_the_size_that_it_says_whatever_the_images(name):
    for channels, image_size in ((1, 28), (1, 32), (3, 33), (3, 39), (3, 71)):
        with torch.device("meta"):
            network = build_network(name, 7, channels, image_size)
            images = torch.empty(2, channels, image_size, image_size)
            assert network.embedding(images).shape == (2, network.embedding_size)


@every_network
def test_taps_are_post_activation_and_nothing_writes_over_them(name):
    """Pre-pooling too, but for AlexNet, whose taps are the first two pooled maps."""
    network = double(name)
    kind = nn.MaxPool2d if name.startswith("AlexNet") else nn.ReLU
    inputs, outputs = [], []
    for module in network.modules():
        if isinstance(module, kind):
            module.register_forward_hook(lambda m, args, out: inputs.append((args[0], args[0].clone())))
            module.register_forward_hook(lambda m, args, out: outputs.append((out, out.clone())))
    taps = network.taps(pictures(name))
    assert len(taps) >= 2
    assert all(torch.equal(tensor, copy) for tensor, copy in [*inputs, *outputs]), "something writes in place"
    by_place = {out.data_ptr(): copy for out, copy in outputs}
    assert all(torch.equal(tap.flatten(), by_place[tap.data_ptr()].flatten()) for tap in taps)
    assert all((tap >= 0).all() and (tap > 0).any() for tap in taps)
    if kind is nn.ReLU:
        assert (torch.stack([(before < 0).any() for before, _ in inputs])).all(), "no activation is idle"


@every_network
def test_embedding_taps_features_and_logits_agree(name):
    network, images = double(name).eval(), pictures(name)
    embedding, taps = network.features(images)
    assert torch.equal(network.embedding(images), embedding)
    assert all(torch.equal(one, other) for one, other in zip(network.taps(images), taps, strict=True))
    assert torch.equal(network(images), network.classifier(embedding))
    assert isinstance(network.classifier, nn.Linear)
    assert network.classifier.in_features == network.embedding_size


@pytest.mark.parametrize("name", ["AlexNet", "VGG11", "LeNet", "AlexCifarNet", "ConvNet"])
def test_digits_of_28_pixels_are_what_the_same_picture_with_a_margin_of_two_is(name):
    narrow, wide = (build_network(name, 3, 1, size).double() for size in (28, 32))
    wide.load_state_dict(narrow.state_dict())
    digits = torch.randn(2, 1, 28, 28, dtype=torch.float64)
    torch.testing.assert_close(narrow(digits), wide(F.pad(digits, (2, 2, 2, 2))))


# ---------------------------------------------------------------- norms


@every_network
def test_only_batch_norm_lets_an_image_see_the_others(name):
    network, images = double(name), pictures(name, 3)
    kinds = {type(module) for module in network.modules()} & {nn.GroupNorm, nn.BatchNorm2d}
    grouped = name.startswith(("VGG", "ResNet18")) or name in ("ConvNet", "ConvNetGN")
    together, alone = network(images), network(images[:2])[:1]
    if name in BATCH_NORM:
        assert kinds == {nn.BatchNorm2d}
        assert not torch.allclose(together[:1], alone)
        assert not torch.allclose(network.eval()(images), together)
        torch.testing.assert_close(network(images)[:1], network(images[:2])[:1])
    else:
        assert kinds == ({nn.GroupNorm} if grouped else set())
        torch.testing.assert_close(together[:1], alone)
        torch.testing.assert_close(network.eval()(images), together)


@pytest.mark.parametrize("name", ["VGG11", "ResNet18", "ResNet18_AP"])
def test_instance_norm_has_one_group_a_channel_and_a_scale_and_shift(name):
    norms = [module for module in build_network(name, 2).modules() if isinstance(module, nn.GroupNorm)]
    assert len(norms) == (8 if name == "VGG11" else 20)
    assert all(norm.num_groups == norm.num_channels and norm.affine and norm.eps == 1e-5 for norm in norms)


@every_network
def test_gradients_reach_every_parameter(name):
    network = double(name)
    F.cross_entropy(network(pictures(name)), torch.tensor([0, 2])).backward()
    for where, parameter in network.named_parameters():
        gradient = parameter.grad
        assert gradient is not None and gradient.isfinite().all(), where
        shifts_before_a_norm = name.startswith(("VGG", "AlexNetBN")) and parameter.ndim == 1
        assert shifts_before_a_norm or gradient.abs().max() > 0, where
