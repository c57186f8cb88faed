"""The matching engine against a slow loop over classes; keyed chance, groups, resuming, bad settings."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from mixed import apart, mixed

from clreplay.condensation import RealImages
from clreplay.condensation.engine import progress_file as keeping
from clreplay.condensation.matching.engine import MatchingEngine, MatchingSettings, terms_of
from clreplay.data import NORMALIZATIONS
from clreplay.networks import ConvNet
from clreplay.runtime.seeding import BLOCK, generator
from clreplay.training.augmentation import augment_shared, parse_strategy

NORMALIZATION = NORMALIZATIONS["cifar10"]
CPU = torch.device("cpu")
DDM = MatchingSettings(
    width=4, depth=2, iterations=5, real_batch=7, lr_img=0.5, style_weight=5000.0, diversity_weight=10.0
)
DM = replace(DDM, style_weight=0.0, diversity_weight=0.0)


def engine(real, settings=DDM, count=4, seed=3):
    counts = count if isinstance(count, dict) else {label: count for label in real.classes}
    settings, execution = apart(settings)
    return MatchingEngine(real, counts, settings, seed, CPU, execution)


def condensed(real, settings=DDM, count=4, seed=3):
    return engine(real, settings, count, seed).run().images


def assert_same_bytes(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[label], other[label]) for label in one)


def assert_close(one, other, tolerance=1e-4):
    assert one.keys() == other.keys()
    for label in one:
        torch.testing.assert_close(one[label], other[label], rtol=tolerance, atol=tolerance)


@pytest.fixture
def real(pixels):
    return RealImages(*pixels(3, 12), NORMALIZATION)


# ---------------------------------------------------------------- the slow loop


def slow_network(settings, seed, number):
    """A new module every iteration; weights layer by layer from the keyed draw of the iteration."""
    network = ConvNet(1, 3, 8, settings.width, settings.depth, settings.norm)
    numbers = torch.empty(sum(p.numel() for p in network.parameters())).uniform_(
        -1, 1, generator=generator(seed, "network", number)
    )
    with torch.no_grad():
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                values, numbers = numbers[: parameter.numel()], numbers[parameter.numel() :]
                if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                    parameter.copy_(values.view_as(parameter) / math.sqrt(module.weight[0].numel()))
                else:
                    parameter.fill_(1.0 if name == "weight" else 0.0)
    return network.requires_grad_(False)


def slow_draw(real, label, settings, seed, number):
    """Rows of the real batch and augmentation draw of one class in one iteration."""
    chance = generator(seed, real.keys[label], "match", number // BLOCK)
    draws = torch.rand(BLOCK, parse_strategy(settings.siamese_augment).draw_size, generator=chance)
    size = real.count(label)
    if settings.real_batch >= size:
        return list(range(size)), draws[number % BLOCK]
    uniform = torch.rand(BLOCK, size, generator=chance)[number % BLOCK]
    return sorted(range(size), key=lambda row: -uniform[row])[: settings.real_batch], draws[number % BLOCK]


def augmented(images, one_draw, settings):
    """Image by image: the parameters are the class's, not the batch's."""
    strategy = parse_strategy(settings.siamese_augment)
    return torch.cat([augment_shared(image[None], one_draw, strategy) for image in images])


def spread_of(values, settings):
    variance = (values - values.mean()).square().sum() / (len(values) - 1)
    return (variance + 1e-5).sqrt() if settings.spread == "std" else variance


def moments(tap, settings):
    maps = tap if settings.sigma_of == "image" else tap.mean(0, keepdim=True)
    channels = range(tap.shape[1])
    mean = torch.stack([tap[:, c].mean() for c in channels])
    spread = [sum(spread_of(image[c].flatten(), settings) for image in maps) / len(maps) for c in channels]
    return mean, torch.stack(spread)


def gram_of(tap):
    return sum(image.flatten(1) @ image.flatten(1).T / image.numel() for image in tap) / len(tap)


def diversity(embedding, settings):
    n = len(embedding)
    k = min(max(1, round(settings.neighbours * n)), n - 1)
    total = 0.0
    for i, one in enumerate(embedding):
        others = sorted((j for j in range(n) if j != i), key=lambda j: float((one - embedding[j]).detach().norm()))
        centre = embedding[others[:k]].mean(0)
        centre = centre.detach() if settings.detach_neighbours else centre
        total = total - torch.sum(one.softmax(0) * (one.log_softmax(0) - centre.log_softmax(0)))
    return total / (n if settings.diversity_reduction == "mean" else 1)


def slow_objective(theirs, ours, settings):
    """L_MMD + lambda (alpha L_MM + L_CM) + beta L_ICD of one class; each side is (embedding, taps)."""
    loss = settings.mean_weight * (theirs[0].mean(0) - ours[0].mean(0)).square().sum()
    for layer in range(settings.depth) if settings.style_layers is None else settings.style_layers:
        reduce = torch.mean if settings.moment_channels == "mean" else torch.sum
        for target, value in zip(moments(theirs[1][layer], settings), moments(ours[1][layer], settings)):
            loss = loss + settings.style_weight * settings.alpha * 0.5 * reduce((target - value).square())
        gap = (gram_of(theirs[1][layer]) - gram_of(ours[1][layer])).square().sum()
        loss = loss + settings.style_weight * settings.correlation * gap * (0.25 if settings.gram_quarter else 1)
    if len(ours[0]) > 1:
        loss = loss + settings.diversity_weight * diversity(ours[0], settings)
    return loss


def slow_condense(real, counts, settings, seed):
    """The loop of the papers: for every iteration a new network, then class after class."""
    images, optimizers = {}, {}
    for label in real.classes:
        order = torch.randperm(real.count(label), generator=generator(seed, real.keys[label], "init"))
        images[label] = real.normalised(label)[order[: counts[label]]].clone().requires_grad_()
        optimizers[label] = torch.optim.SGD([images[label]], lr=settings.lr_img, momentum=settings.momentum_img)
    for iteration in range(settings.iterations):
        number = iteration // settings.network_reuse
        network = slow_network(settings, seed, number)
        chosen = {label: slow_draw(real, label, settings, seed, number) for label in real.classes}
        sides = []
        for side in ("real", "synthetic"):
            batches = []
            for label, (rows, one_draw) in chosen.items():
                batch = real.normalised(label)[rows] if side == "real" else images[label]
                batches.append(augmented(batch, one_draw, settings))
            if settings.norm == "batch":  # one pass: the batch statistics mix the classes
                sizes = [len(batch) for batch in batches]
                embedding, taps = network.features(torch.cat(batches))
                parts = zip(embedding.split(sizes), zip(*(tap.split(sizes) for tap in taps)))
                sides.append([(one, list(maps)) for one, maps in parts])
            else:
                sides.append([network.features(batch) for batch in batches])
        losses = [slow_objective(theirs, ours, settings) for theirs, ours in zip(*sides)]
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        sum(losses).backward()
        for optimizer in optimizers.values():
            optimizer.step()
    return {label: tensor.detach() for label, tensor in images.items()}


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
    counts = {label: 4 for label in real.classes}
    expected = slow_condense(real, counts, settings, seed=3)
    found = condensed(real, settings)
    assert_close(found, expected)
    start = engine(real, settings).images()
    assert all((found[label] - start[label]).abs().max() > 0.01 for label in found), "the images must have moved"


def test_the_engine_equals_the_loop_with_the_paper_s_weight_and_uneven_classes(pixels):
    real = RealImages(*pixels(each=[5, 12, 9]), NORMALIZATION)
    counts = {0: 3, 1: 4, 2: 1}
    assert_close(condensed(real, DDM, counts), slow_condense(real, counts, DDM, seed=3))


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


def test_the_label_of_a_class_does_not_matter(pixels):
    images, labels = pixels(2)
    renamed = condensed(RealImages(images, 70 - labels, NORMALIZATION))
    plain = condensed(RealImages(images, labels, NORMALIZATION))
    assert_same_bytes({label: renamed[70 - label] for label in plain}, plain)


# ---------------------------------------------------------------- bytes


@pytest.mark.parametrize(
    ("changes", "stop"),
    [
        ({}, 2),
        ({"network_reuse": 3, "iterations": 7}, 4),
        ({"norm": "batch"}, 1),
        ({"iterations": BLOCK + 4}, BLOCK + 1),
    ],
    ids=str,
)
def test_a_resumed_run_gives_the_bytes_of_an_unbroken_one(real, changes, stop, tmp_path):
    settings = replace(DDM, **changes)
    unbroken = engine(real, settings)
    result = unbroken.run()
    broken = engine(real, settings)
    for _ in range(stop):
        broken.step()
    torch.save(broken.state_dict(), tmp_path / "state")
    broken.step()  # what comes after saving must not reach the state
    resumed = engine(real, settings)
    resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert resumed.iteration == stop
    assert_same_bytes(resumed.run().images, result.images)


def test_a_state_is_a_snapshot(real):
    some = engine(real)
    some.step()
    state = some.state_dict()
    before = copy.deepcopy(state)
    some.run()
    assert state["iteration"] == 1 and state["record"] == before["record"]
    assert all(torch.equal(tensor, before["tensors"][name]) for name, tensor in state["tensors"].items())


def interrupt_at(iteration: int):
    """Progress that presses Ctrl-C after an iteration."""

    def progress(done: int, total: int, unit: str) -> None:
        if done == iteration:
            raise KeyboardInterrupt

    return progress


def test_an_interrupted_run_is_kept_in_a_file_and_goes_on_to_the_same_bytes_and_record(real, tmp_path):
    unbroken = engine(real).run()
    keep = tmp_path / "deep" / "work.progress"
    with pytest.raises(KeyboardInterrupt):
        engine(real).run(interrupt_at(3), keep)
    assert [p.name for p in keep.parent.iterdir()] == ["work.progress"]
    told = []
    resumed = engine(real).run(lambda *report: told.append(report[0]), keep)
    assert told == [4, 5]
    assert_same_bytes(resumed.images, unbroken.images)
    assert resumed.record == unbroken.record
    assert not keep.exists()


def test_the_state_is_kept_every_few_minutes(real, tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "SECONDS_BETWEEN_SAVES", -1.0)
    keep, there = tmp_path / "work.progress", []
    engine(real).run(lambda *_: there.append(keep.exists()), keep)
    assert there == [False, True, True, True, True]


@pytest.mark.parametrize("spoil", ["missing", "misshapen"])
def test_a_state_that_does_not_fit_changes_nothing(real, spoil):
    some, other = engine(real), engine(real, seed=4)
    other.step()
    state = other.state_dict()
    if spoil == "missing":
        del state["tensors"]["2.velocity"]
    else:
        state["tensors"]["2.velocity"] = state["tensors"]["2.velocity"][:2]
    with pytest.raises(ValueError, match=r"the state does not fit: class 2 has no velocity of \(4, 3, 8, 8\)"):
        some.load_state_dict(state)
    assert some.iteration == 0
    assert_same_bytes(some.images(), engine(real).images())


# ---------------------------------------------------------------- counts, initial images, record, divergence


def test_uneven_classes_and_counts_get_exactly_what_is_asked(pixels):
    real = RealImages(*pixels(each=[4, 20, 9, 20]), NORMALIZATION)
    counts = {0: 4, 1: 3, 2: 1, 3: 3}
    found = condensed(real, mixed(DDM, real_batch=8, classes_at_once=4), counts)
    assert {label: tuple(images.shape) for label, images in found.items()} == {
        label: (count, 3, 8, 8) for label, count in counts.items()
    }
    assert all(torch.isfinite(images).all() for images in found.values())


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


def test_images_start_as_real_images_of_their_class_without_repeats(real):
    for label, images in engine(real, count=12).images().items():
        own = real.normalised(label)
        rows = [[torch.equal(image, other) for other in own].index(True) for image in images]
        assert sorted(rows) == list(range(12)) and rows != sorted(rows)
        assert torch.equal(engine(real, count=4).images()[label], images[:4])


def test_images_can_start_as_noise(pixels):
    real = RealImages(*pixels(2, 40), NORMALIZATION)
    start = engine(real, replace(DM, init="noise"), count=40).images()
    assert not torch.equal(start[0], start[1])
    for images in start.values():
        assert abs(float(images.mean())) < 4 / math.sqrt(images.numel())
        assert float(images.std()) == pytest.approx(1, abs=0.05)


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


def test_the_record_holds_the_terms_and_the_range_of_the_images(real):
    settings = replace(DDM, iterations=401)
    some = engine(real, replace(settings, width=2, depth=1, siamese_augment=None, real_batch=3), count=2)
    record = some.run().record
    iterations = [row["iteration"] for row in record]
    assert iterations[0] == 1 and iterations[-1] == 401
    assert 200 <= len(iterations) <= 202 and iterations == sorted(set(iterations))
    images = torch.cat(list(some.images().values()))
    assert record[-1]["image_max"] == pytest.approx(float(images.max()))
    assert record[-1]["image_min"] == pytest.approx(float(images.min()))
    assert record[-1]["image_std"] == pytest.approx(float(images.std()), rel=1e-5)


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


def test_progress_is_told_after_every_iteration(real):
    told = []
    engine(real).run(lambda *report: told.append(report))
    assert told == [(i, 5, "iterations") for i in range(1, 6)]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"real_batch": 0}, "real_batch must be at least 1, got 0"),
        ({"network_reuse": 0}, "network_reuse must be at least 1, got 0"),
        ({"lr_img": 0.0}, "lr_img must be positive, got 0.0"),
        ({"momentum_img": 1.0}, r"momentum_img must be within \[0, 1\), got 1.0"),
        ({"neighbours": 0.0}, r"neighbours must be a fraction within \(0, 1\], got 0.0"),
        ({"neighbours": 1.1}, "neighbours must be a fraction"),
        ({"style_weight": -1.0}, "style_weight must not be negative, got -1.0"),
        ({"init": "zeros"}, "init must be one of real, noise, got 'zeros'"),
        ({"sigma_of": "set"}, "sigma_of must be one of image, mean_map, got 'set'"),
        ({"spread": "sd"}, "spread must be one of std, var, got 'sd'"),
        ({"moment_channels": "max"}, "moment_channels must be one of mean, sum, got 'max'"),
        ({"diversity_reduction": "max"}, "diversity_reduction must be one of mean, sum, got 'max'"),
        ({"siamese_augment": "blur"}, "siamese_augment must join operators.*'blur'"),
        ({"style_layers": ()}, "style_layers must name at least one block"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"norm": "instanse"}, "norm must be one of instance.*'instanse'"),
        ({"activation": "gelu"}, "activation must be one of relu.*'gelu'"),
        ({"pooling": "mean"}, "pooling must be one of avg.*'mean'"),
    ],
)
def test_a_setting_out_of_range_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(DDM, **changes)


def test_settings_that_leave_no_term_are_an_error():
    with pytest.raises(ValueError, match="every term has weight zero"):
        terms_of(replace(DM, mean_weight=0.0), 10)


def test_terms_of_weight_zero_are_left_out_and_ddm_has_all_four_with_its_weights():
    assert [term.name for term in terms_of(DM, 10)] == ["mean_matching"]
    ddm = {term.name: term.weight for term in terms_of(replace(DDM, alpha=0.5), 10)}
    assert ddm == {"mean_matching": 1, "moment_matching": 2500, "correlation_matching": 5000, "diversity": 10}


def test_a_style_layer_the_network_lacks_is_an_error_and_moves_nothing(real):
    some = engine(real, replace(DDM, style_layers=(0, 2)))
    before = some.images()
    with pytest.raises(ValueError, match=r"layers must be within 0\.\.1 for this network, got 2"):
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
    real = RealImages(*pixels(classes=7, each=[9, 12, 9, 10, 14, 9, 11]), NORMALIZATIONS["cifar10"])
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
