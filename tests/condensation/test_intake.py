"""Random streams: classes come in any number and order, come back, are small or alone; a memory keeps its promises."""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clreplay import ReplayBuffer, ReplayMemory, condense
from clreplay.condensation import Condensed, RealImages, condense_experience
from clreplay.condensation.configured import ConfiguredMethod
from clreplay.data import Normalization
from clreplay.recipes import load_recipe

PLAIN = Normalization((0.5,), (0.25,))
CPU = torch.device("cpu")
LABELS = st.sampled_from([0, 1, 2, 7, 40, 999])
STREAMS = st.lists(st.dictionaries(LABELS, st.integers(1, 9), max_size=3), min_size=1, max_size=6)
"""Experiences: images of every class."""
BUDGETS = st.sampled_from(
    [
        ("images_per_class", 1),
        ("images_per_class", 4),
        ("mem_size", 6),
        ("mem_size", 13),
        ("bytes_per_class", 300),
        ("mem_bytes", 900),
    ]
)


def pictures(count, seed):
    return torch.randint(0, 256, (count, 1, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def experience(sizes, step):
    images = [pictures(count, 1000 * step + label) for label, count in sizes.items()]
    labels = [label for label, count in sizes.items() for _ in range(count)]
    return torch.cat(images), torch.tensor(labels)


def method(name, **changes):
    recipe = load_recipe(name)
    small = {"iterations": 1, "width": 2, "depth": 1, "real_batch": 3} if name == "dm" else {}
    return recipe.configured("smoke", {**small, **changes})


def told(memory, label):
    return memory.info["stands_for"][str(label)]


@settings(max_examples=60)
@given(STREAMS, BUDGETS, st.sampled_from(["random", "dm"]), st.sampled_from(["condense", "keep"]))
def test_a_memory_keeps_its_promises_along_any_stream(stream, budget, name, returning):
    memory, seen = ReplayMemory(**dict([budget]), normalization=PLAIN), {}
    for step, sizes in enumerate(stream):
        if not sizes:
            continue
        condense_experience(
            memory, RealImages(*experience(sizes, step), PLAIN), method(name), seed=0, device=CPU,
            returning=returning, keep_whole=True,
        )  # fmt: skip
        for label, count in sizes.items():
            if returning == "condense" or label not in seen:
                seen[label] = seen.get(label, 0) + count
        # Nothing is lost: every class is there, with images of its own, and it is known what it stands for.
        assert sorted(memory.classes) == sorted(seen)
        assert all(len(memory.slots[label]) >= 1 and told(memory, label) == n for label, n in seen.items())
        # The budget holds.
        if memory.budget.in_bytes:
            share = memory.budget.share(len(seen))
            assert all(slot.bytes <= share for slot in memory.slots.values())
        else:
            quotas = dict(zip(memory.classes, memory.budget.quotas(len(seen))))
            # A class may have fewer only if it never had more, or was larger than its share of then.
            assert all(len(slot) <= quotas[label] for label, slot in memory.slots.items())
            full = {label for label, slot in memory.slots.items() if len(slot) == quotas[label]}
            assert all(len(memory.slots[label]) <= seen[label] for label in memory.classes)
            assert {label for label, n in seen.items() if n >= 9 * quotas[label]} <= full or name == "random"
        # A file is read with suspicion, and this one is sound.
        again = ReplayMemory(1)
        again.load_state_dict(memory.state_dict())
        assert again.classes == memory.classes and torch.isfinite(again.images).all()


def stored(memory):
    """Images of every class by the experience they came in, as they are kept."""
    return {label: [one.images(PLAIN) for one in memory.sources(label)] for label in memory.classes}


@settings(max_examples=60)
@given(
    STREAMS,
    st.sampled_from([("images_per_class", 6), ("mem_size", 36), ("bytes_per_class", 600), ("mem_bytes", 4000)]),
    st.sampled_from(["random", "dm"]),
    st.sampled_from(["uint8", "png"]),
)
def test_experiences_that_share_a_class_have_equal_parts_along_any_stream(stream, budget, name, store):
    memory, came = ReplayMemory(**dict([budget]), normalization=PLAIN, store=store), {}
    for step, sizes in enumerate(stream):
        if not sizes:
            continue
        before = stored(memory)
        real = RealImages(*experience(sizes, step), PLAIN)
        how = {"seed": 0, "device": CPU, "returning": "share", "keep_whole": True}
        try:
            condense_experience(memory, real, method(name), **how)
        except ValueError as error:  # of a budget in bytes it is known only now; nothing has changed
            assert memory.budget.in_bytes and "too few for one image" in str(error)
            assert stored(memory).keys() == before.keys()
            return
        for label, count in sizes.items():
            came.setdefault(label, []).append(count)
        for label, sources in stored(memory).items():
            assert len(sources) == len(came[label])
            for old, new in zip(before.get(label, []), sources):  # the first of them, and the very same
                assert torch.equal(new, old[: len(new)])
        labels = memory.classes
        if memory.budget.in_bytes:
            share = memory.budget.share(len(labels))
            assert all(slot.bytes <= share for slot in memory.slots.values())
        else:
            quotas = dict(zip(labels, memory.budget.quotas(len(labels))))
            for label, counts in came.items():
                kept = [len(source) for source in memory.sources(label)]
                assert sum(kept) <= quotas[label]
                # An experience has fewer than another, by more than one, only where it had no more images at one time.
                if min(counts) >= max(quotas[label], 6):
                    assert max(kept) - min(kept) <= 1
        again = ReplayMemory(1)
        again.load_state_dict(memory.state_dict())
        assert torch.equal(again.images, memory.images) and again.labels.tolist() == memory.labels.tolist()
        for label in labels:  # fewer images are the first of more, of all experiences alike
            slot, parts = memory.slots[label], len(memory.sources(label))
            fewer = slot.first(max(parts, len(slot) // 2))
            assert torch.equal(fewer.images(PLAIN), slot.images(PLAIN)[: len(fewer)])


@settings(max_examples=40)
@given(
    st.lists(st.dictionaries(LABELS, st.integers(6, 9), min_size=1, max_size=3), min_size=1, max_size=5),
    st.integers(6, 20),
)
def test_a_total_budget_is_shared_evenly_while_classes_are_large_enough(stream, size):
    memory, seen = ReplayMemory(mem_size=size, normalization=PLAIN), set()
    for step, sizes in enumerate(stream):
        sizes = {label: count for label, count in sizes.items() if label not in seen}
        seen |= {*sizes}
        if sizes:
            real = RealImages(*experience({label: 25 for label in sizes}, step), PLAIN)
            condense_experience(memory, real, method("random"), seed=0, device=CPU)
            counts = [len(slot) for slot in memory.slots.values()]
            assert sum(counts) == size and max(counts) - min(counts) <= 1


# ---------------------------------------------------------------- classes that come back


def came_back(name, *, old, new, budget=8, **options):
    """A class of bright pictures that comes back dark."""
    memory = ReplayMemory(budget, normalization=PLAIN)
    bright, dark = pictures(old, 1) // 8 + 224, pictures(new, 2) // 8
    labels = [torch.zeros(n, dtype=torch.int64) for n in (old, new)]
    for images, of in zip((bright, dark), labels):
        condense_experience(
            memory, RealImages(images, of, PLAIN), method(name, **options), seed=0, device=CPU, returning="condense"
        )
    return memory, bright, dark


@pytest.mark.parametrize(("old", "new", "stay"), [(20, 20, 4), (60, 20, 6), (20, 60, 2), (2000, 20, 7), (20, 2000, 0)])
def test_a_selection_holds_as_many_as_stand_for_each_side(old, new, stay):
    memory, bright, dark = came_back("random", old=old, new=new)
    codes = memory.slots[0].codes
    assert int((codes.float().mean((1, 2, 3)) > 128).sum()) == stay
    real = {one.numpy().tobytes() for one in torch.cat([bright, dark])}
    assert all(code.numpy().tobytes() in real for code in codes) and len(codes.flatten(1).unique(dim=0)) == 8
    if 0 < stay < 8:  # whatever is dropped later is of both
        half = memory.slots[0].first(4).codes.float().mean((1, 2, 3)) > 128
        assert abs(int(half.sum()) - stay / 2) <= 1


@pytest.mark.parametrize(("old", "new"), [(24, 24), (72, 24), (24, 72), (400, 20)])
def test_condensing_again_meets_both_sides_by_what_they_stand_for(old, new):
    met = {}

    def mean_of(real, counts, settings, **rest):
        met[len(met)] = {label: real.normalised(label).mean() for label in real.classes}
        return Condensed(
            {label: met[len(met) - 1][label].expand(counts[label], *real.shape).clone() for label in counts}
        )

    memory = ReplayMemory(8, normalization=PLAIN)
    for count, level in ((old, 2.0), (new, -2.0)):
        images = torch.full((count, 1, 8, 8), level)
        real = RealImages(images, torch.zeros(count, dtype=torch.int64))
        configured = ConfiguredMethod.of_callable(mean_of)
        condense_experience(memory, real, configured, seed=0, device=CPU, returning="condense")
    wanted = 2.0 * (old - new) / (old + new)
    assert abs(float(met[1][0]) - wanted) < 0.15
    assert told(memory, 0) == old + new


def test_what_is_worked_on_does_not_grow_with_every_return():
    sizes = []

    def first_images(real, counts, settings, **rest):
        sizes.append(len(real.images))
        return Condensed({label: real.normalised(label)[: counts[label]] for label in counts})

    memory = ReplayMemory(4, normalization=PLAIN)
    for step in range(30):
        real = RealImages(*experience({3: 10}, step), PLAIN)
        configured = ConfiguredMethod.of_callable(first_images)
        condense_experience(memory, real, configured, seed=0, device=CPU, returning="condense")
    assert told(memory, 3) == 300 and max(sizes) <= 10 + 4 * 10 + 4


def test_a_class_out_of_its_task_is_refused():
    memory = ReplayMemory(2, normalization=PLAIN)
    for step, task in enumerate((0, 1)):
        real = RealImages(*experience({5: 6}, step), PLAIN)
        args = {"seed": 0, "device": CPU, "returning": "condense", "task_labels": {5: task}}
        if task:
            with pytest.raises(ValueError, match="class 5 came with task label 0 and comes back with 1"):
                condense_experience(memory, real, method("random"), **args)
        else:
            condense_experience(memory, real, method("random"), **args)


def test_coming_back_is_an_error_unless_it_is_said_what_becomes_of_it():
    memory = ReplayMemory(2, normalization=PLAIN)
    real = RealImages(*experience({5: 6}, 0), PLAIN)
    condense_experience(memory, real, method("random"), seed=0, device=CPU)
    with pytest.raises(ValueError, match="class 5 is in memory already.*returning='condense' or 'keep'"):
        condense_experience(memory, real, method("random"), seed=0, device=CPU)


# ---------------------------------------------------------------- small classes, many classes, few bytes


def test_small_classes_are_kept_whole_and_said_once_an_experience(caplog):
    memory = ReplayMemory(5, normalization=PLAIN)
    images, labels = experience({1: 3, 2: 9, 3: 1}, 0)
    with caplog.at_level(logging.WARNING, "clreplay"):
        real = RealImages(images, labels, PLAIN)
        condense_experience(memory, real, method("dm"), seed=0, device=CPU, keep_whole=True)
    assert [len(memory.slots[label]) for label in (1, 2, 3)] == [3, 5, 1]
    assert torch.equal(memory.slots[1].codes, images[labels == 1]) and memory.slots[1].scale is None
    assert memory.slots[2].scale is not None
    assert [r.getMessage() for r in caplog.records] == ["classes 1, 3: fewer images than the share: kept whole"]


@pytest.mark.parametrize("name", ["random+tiles", "dm+tiles"])
def test_small_classes_are_kept_whole_beside_others_of_many_small_pictures(name):
    images, labels = experience({1: 2, 2: 40, 3: 9}, 0)
    memory = ReplayMemory(3, normalization=PLAIN)
    changes = {"iterations": 1, "width": 2, "depth": 1, "real_batch": 3} if "dm" in name else {}
    configured = load_recipe(name).configured("smoke", changes)
    real = RealImages(images, labels, PLAIN)
    condense_experience(memory, real, configured, seed=0, device=CPU, keep_whole=True)
    assert memory.slots[1].decoding == "none" and torch.equal(memory.slots[1].codes, images[labels == 1])
    assert len(memory.slots[2]) == 3 and memory.slots[2].decoding != "none"
    again = ReplayMemory(1)
    again.load_state_dict(memory.state_dict())
    assert torch.equal(again.images, memory.images)


def test_a_class_too_small_for_one_stored_image_is_never_lost():
    images, labels = experience({1: 2, 2: 40}, 0)
    for budget in ({"images_per_class": 3}, {"mem_bytes": 600}):
        real, configured = RealImages(images, labels, PLAIN), load_recipe("random+tiles").configured("smoke", {})
        memory = ReplayMemory(**budget, normalization=PLAIN)
        match = "class 1 has 2 images, fewer than the 4 that one stored one is made of"
        with pytest.raises(ValueError, match=match):
            condense_experience(memory, real, configured, seed=0, device=CPU)
        condense_experience(memory, real, configured, seed=0, device=CPU, keep_whole=True)
        assert memory.classes == [1, 2] and len(memory.slots[1]) == 2


@pytest.mark.parametrize("classes", [1, 1000])
def test_one_class_and_a_thousand(classes):
    labels = torch.arange(classes).repeat_interleave(3) * 7 + 5
    images = pictures(len(labels), 0)
    memory = condense(images, labels, "random", 2, normalization=PLAIN, device="cpu")
    assert memory.classes == (torch.arange(classes) * 7 + 5).tolist() and len(memory) == 2 * classes
    buffer = ReplayBuffer("random", mem_size=classes, normalization=PLAIN, device="cpu")
    for part in labels.unique().chunk(3):
        rows = torch.isin(labels, part)
        buffer.observe(images[rows], labels[rows])
        buffer.consolidate()
    assert len(buffer) == classes == len(buffer.classes)
    assert torch.equal(buffer.sample(classes)[1].sort()[0], labels.unique())


def test_a_budget_too_small_for_the_classes_says_the_least_that_is_possible():
    images, labels = experience({1: 6, 5: 6, 9: 6}, 0)
    with pytest.raises(ValueError, match=r"mem_size must be at least the number of classes seen \(3\), got 2"):
        condense_experience(
            ReplayMemory(mem_size=2, normalization=PLAIN), RealImages(images, labels, PLAIN), method("random"), seed=0,
            device=CPU,
        )  # fmt: skip
    for name, one in (("random", 64), ("dm", 72)):
        with pytest.raises(ValueError, match=f"too few for one image.*for 3 classes it takes at least {3 * one} bytes"):
            condense(images, labels, name, normalization=PLAIN, mem_bytes=3 * one - 1, device="cpu", preset="smoke")
        small = {"iterations": 1, "width": 2, "depth": 1} if name == "dm" else {}
        memory = condense(
            images, labels, name, normalization=PLAIN, mem_bytes=3 * one, device="cpu", preset="smoke", **small
        )
        assert len(memory) == 3
