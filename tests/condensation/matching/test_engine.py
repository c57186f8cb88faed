"""The matching engine against a slow loop over classes; keyed chance, groups, memory and precision."""

from dataclasses import replace

import pytest
import slow
import torch
from engines import NORMALIZATION, assert_close, assert_same_bytes, maker
from mixed import mixed

from clreplay.condensation import METHODS, RealImages
from clreplay.condensation.matching.engine import MatchingEngine
from clreplay.condensation.matching.settings import MatchingSettings
from clreplay.networks.kernels.build import failure
from clreplay.runtime.seeding import BLOCK

DDM = MatchingSettings(
    width=4, depth=2, iterations=5, real_batch=7, lr_img=0.5, style_weight=5000.0, diversity_weight=10.0
)
DM = replace(DDM, style_weight=0.0, diversity_weight=0.0)
DATADAM = MatchingSettings(
    width=4, depth=3, iterations=3, real_batch=50, lr_img=0.5, siamese_augment=None, attention_weight=100.0
)
engine = maker(MatchingEngine, DDM, count=4)


def condensed(real, settings=DDM, count=4, seed=3):
    return engine(real, settings, count, seed).run().images


# ---------------------------------------------------------------- the slow loop


OTHER_READINGS = {
    "sigma_of": "mean_map",
    "spread": "var",
    "moment_channels": "sum",
    "gram_quarter": True,
    "style_layers": (1,),
    "neighbours": 0.7,
    "diversity_reduction": "sum",
    "detach_neighbours": True,
    "alpha": 0.3,
    "correlation": 2.0,
    "mean_weight": 0.5,
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"style_weight": 0.0, "diversity_weight": 0.0},
        {"network_reuse": 2},
        {"real_batch": 50},
        {"siamese_augment": None},
        {"siamese_augment": "crop+flip"},
        {"norm": "batch"},
        {**OTHER_READINGS, "style_weight": 50.0},
    ]
    + [{name: value} for name, value in OTHER_READINGS.items()],
    ids=lambda changes: "-".join(changes) or "ddm",
)
def test_the_engine_equals_a_loop_over_classes(real, changes):
    # The literal sums over channels and the variance need a smaller weight to stay in a moderate range.
    settings = replace(DDM, **{"style_weight": 500.0, **changes})
    expected = slow.matching(real, dict.fromkeys(real.classes, 4), settings, seed=3)
    found = condensed(real, settings)
    assert_close(found, expected)
    start = engine(real, settings).images()
    assert all((found[label] - start[label]).abs().max() > 0.01 for label in found), "the images must have moved"


@pytest.mark.parametrize("changes", [{}, {"attention_power": 1.0}, {"attention_layers": (2,)}], ids=str)
def test_attention_matching_equals_the_loop(real, changes):
    """The authors' total is 100 (L_att + 0.01 L_out)."""
    settings = replace(DATADAM, **changes)
    expected = slow.matching(real, dict.fromkeys(real.classes, 4), settings, seed=3)
    assert_close(condensed(real, settings), expected, 1e-3)


def test_the_engine_equals_the_loop_with_the_paper_s_weight_and_uneven_classes(pixels):
    real = RealImages(*pixels(each=[5, 12, 9]), NORMALIZATION)
    counts = {0: 3, 1: 4, 2: 1}
    assert_close(condensed(real, DDM, counts), slow.matching(real, counts, DDM, seed=3))


# ---------------------------------------------------------------- keyed chance: who is beside a class does not matter


def draws_of(some, block=0):
    """Of every class: real rows within the class, and augmentation draws, of a whole block."""
    found = {}
    for group in some.groups:
        group.prepare(block, some.seed, some.strategy)
        for i, label in enumerate(group.labels):
            rows = torch.searchsorted(group.positions[i], group.rows[:, i].contiguous())
            found[label] = rows, group.draws[:, i]
    return found


@pytest.fixture
def twenty(pixels):
    return pixels(20, 6)


@pytest.mark.parametrize("classes_at_once", [1, 3, 20, None])
def test_a_class_draws_the_same_alone_in_three_and_in_twenty(twenty, classes_at_once):
    images, labels = twenty
    settings = mixed(DM, real_batch=4, classes_at_once=classes_at_once)
    together = engine(RealImages(images, labels, NORMALIZATION), settings)
    sizes = {1: {1}, 3: {3, 2}, 20: {20}, None: {1}}[classes_at_once]
    assert {len(group.labels) for group in together.groups} == sizes
    found = draws_of(together)
    for label in (0, 7, 19):
        mine = labels == label
        alone = draws_of(engine(RealImages(images[mine], labels[mine], NORMALIZATION), settings))[label]
        assert torch.equal(found[label][0], alone[0])
        assert torch.equal(found[label][1], alone[1])
    assert not torch.equal(found[0][1], found[7][1])


