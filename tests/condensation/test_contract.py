"""What every registered method promises, whatever it does: counts, bytes, chance, going on, and errors before work."""

import hashlib
import logging

import pytest
import torch

from clreplay.condensation import METHODS, ConfiguredMethod, RealImages
from clreplay.data import NORMALIZATIONS

CPU, NORMALIZATION = torch.device("cpu"), NORMALIZATIONS["cifar10"]
NET = {"width": 4, "depth": 2}
TINY = {
    "cafe": {**NET, "iterations": 2, "real_batch": 8, "accuracy_images": 4, "window": 2, "max_image_steps": 3,
             "max_epochs": 2},
    "dd": {**NET, "updates": 3, "real_batch": 16, "distill_epochs": 1, "step_size": 0.1, "lr_img": 0.1},
    "forgetting": {**NET, "epochs": 2, "batch_size": 16},
    "gradient_matching": {**NET, "iterations": 2, "outer_loops": 2, "inner_epochs": 1, "real_batch": 8},
    "herding": {**NET, "updates": 2},
    "idm": {**NET, "iterations": 3, "real_batch": 8, "queue_steps": 1, "batch_net": 16},
    "matching": {**NET, "iterations": 3, "real_batch": 8, "style_weight": 5000.0, "diversity_weight": 10.0},
    "random": {},
}  # fmt: skip
COUNTS = {0: 2, 1: 3, 2: 2}
SELECTIONS = ("forgetting", "herding", "random")
ENGINES = sorted(set(TINY) - set(SELECTIONS))
CURES = {
    "cafe": r"iteration 1 .*lower lr_img \(now 1e\+38\) or lr_net",
    "dd": r"update \d+ .*lower step_size \(now 1e\+30\) or lr_img",
    "gradient_matching": r"iteration 1 .*lower lr_img \(now 1e\+38\) or lr_net",
    "idm": r"iteration \d+ .*lower lr_img \(now 1e\+38\)",
    "matching": r"iteration \d+ .*lower lr_img \(now 1e\+38\)",
}


@pytest.fixture
def images(pixels):
    return pixels(3, 12)


def real_of(images, labels):
    return RealImages(images, labels, NORMALIZATION)


def condensed(name, real, counts=COUNTS, seed=3, keep=None, progress=None, **changes):
    method = METHODS[name]
    configured = ConfiguredMethod(method, method.settings(**{**TINY[name], **changes}))
    return configured.condense(real, counts, seed=seed, device=CPU, keep=keep, progress=progress)


def digest(images):
    return {label: hashlib.blake2b(some.contiguous().numpy().tobytes()).hexdigest() for label, some in images.items()}


def test_every_method_is_held_to_the_contract():
    assert set(TINY) == set(METHODS)


@pytest.mark.parametrize("name", TINY)
def test_every_class_gets_exactly_what_is_asked_and_the_same_bytes_again(name, images, global_chance_untouched):
    real = real_of(*images)
    with global_chance_untouched():
        first = condensed(name, real)
    assert {label: tuple(some.shape) for label, some in first.images.items()} == {
        label: (count, 3, 8, 8) for label, count in COUNTS.items()
    }
    dtype = torch.uint8 if name in SELECTIONS else torch.float32
    assert all(some.dtype == dtype and torch.isfinite(some.float()).all() for some in first.images.values())
    again = condensed(name, real)
    assert digest(again.images) == digest(first.images) and again.record == first.record
    other = condensed(name, real, seed=4)
    assert digest(other.images) != digest(first.images)
    assert first.decoding == METHODS[name].decoding(METHODS[name].settings(**TINY[name]))


@pytest.mark.parametrize(
    ("name", "changes"),
    [*((name, {}) for name in TINY), *((name, {"init": init}) for name in ENGINES for init in ("real", "noise"))],
)
def test_pixel_codes_and_normalised_floats_come_out_the_same(name, changes, images):
    codes, labels = images
    floats = RealImages(NORMALIZATION.apply(codes), labels)
    theirs = condensed(name, real_of(*images), **changes).images
    if name in SELECTIONS:
        theirs = {label: NORMALIZATION.apply(some) for label, some in theirs.items()}
    assert digest(condensed(name, floats, **changes).images) == digest(theirs)


@pytest.mark.parametrize("name", TINY)
def test_a_class_that_is_too_small_is_refused_before_any_work(name, images):
    def worked(*arguments):
        pytest.fail("work began")

    with pytest.raises(ValueError, match=r"class 1 has 12 images, fewer than the 13 asked; lower images_per_class"):
        condensed(name, real_of(*images), {0: 2, 1: 13, 2: 2}, progress=worked)


@pytest.mark.parametrize("name", [name for name in TINY if METHODS[name].separable(METHODS[name].settings())])
def test_a_class_comes_out_the_same_alone(name, images):
    real = real_of(*images)
    together, alone = condensed(name, real).images, condensed(name, real.subset([1])).images
    assert digest(alone)[1] == digest(together)[1]


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("name", ENGINES)
def test_ctrl_c_leaves_a_file_that_goes_on_to_the_same_bytes(name, images, stop, tmp_path):
    real, keep = real_of(*images), tmp_path / "work.progress"
    unbroken = condensed(name, real)
    calls = []

    def interrupt(*arguments):
        calls.append(arguments)
        if len(calls) == stop:
            raise KeyboardInterrupt

    try:
        condensed(name, real, keep=keep, progress=interrupt)
    except KeyboardInterrupt:
        assert keep.is_file()
    resumed = condensed(name, real, keep=keep)
    assert digest(resumed.images) == digest(unbroken.images) and resumed.record == unbroken.record
    assert not keep.exists(), "what is finished keeps no file"


def interrupt(*arguments):
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ENGINES)
def test_a_file_of_another_condensation_is_passed_by_with_a_warning(name, images, tmp_path, caplog):
    real, keep = real_of(*images), tmp_path / "work.progress"
    with pytest.raises(KeyboardInterrupt):
        condensed(name, real, keep=keep, progress=interrupt, seed=9)
    with caplog.at_level(logging.WARNING, "clreplay"):
        found = condensed(name, real, keep=keep)
    assert "is of another condensation; starting anew" in caplog.text
    assert digest(found.images) == digest(condensed(name, real).images)


@pytest.mark.parametrize("name", ENGINES)
def test_a_cut_or_foreign_file_is_an_error_that_names_it(name, images, tmp_path):
    real, keep = real_of(*images), tmp_path / "work.progress"
    with pytest.raises(KeyboardInterrupt):
        condensed(name, real, keep=keep, progress=interrupt)
    for content in (keep.read_bytes()[:200], b"not a condensation"):
        keep.write_bytes(content)
        with pytest.raises(ValueError, match=r"work\.progress is truncated or not a condensation in progress; delete"):
            condensed(name, real, keep=keep)


@pytest.mark.parametrize("name", ENGINES)
def test_images_that_diverge_end_the_run_with_the_cure(name, images):
    wild = {"step_size": 1e30} if name == "dd" else {"lr_img": 1e38}
    with pytest.raises(FloatingPointError, match=f"condensation diverged at {CURES[name]}"):
        condensed(name, real_of(*images), **wild)
