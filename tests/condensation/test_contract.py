"""What every registered method promises, whatever it does: counts, bytes, chance, going on, and errors before work."""

import hashlib
import logging

import pytest
import torch
from engines import CPU, NORMALIZATION, assert_close, image_rows
from tiny import ENGINES, SELECTIONS, TINY, tiny

from clreplay.condensation import METHODS, ConfiguredMethod, RealImages
from clreplay.condensation.engine.execution import Execution
from clreplay.recipes.recipe import load_recipe, recipe_names
from clreplay.runtime import progress_file

COUNTS = {0: 2, 1: 3, 2: 2}
SEPARABLE = [name for name in TINY if METHODS[name].separable(tiny(name))]
ALONE = [*SEPARABLE, "random"]  # works class by class, too; nothing is gained by caching what it does
UNITS = {  # how many units of work the tiny settings ask for, and what they are called
    "cafe": (2, "networks"),
    "dd": (3, "updates"),
    "forgetting": (2, "epochs"),
    "gradient_matching": (4, "matching steps"),
    "herding": (2, "epochs of the feature network"),
    "idm": (3, "iterations"),
    "kmeans": (2, "epochs of the feature network"),
    "matching": (3, "iterations"),
    "random": (0, None),
}
DIVERGING = {  # what makes a method diverge, and what it says then
    "cafe": ({"lr_img": 1e38}, r"condensation diverged at iteration 1 .*lower lr_img \(now 1e\+38\) or lr_net"),
    "dd": ({"step_size": 1e30}, r"condensation diverged at update \d+ .*lower step_size \(now 1e\+30\) or lr_img"),
    "forgetting": ({"lr": 1e30}, r"training diverged .*lower lr \(now 1e\+30\)"),
    "gradient_matching": (
        {"lr_img": 1e38}, r"condensation diverged at iteration 1 .*lower lr_img \(now 1e\+38\) or lr_net",
    ),
    "herding": ({"lr": 1e30}, r"training diverged .*lower lr \(now 1e\+30\)"),
    "idm": ({"lr_img": 1e38}, r"condensation diverged at iteration \d+ .*lower lr_img \(now 1e\+38\)"),
    "kmeans": ({"lr": 1e30}, r"training diverged .*lower lr \(now 1e\+30\)"),
    "matching": ({"lr_img": 1e38}, r"condensation diverged at iteration \d+ .*lower lr_img \(now 1e\+38\)"),
}  # fmt: skip


@pytest.fixture
def images(pixels):
    return pixels(3, [12, 9, 14])


@pytest.fixture
def real(images):
    return RealImages(*images, NORMALIZATION)


def condensed(name, real, counts=COUNTS, seed=3, keep=None, progress=None, execution=None, **changes):
    configured = ConfiguredMethod(METHODS[name], tiny(name, **changes), execution or Execution())
    return configured.condense(real, counts, seed=seed, device=CPU, keep=keep, progress=progress)


def digest(images):
    return {label: hashlib.blake2b(some.contiguous().numpy().tobytes()).hexdigest() for label, some in images.items()}


def renamed(images, names):
    return {names[label]: some for label, some in images.items()}


def test_every_method_is_held_to_the_contract():
    assert set(TINY) == set(UNITS) == set(METHODS) and set(DIVERGING) == set(METHODS) - {"random"}


# ---------------------------------------------------------------- counts, bytes, chance