def test_rows_are_drawn_without_replacement_and_change_with_iteration_block_and_seed(real):
    some = engine(real, replace(DM, real_batch=5))
    rows, draws = draws_of(some)[1]
    assert rows.shape == (BLOCK, 5) and rows.min() == 0 and rows.max() == 11
    assert all(len(set(row)) == 5 for row in rows.tolist())
    counts = torch.bincount(rows.flatten(), minlength=12)
    expected = BLOCK * 5 / 12
    assert float(((counts - expected) ** 2 / expected).sum()) < 31.3  # chi squared, 11 degrees, p = 0.001
    assert len({tuple(row) for row in rows.tolist()}) > BLOCK - 3
    for other in (draws_of(some, block=1)[1], draws_of(engine(real, replace(DM, real_batch=5), seed=4))[1]):
        assert not torch.equal(other[0], rows)
        assert not torch.equal(other[1], draws)


def test_every_row_of_a_group_belongs_to_its_class(pixels):
    images, labels = pixels(each=[9, 11, 10])
    some = engine(RealImages(images, labels, NORMALIZATION), mixed(DM, real_batch=4, classes_at_once=3))
    (group,) = some.groups
    group.prepare(0, 0, some.strategy)
    for i, label in enumerate(group.labels):
        own = images[labels == label]
        assert all(any(torch.equal(group.real[row], image) for image in own) for row in group.rows[:8, i].flatten())


def test_a_class_comes_out_the_same_alone_in_three_and_in_twenty(twenty):
    images, labels = twenty
    settings = replace(DDM, iterations=3, real_batch=4)
    everyone = RealImages(images, labels, NORMALIZATION)
    one_by_one = condensed(everyone, settings, 3)
    for classes_at_once in (3, 20):
        assert_close(condensed(everyone, mixed(settings, classes_at_once=classes_at_once), 3), one_by_one)
    for label in (0, 19):
        mine = labels == label
        alone = condensed(RealImages(images[mine], labels[mine], NORMALIZATION), settings, 3)
        assert torch.equal(alone[label], one_by_one[label])


def test_the_network_s_draw_does_not_depend_on_the_number_of_classes(twenty):
    """On a GPU the size of a buffer decides which number goes where, so the size must not change."""
    images, labels = twenty
    few = labels < 3
    sizes = {
        engine(RealImages(images[chosen], labels[chosen], NORMALIZATION), DM).networks.parameters.buffer.numel()
        for chosen in (few, ~few)
    }
    assert len(sizes) == 1


# ---------------------------------------------------------------- counts, initial images, record, divergence


def test_a_real_batch_larger_than_the_class_takes_every_image_once(pixels):
    images, labels = pixels(each=[5, 9])
    rows = draws_of(engine(RealImages(images, labels, NORMALIZATION), replace(DM, real_batch=8), count=2))
    assert rows[0][0].tolist() == [[0, 1, 2, 3, 4]] * BLOCK
    assert rows[1][0].shape == (BLOCK, 8)


def test_one_image_a_class_leaves_diversity_out(real):
    some = engine(real, count=1)
    names = {term.name for term in some.groups[0].terms}
    assert names == {"correlation_matching", "mean_matching", "moment_matching"}
    without = engine(real, replace(DDM, diversity_weight=0.0), count=1)
    assert_same_bytes(some.run().images, without.run().images)
    assert "diversity" not in some.record[0]


def test_network_reuse_shares_network_real_batch_and_augmentation(real):
    some = engine(real, replace(DDM, network_reuse=3))
    seen = []
    for _ in range(4):
        some.step()
        group = some.groups[0]
        seen.append((some.networks.parameters.buffer.clone(), group.statistics))
    for later in (1, 2):
        assert torch.equal(seen[later][0], seen[0][0])
        assert seen[later][1] is seen[0][1]
    assert not torch.equal(seen[3][0], seen[0][0])
    assert seen[3][1] is not seen[0][1]


def test_the_values_of_a_step_are_unweighted_means_over_classes(real):
    values = engine(real).step()
    weighted = engine(real, replace(DDM, style_weight=1.0, diversity_weight=0.1)).step()
    by_class = [
        engine(RealImages(real.raw(label), torch.full((12,), label), NORMALIZATION)).step() for label in real.classes
    ]
    assert set(values) == {"mean_matching", "moment_matching", "correlation_matching", "diversity"}
    for name, value in values.items():
        torch.testing.assert_close(value, weighted[name])
        torch.testing.assert_close(value, sum(one[name] for one in by_class) / 3)


