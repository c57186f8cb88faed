"""What a trained network says of images, against slow loops, and what the numbers say of sets that are known."""

import math

import pytest
import torch

from clreplay.analysis.embedding import diversity, embeddings, in_two_dimensions, style_distance, style_vectors
from clreplay.networks import ConvNet, reinitialize


@pytest.fixture(scope="module")
def network():
    net = ConvNet(3, 3, 8, width=6, depth=2)
    reinitialize(net, 4)
    return net.eval()


@pytest.fixture
def real():
    chance = torch.Generator().manual_seed(0)
    return {label: torch.randn(12, 3, 8, 8, generator=chance) + label for label in (0, 2)}


def test_the_style_of_an_image_is_mean_and_variance_of_every_channel_of_the_first_block(network, real):
    found = style_vectors(network, real[2])
    for image, vector in zip(real[2], found):
        block = network.blocks[0]
        (maps,) = block.activation(block.norm(block.conv(image[None])))
        means = [float(channel.mean()) for channel in maps]
        variances = [float(((channel - channel.mean()) ** 2).mean()) for channel in maps]
        assert vector.tolist() == pytest.approx(means + variances, abs=1e-5)


def test_more_images_than_a_batch_are_all_there_in_their_order(network):
    many = torch.randn(300, 3, 8, 8)
    for vectors in (style_vectors, embeddings):
        apart = torch.cat([vectors(network, one[None]) for one in many[[0, 255, 256, 299]]])
        torch.testing.assert_close(vectors(network, many)[[0, 255, 256, 299]], apart, atol=1e-5, rtol=1e-4)


def slow_spread(points):
    pairs = [(a, b) for i, a in enumerate(points) for b in points[:i]]
    return sum(math.dist(a, b) for a, b in pairs) / len(pairs)


def test_diversity_equals_a_slow_loop(network, real):
    sets = {"few": {label: images[:3] * 0.5 for label, images in real.items()}, "one": {2: real[2][:1]}}
    rows = diversity(network, sets, real).set_index(["set", "label"])
    assert len(rows) == 3
    for (name, label), row in rows.iterrows():
        own, theirs = (embeddings(network, images).tolist() for images in (sets[name][label], real[label]))
        usual = slow_spread(theirs)
        nearest = [min(range(len(own)), key=lambda i: math.dist(own[i], point)) for point in theirs]
        assert row.nearest == pytest.approx(
            sum(math.dist(own[i], point) for i, point in zip(nearest, theirs)) / len(theirs) / usual, rel=1e-4
        )
        assert row.used == len(set(nearest)) / len(own) and row.images == len(own)
        if len(own) > 1:
            assert row.spread == pytest.approx(slow_spread(own) / usual, rel=1e-4)
        else:
            assert math.isnan(row.spread)


def test_the_class_itself_is_as_diverse_as_it_is_and_copies_are_not(network, real):
    copies = {label: images[:1].expand(5, -1, -1, -1) for label, images in real.items()}
    means = diversity(network, {"itself": real, "copies": copies}, real).groupby("set")[["spread", "nearest", "used"]]
    assert means.mean().loc["itself"].tolist() == pytest.approx([1.0, 0.0, 1.0], abs=1e-6)
    assert means.mean().loc["copies"].spread == 0 and means.mean().loc["copies"].used == 0.2


def test_the_style_distance_counts_standard_deviations(network, real):
    rows = style_distance(network, {"itself": real, "few": {0: real[0][:2]}}, real).set_index(["set", "label"])
    assert rows.loc["itself"]["shift"].max() < 1e-9 and rows.loc["itself"].outside.max() == 0
    theirs, ours = (style_vectors(network, images) for images in (real[0], real[0][:2]))
    apart = [(float(a.mean()) - float(b.mean())) / max(float(b.std()), 1e-8) for a, b in zip(ours.T, theirs.T)]
    assert rows.loc[("few", 0), "shift"] == pytest.approx(math.sqrt(sum(x * x for x in apart) / len(apart)), rel=1e-3)
    assert rows.loc[("few", 0), "outside"] == pytest.approx(sum(abs(x) > 2 for x in apart) / len(apart))


@pytest.mark.parametrize("what", ["style", "embedding"])
def test_a_map_has_every_image_once_is_the_same_again_and_tells_classes_apart(network, real, what):
    sets = {"real": real, "few": {0: real[0][:2]}}
    points = in_two_dimensions(network, sets, what)
    assert points.groupby(["set", "label"]).size().to_dict() == {("real", 0): 12, ("real", 2): 12, ("few", 0): 2}
    again = in_two_dimensions(network, sets, what)
    assert points.equals(again)
    smooth = torch.nn.functional.avg_pool2d(
        torch.randn(12, 3, 10, 10, generator=torch.Generator().manual_seed(1)), 3, 1
    )
    plain = ConvNet(3, 3, 8, width=6, depth=2, norm="none").eval()  # instance norm would make all contrasts alike
    apart = in_two_dimensions(plain, {"real": {0: real[0], 1: smooth}}, what)
    centres = apart.groupby("label")[["x", "y"]].mean()
    places = apart[["x", "y"]].to_numpy()
    nearer = [((places - centres.loc[label].to_numpy()) ** 2).sum(1) for label in (0, 1)]
    assert ((nearer[1] < nearer[0]) == (apart.label == 1)).mean() > 0.8


def test_what_cannot_be_is_said(network, real):
    with pytest.raises(ValueError, match="what must be one of style, embedding, got 'pixels'"):
        in_two_dimensions(network, {"real": real}, "pixels")
    with pytest.raises(ValueError, match="at least 4 images, got 2"):
        in_two_dimensions(network, {"few": {0: real[0][:2]}})
    with pytest.raises(ValueError, match="at least 2 images of class 1"):
        diversity(network, {"few": {1: real[0]}}, real)
