"""The style gap against a slow reference, and what it says of images whose style is known."""

import pytest
import torch

from clreplay.analysis.style import style_gap
from clreplay.networks import reinitialize
from clreplay.networks.settings import NetworkSettings
from clreplay.runtime.seeding import key_seed

SMALL = NetworkSettings(width=8, depth=2)


@pytest.fixture
def images():
    """Real and condensed images of two classes, as floats."""
    chance = torch.Generator().manual_seed(0)
    real = {label: torch.randn(30, 3, 8, 8, generator=chance) for label in (3, 5)}
    return {label: 1.5 * some[:4] + 0.3 for label, some in real.items()}, real


def slow_gap(ours, real, layer, number, point):
    """Image after image, channel after channel."""
    network = SMALL.build(2, 3, 8)
    reinitialize(network, key_seed(0, "style gap", number))
    found = []
    for some in (ours, real):
        means, stds, grams = [], [], []
        for image in some:
            maps = network.features_at(image[None], (point,))[1][point][layer - 1][0]
            means.append([float(channel.mean()) for channel in maps])
            stds.append([float((channel.var(correction=0) + 1e-5).sqrt()) for channel in maps])
            flat = maps.flatten(1)
            grams.append(flat @ flat.T / maps.numel())
        found.append([torch.tensor(means).mean(0), torch.tensor(stds).mean(0), torch.stack(grams).mean(0)])
    gaps = [float(((a - b) ** 2).sum() / (b**2).sum()) for a, b in zip(*found)]
    return [*gaps, float(found[0][1].mean() / found[1][1].mean())]


@pytest.mark.parametrize("point", ["conv", "act"])
def test_the_gap_equals_a_slow_loop(images, point):
    ours, real = images
    rows = style_gap(ours, real, SMALL, networks=2, point=point)
    assert len(rows) == 2 * 2 * 2
    for row in rows.itertuples():
        expected = slow_gap(ours[row.label], real[row.label], row.layer, row.network, point)
        found = [row.mean_gap, row.std_gap, row.gram_gap, row.std_ratio]
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6), row


def test_the_same_images_have_no_gap_and_contrast_shows_before_the_norm_only(images):
    _, real = images
    assert style_gap(real, real, SMALL, networks=1)[["mean_gap", "std_gap", "gram_gap"]].abs().max().max() < 1e-9
    louder = {label: 1.5 * some for label, some in real.items()}
    before, after = (style_gap(louder, real, SMALL, networks=3, point=point) for point in ("conv", "norm"))
    assert before[before.layer == 1].std_ratio.mean() == pytest.approx(1.5, rel=0.01)
    assert after.std_ratio.tolist() == pytest.approx([1.0] * len(after), rel=1e-3)


def test_a_class_without_real_images_is_an_error(images):
    ours, real = images
    with pytest.raises(ValueError, match=r"real must have images of every class of the memory; it has none of \[5\]"):
        style_gap(ours, {3: real[3]}, SMALL)
