"""Texture against a co-occurrence that is counted pixel by pixel."""

import math

import pytest
import torch

from clreplay.analysis.texture import co_occurrence, grey_levels, nearer_to_real
from clreplay.data import Normalization

NORMALIZATION = Normalization((0.5, 0.4, 0.3), (0.25, 0.2, 0.3))


@pytest.fixture
def codes():
    return torch.randint(0, 256, (3, 3, 7, 6), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def counted(picture, dy, dx, levels):
    """Pairs both ways round, as shares."""
    height, width = picture.shape
    found = {}
    for y in range(height):
        for x in range(width):
            if 0 <= y + dy < height and 0 <= x + dx < width:
                a, b = int(picture[y, x]), int(picture[y + dy, x + dx])
                for pair in ((a, b), (b, a)):
                    found[pair] = found.get(pair, 0) + 1
    total = sum(found.values())
    return {pair: number / total for pair, number in found.items()}


@pytest.mark.parametrize("levels", [256, 32, 2])
def test_dissimilarity_and_entropy_equal_those_of_a_counted_matrix(codes, levels):
    images = NORMALIZATION.apply(codes)
    (row,) = co_occurrence({"real": {5: images}}, NORMALIZATION, levels).itertuples()
    dissimilarities, entropies = [], []
    for picture in grey_levels(images, NORMALIZATION, levels)[0]:
        # A distance of d pixels along a diagonal is the pixel nearest to it, d / sqrt(2) away in rows and columns.
        for d in (1, 2):
            r = round(d / math.sqrt(2))
            for dy, dx in ((0, d), (r, r), (d, 0), (r, -r)):
                shares = counted(picture, dy, dx, levels)
                dissimilarities.append(sum(p * abs(i - j) for (i, j), p in shares.items()))
                entropies.append(-sum(p * math.log(p) for p in shares.values()))
    assert row.dissimilarity == pytest.approx(sum(dissimilarities) / len(dissimilarities))
    assert row.entropy == pytest.approx(sum(entropies) / len(entropies))
    assert (row.set, row.label, row.images, row.clipped) == ("real", 5, 3, 0.0)


def test_grey_is_a_weighted_sum_of_the_pixel_codes_and_what_is_outside_is_clipped_and_counted(codes):
    grey, clipped = grey_levels(NORMALIZATION.apply(codes), NORMALIZATION)
    expected = (codes * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1).round()
    assert clipped == 0 and torch.equal(torch.from_numpy(grey).float(), expected)
    images = NORMALIZATION.apply(codes)
    images[0, 0, 0, :2] = torch.tensor([9.0, -9.0])
    assert grey_levels(images, NORMALIZATION)[1] == pytest.approx(2 / codes.numel())
    one = Normalization((0.5,), (0.5,))
    assert grey_levels(one.apply(codes[:, :1]), one, 128)[0].tolist() == (codes[:, 0] // 2).tolist()


def test_a_flat_picture_has_neither_and_noise_has_more_of_both(codes):
    flat = torch.full((2, 3, 8, 8), 77, dtype=torch.uint8)
    rows = co_occurrence(
        {"flat": {0: NORMALIZATION.apply(flat)}, "noise": {0: NORMALIZATION.apply(codes)}}, NORMALIZATION
    )
    assert rows.dissimilarity[0] == rows.entropy[0] == 0 and (rows.iloc[1][["dissimilarity", "entropy"]] > 0).all()


def test_the_distance_from_real_images_is_in_percent(codes):
    images = NORMALIZATION.apply(codes)
    rows = co_occurrence({"real": {0: images}, "same": {0: images}}, NORMALIZATION)
    assert nearer_to_real(rows).loc["same"].tolist() == [0, 0]
    rows.loc[1, ["dissimilarity", "entropy"]] *= 1.5
    assert nearer_to_real(rows).loc["same"].tolist() == pytest.approx([50, 50])
    with pytest.raises(ValueError, match="called real"):
        nearer_to_real(rows[1:])
    with pytest.raises(ValueError, match="levels must be within 2 and 256, got 300"):
        co_occurrence({"real": {0: images}}, NORMALIZATION, 300)
