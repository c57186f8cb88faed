"""What every engine promises of its state, its start and its record."""

import copy

import pytest
import torch
from engines import NORMALIZATION, assert_same_bytes, image_rows, maker
from mixed import mixed
from tiny import ENGINES, tiny

from clreplay.condensation import RealImages
from clreplay.condensation.engine import base
from clreplay.runtime.seeding import BLOCK

WAYS = [
    ("matching", {}),
    ("matching", {"network_reuse": 3, "iterations": 7}),
    ("matching", {"norm": "batch"}),
    ("idm", {"queue_every": 2, "iterations": 6}),
    ("idm", {"network_reuse": 2}),
    ("idm", {"norm": "batch"}),
    ("idm", {"style_weight": 500.0}),
    ("gradient_matching", {"init": "real", "siamese_augment": "color_crop", "inner_augment": "color_crop"}),
    ("gradient_matching", {"norm": "batch", "outer_loops": 3, "inner_epochs": 2}),
    ("gradient_matching", {"together": True}),
    ("gradient_matching", {"outer_loops": 1, "iterations": 6}),
    ("cafe", {"siamese_augment": "color_crop_flip"}),
    ("cafe", {"norm": "batch"}),
    ("dd", {"distill_epochs": 2}),
    ("dd", {"networks": 2}),
    ("dd", {"norm": "batch"}),
]


def made(name, real, count=2, seed=3, **changes):
    return maker(ENGINES[name], mixed(tiny(name), **changes), count)(real, seed=seed)


def advance(engine):
    """One step as :meth:`Engine.run` takes it."""
    engine.after_step(engine.step())


def same(one, other):
    """Whether two states are equal, to the last bit of every tensor."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


# ---------------------------------------------------------------- the state


@pytest.mark.parametrize(("name", "changes"), WAYS)
def test_the_state_after_any_step_goes_on_to_the_bytes_of_an_unbroken_run(name, changes, real, tmp_path):
    unbroken, broken = made(name, real, **changes), made(name, real, **changes)
    result, files = unbroken.run(), []
    while broken.iteration < broken.iterations:
        advance(broken)
        files.append(tmp_path / str(len(files)))
        torch.save(broken.state_dict(), files[-1])
    assert len(files) >= 3
    for file in files:
        resumed = made(name, real, **changes)
        resumed.load_state_dict(torch.load(file, weights_only=True))
        found = resumed.run()
        assert_same_bytes(found.images, result.images)
        assert found.record == result.record
        assert same(resumed.state_dict(), unbroken.state_dict())


def test_a_state_beyond_the_first_block_of_draws_goes_on_to_the_same_bytes(real):
    changes = {"iterations": BLOCK + 4, "width": 2, "depth": 1, "style_weight": 0.0, "diversity_weight": 0.0}
    broken, resumed = made("matching", real, **changes), made("matching", real, **changes)
    for _ in range(BLOCK + 1):
        advance(broken)
    resumed.load_state_dict(broken.state_dict())
    assert_same_bytes(resumed.run().images, made("matching", real, **changes).run().images)


@pytest.mark.parametrize("name", ENGINES)
def test_a_state_is_a_snapshot(name, real):
    some = made(name, real)
    advance(some)
    state = some.state_dict()
    before = copy.deepcopy(state)
    some.run()
    assert same(state, before) and not same(state, some.state_dict())


SPOILT = ("missing", "misshapen", "of other counts")


@pytest.mark.parametrize(
    ("name", "spoil"),  # all images of dd are one tensor, which other counts misshape
    [(name, spoil) for name in ENGINES for spoil in SPOILT if name != "dd" or spoil == "of other counts"],
)
def test_a_state_that_does_not_fit_changes_nothing(name, spoil, real):
    some, other = made(name, real), made(name, real, count=3 if spoil == "of other counts" else 2, seed=4)
    advance(other)
    state, message = other.state_dict(), "the state does not fit"
    if spoil != "of other counts":
        velocity = state["tensors"].pop("2.velocity")
        message = r"the state does not fit: .*2.* velocity of \(2, 3, 8, 8\)|it has no 2\.velocity of \(2, 3, 8, 8\)"
        if spoil == "misshapen":
            state["tensors"]["2.velocity"] = velocity[:1]
    with pytest.raises(ValueError, match=message):
        some.load_state_dict(state)
    assert some.iteration == 0 and getattr(some, "position", 0) == 0
    fresh = made(name, real)
    assert_same_bytes(some.images(), fresh.images())
    assert_same_bytes(some.run().images, fresh.run().images)


# ---------------------------------------------------------------- the start


@pytest.mark.parametrize("name", ENGINES)
def test_images_can_start_as_noise(name, pixels):
    start = made(name, RealImages(*pixels(2, 40), NORMALIZATION), count=40, init="noise").images()
    assert not torch.equal(start[0], start[1])
    for images in start.values():
        assert abs(float(images.mean())) < 4 / images.numel() ** 0.5
        assert float(images.std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", sorted(set(ENGINES) - {"idm"}))  # which stores four small images in one
def test_images_can_start_as_real_images_of_their_class_without_repeats(name, real):
    few = made(name, real, count=4, init="real").images()
    for label, images in made(name, real, count=12, init="real").images().items():
        rows = image_rows(images, real.normalised(label))
        assert sorted(rows) == list(range(12)) and rows != sorted(rows)
        assert torch.equal(few[label], images[:4])


# ---------------------------------------------------------------- the record


@pytest.mark.parametrize("name", ENGINES)
def test_a_long_record_is_thinned_and_ends_with_the_range_of_the_images(name, real, monkeypatch):
    monkeypatch.setattr(base, "RECORD_ROWS", 4)
    some = made(name, real, count=1, **{"updates" if name == "dd" else "iterations": 13})
    rows = [row for row in some.run().record if "image_max" in row]  # dd's step sizes are rows, too
    assert [row["iteration"] for row in rows] == [1, 3, 6, 9, 12, 13]
    images = torch.cat(list(some.images().values()))
    assert rows[-1]["image_max"] == pytest.approx(float(images.max()))
    assert rows[-1]["image_min"] == pytest.approx(float(images.min()))
    assert rows[-1]["image_std"] == pytest.approx(float(images.std()), rel=1e-5)


def test_a_record_has_about_two_hundred_rows_however_long_the_run(real):
    some = made("matching", real, iterations=401)
    assert 200 <= sum(some.is_recorded(iteration) for iteration in range(1, 402)) <= 202


@pytest.mark.parametrize("name", ["matching", "dd"])
def test_images_that_run_away_are_told_once(name, real, caplog):
    engine = made(name, real)
    images = torch.randn(2, 3, 8, 8)
    engine.row(1, {}, 19 * images / images.std())
    assert not caplog.text
    engine.row(2, {}, 30 * images / images.std())
    engine.row(3, {}, 40 * images / images.std())
    assert caplog.text.count("synthetic images have left the range of real ones") == 1
    assert "their standard deviation is 30" in caplog.text and "lr_img (now" in caplog.text