@pytest.mark.parametrize("name", TINY)
def test_every_class_gets_exactly_what_is_asked_and_the_same_bytes_again(name, real, global_chance_untouched):
    with global_chance_untouched():
        first = condensed(name, real)
    assert {label: tuple(some.shape) for label, some in first.images.items()} == {
        label: (count, 3, 8, 8) for label, count in COUNTS.items()
    }
    dtype = torch.uint8 if name in SELECTIONS else torch.float32
    assert all(some.dtype == dtype and torch.isfinite(some.float()).all() for some in first.images.values())
    torch.rand(7)  # nothing hangs on the global generator either
    again = condensed(name, real)
    assert digest(again.images) == digest(first.images) and again.record == first.record
    other = condensed(name, real, seed=4)
    assert digest(other.images) != digest(first.images)
    assert first.decoding == METHODS[name].decoding(tiny(name))


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_does_so_at_its_smallest_and_goes_on_when_stopped(
    name, real, tmp_path, global_chance_untouched
):
    recipe, keep = load_recipe(name), tmp_path / "work.progress"
    configured = recipe.configured("smoke", {"width": 4} if "width" in recipe.keys() else {})
    each = configured.real_images_each()
    counts = {label: min(count, real.count(label) // each) for label, count in COUNTS.items()}

    def made(**options):
        return configured.condense(real, counts, seed=3, device=CPU, **options)

    with global_chance_untouched():
        first = made()
    assert {label: tuple(some.shape) for label, some in first.images.items()} == {
        label: (count, 3, 8, 8) for label, count in counts.items()
    }
    assert all(torch.isfinite(some.float()).all() for some in first.images.values())
    assert digest(made().images) == digest(first.images)
    if recipe.method.name in ENGINES:
        with pytest.raises(KeyboardInterrupt):
            made(keep=keep, progress=interrupt)
        resumed = made(keep=keep)
        assert digest(resumed.images) == digest(first.images) and resumed.record == first.record


TOGETHER = {"classes_at_once": Execution(classes_at_once=3), "together": Execution(together=True)}


@pytest.mark.parametrize(
    ("name", "how"), [(name, how) for name in TINY for how in TOGETHER if how in METHODS[name].execution]
)
def test_classes_computed_together_differ_by_rounding_alone(name, how, real, global_chance_untouched):
    with global_chance_untouched():
        first, again = (condensed(name, real, execution=TOGETHER[how]).images for _ in range(2))
    assert digest(again) == digest(first) and {label: len(some) for label, some in first.items()} == COUNTS
    assert_close(first, condensed(name, real).images, 1e-3)


@pytest.mark.parametrize(
    ("name", "changes"),
    [*((name, {}) for name in TINY), *((name, {"init": init}) for name in ENGINES for init in ("real", "noise"))],
)
def test_pixel_codes_and_normalised_floats_come_out_the_same(name, changes, real, images):
    codes, labels = images
    floats = RealImages(NORMALIZATION.apply(codes), labels)
    theirs = condensed(name, real, **changes).images
    if name in SELECTIONS:
        theirs = {label: NORMALIZATION.apply(some) for label, some in theirs.items()}
    assert digest(condensed(name, floats, **changes).images) == digest(theirs)


# ---------------------------------------------------------------- classes beside one another


@pytest.mark.parametrize("name", TINY)
def test_neither_the_names_of_classes_nor_how_they_lie_among_each_other_matter(name, real, images):
    codes, labels = images
    order, names = labels.argsort(stable=True), {0: 7, 1: 17, 2: 27}
    plain = digest(condensed(name, real).images)
    lying_apart = RealImages(codes[order], labels[order], NORMALIZATION)
    assert digest(condensed(name, lying_apart).images) == plain
    called_otherwise = RealImages(codes, 7 + 10 * labels, NORMALIZATION)
    found = condensed(name, called_otherwise, renamed(COUNTS, names)).images
    assert digest(found) == renamed(plain, names)


@pytest.mark.parametrize("name", ALONE)
def test_the_order_of_classes_does_not_matter_where_each_is_on_its_own(name, real, images):
    names = {0: 9, 1: 5, 2: 1}
    turned = RealImages(images[0], 9 - 4 * images[1], NORMALIZATION)
    found = condensed(name, turned, renamed(COUNTS, names)).images
    assert digest(found) == renamed(digest(condensed(name, real).images), names)


@pytest.mark.parametrize("name", TINY)
def test_a_class_depends_on_its_neighbours_unless_each_is_on_its_own(name, real):
    together, fewer = digest(condensed(name, real).images), digest(condensed(name, real.subset([0, 1])).images)
    assert (fewer == {label: together[label] for label in (0, 1)}) == (name in ALONE)
    if name in ALONE:
        assert digest(condensed(name, real.subset([1])).images)[1] == together[1]


@pytest.mark.parametrize("name", SELECTIONS)
def test_selected_images_are_the_class_s_own_none_twice_and_fewer_are_a_prefix_of_more(name, real):
    sizes = {label: real.count(label) for label in real.classes}
    every, few = condensed(name, real, sizes).images, condensed(name, real).images
    for label, size in sizes.items():
        assert sorted(image_rows(every[label], real.raw(label))) == list(range(size))
        assert len(set(image_rows(few[label], real.raw(label)))) == COUNTS[label]
        if name != "kmeans":  # other numbers of clusters have other centres
            assert torch.equal(few[label], every[label][: COUNTS[label]])


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("name", TINY)
def test_a_class_that_is_too_small_is_refused_before_any_work(name, real, tmp_path):
    def worked(*arguments):
        pytest.fail("work began")

    with pytest.raises(ValueError, match=r"class 1 has 9 images, fewer than the 10 asked; lower images_per_class"):
        condensed(name, real, {0: 2, 1: 10, 2: 2}, progress=worked, keep=tmp_path / "work.progress")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", DIVERGING)
def test_what_diverges_ends_with_an_error_that_names_the_cure(name, real):
    wild, message = DIVERGING[name]
    with pytest.raises(FloatingPointError, match=message):
        condensed(name, real, **wild)


# ---------------------------------------------------------------- progress, stopping and going on


@pytest.mark.parametrize("name", TINY)
def test_progress_is_told_after_every_unit_of_work(name, real):
    told = []
    condensed(name, real, progress=lambda *report: told.append(report))
    total, unit = UNITS[name]
    assert told == [(done, total, unit) for done in range(1, total + 1)]


def interrupt(*arguments):
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ENGINES)
def test_ctrl_c_after_any_unit_of_work_leaves_a_file_that_goes_on_to_the_same_bytes(name, real, tmp_path):
    told, keep = [], tmp_path / "deep" / "work.progress"
    unbroken = condensed(name, real, progress=lambda *report: told.append(report))
    for stop in range(1, len(told) + 1):
        with pytest.raises(KeyboardInterrupt):
            condensed(name, real, keep=keep, progress=lambda done, *_: done < stop or interrupt())
        assert [path.name for path in keep.parent.iterdir()] == ["work.progress"]
        rest = []
        resumed = condensed(name, real, keep=keep, progress=lambda *report: rest.append(report))
        assert rest == told[stop:]
        assert digest(resumed.images) == digest(unbroken.images) and resumed.record == unbroken.record
        assert not keep.exists(), "what is finished keeps no file"


class Listener:
    """A progress that takes rows, and maybe stops the work."""

    def __init__(self, stop=None):
        self.stop, self.rows, self.before = stop, [], []

    def __call__(self, done, total, unit):
        if done == self.stop:
            raise KeyboardInterrupt

    def row(self, row):
        self.rows.append(dict(row))

    def resumed(self, rows):
        self.before += [dict(row) for row in rows]


@pytest.mark.parametrize("name", ENGINES)
def test_rows_of_the_record_are_told_as_they_come_and_once(name, real, tmp_path):
    listener, keep = Listener(), tmp_path / "work.progress"
    record = [row for row in condensed(name, real, progress=listener).record if "image_std" in row]
    assert listener.rows == record and record and not listener.before
    first, second = Listener(stop=1), Listener()
    with pytest.raises(KeyboardInterrupt):
        condensed(name, real, keep=keep, progress=first)
    condensed(name, real, keep=keep, progress=second)
    assert second.before == first.rows, "rows of before are told apart"
    assert second.before + second.rows == record


@pytest.mark.parametrize("name", ENGINES)
def test_the_state_is_kept_every_few_minutes_until_the_end(name, real, tmp_path, monkeypatch):
    monkeypatch.setattr(progress_file, "SECONDS_BETWEEN_SAVES", -1.0)
    keep, there = tmp_path / "work.progress", []
    condensed(name, real, keep=keep, progress=lambda *_: there.append(keep.exists()))
    # Progress is told before the state is saved; a network of CAFE's takes several steps, each of them saved.
    assert there == [name == "cafe", *[True] * (len(there) - 1)] and len(there) > 1
    assert not keep.exists()


@pytest.mark.parametrize("name", ENGINES)
def test_a_file_of_another_condensation_is_passed_by_with_a_warning(name, real, tmp_path, caplog):
    keep = tmp_path / "work.progress"
    with pytest.raises(KeyboardInterrupt):
        condensed(name, real, keep=keep, progress=interrupt, seed=9)
    with caplog.at_level(logging.WARNING, "clreplay"):
        found = condensed(name, real, keep=keep)
    assert "is of other work; starting anew" in caplog.text
    assert digest(found.images) == digest(condensed(name, real).images)


@pytest.mark.parametrize("name", ENGINES)
def test_a_cut_or_foreign_file_is_warned_of_and_the_work_done_anew(name, real, tmp_path, caplog):
    keep = tmp_path / "work.progress"
    with pytest.raises(KeyboardInterrupt):
        condensed(name, real, keep=keep, progress=interrupt)
    unbroken = condensed(name, real).images
    for content in (keep.read_bytes()[:200], b"not a condensation"):
        keep.write_bytes(content)
        caplog.clear()
        assert digest(condensed(name, real, keep=keep).images) == digest(unbroken)
        assert "starting anew, because the work in progress" in caplog.text and "work.progress" in caplog.text