def test_mean_matching_falls_over_the_iterations(real):
    settings = replace(DM, iterations=60, siamese_augment=None, real_batch=12, network_reuse=60)
    record = engine(real, settings).run().record
    assert record[-1]["mean_matching"] < 0.5 * record[0]["mean_matching"]


# ---------------------------------------------------------------- bad input


LAST = r"takes all layers but the last, and this network has 1; set terms.attention.layers \(attention_layers\)"
LACKS = r"layers must be within 0\.\.{} for this network, got {}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (replace(DDM, style_layers=(0, 2)), LACKS.format(1, 2)),
        (replace(DATADAM, attention_layers=(3,)), LACKS.format(2, 3)),
        (replace(DATADAM, depth=1), LAST),
    ],
)
def test_a_layer_that_the_network_lacks_is_an_error_and_moves_nothing(real, settings, message):
    some = engine(real, settings)
    before = some.images()
    with pytest.raises(ValueError, match=message):
        some.step()
    assert_same_bytes(some.images(), before)


# ---------------------------------------------------------------- memory and precision


def test_real_images_on_the_device_or_where_they_were_make_no_difference(real, monkeypatch):
    plain = engine(real, mixed(DDM, classes_at_once=2))
    assert all(group.real is real.images for group in plain.groups)  # nothing is copied
    monkeypatch.setattr(MatchingEngine, "_resident", lambda self: True)
    resident = engine(real, mixed(DDM, classes_at_once=2))
    assert [len(group.real) for group in resident.groups] == [24, 12]
    assert_same_bytes(plain.run().images, resident.run().images)


def limit_memory(monkeypatch, classes: int) -> None:
    """An allocator that has no room for more than ``classes`` classes at once."""
    features = MatchingEngine._features

    def limited(self, images, group, within):
        if len(images) > classes:
            raise torch.OutOfMemoryError("faked")
        return features(self, images, group, within)

    monkeypatch.setattr(MatchingEngine, "_features", limited)


@pytest.mark.parametrize("reuse", [1, 3])
def test_out_of_memory_halves_the_group_and_goes_on_to_the_same_images(pixels, monkeypatch, caplog, reuse):
    real = RealImages(*pixels(classes=7, each=[9, 12, 9, 10, 14, 9, 11]), NORMALIZATION)
    settings = mixed(DDM, classes_at_once=7, real_batch=8, network_reuse=reuse)
    whole = engine(real, settings)
    assert [len(group.labels) for group in whole.groups] == [7]
    plain = whole.run().images
    limit_memory(monkeypatch, 2)
    small = engine(real, settings)
    images = small.run().images
    assert sorted(len(group.labels) for group in small.groups) == [1, 2, 2, 2]
    assert caplog.text.count("out of memory") == 1
    for label in real.classes:
        assert torch.allclose(images[label], plain[label], atol=1e-4)


def test_memory_too_small_for_one_class_is_an_error(real, monkeypatch):
    limit_memory(monkeypatch, 0)
    with pytest.raises(torch.OutOfMemoryError):
        engine(real, mixed(DDM, classes_at_once=2)).run()


def test_bfloat16_convolutions_keep_images_and_losses_in_single_precision(real):
    low = engine(real, replace(DDM, precision="bfloat16"))
    values = low.step()
    assert all(value.dtype == torch.float32 for value in values.values())
    assert all(images.dtype == torch.float32 for images in low.images().values())
    exact = engine(real).step()
    for name, value in values.items():
        assert value.item() == pytest.approx(exact[name].item(), rel=0.1), name
    assert any(values[name].item() != exact[name].item() for name in values)  # it really was another precision


def test_with_batch_norm_all_classes_go_through_the_network_together(real):
    """A class then depends on those beside it, so it cannot be taken from the cache."""
    settings = replace(DATADAM, norm="batch")
    assert METHODS["matching"].separable(DATADAM) and not METHODS["matching"].separable(settings)
    some = engine(real, settings)
    assert [group.labels for group in some.groups] == [[0, 1, 2]]
    assert all(torch.isfinite(images).all() for images in some.run().images.values())


@pytest.mark.skipif(failure() is not None, reason=f"no native kernels: {failure()}")
def test_the_fused_blocks_give_the_maps_that_attention_reads(real):
    settings = replace(DATADAM, width=16)
    plain, fused = (engine(real, mixed(settings, kernels=name), count=2).run() for name in ("eager", "native"))
    assert_close(fused.images, plain.images, 1e-3)
    assert {"mean_matching", "attention_matching"} < set(fused.record[0])
