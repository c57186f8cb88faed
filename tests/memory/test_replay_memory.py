"""ReplayMemory: how it fills, what it holds, honest bytes, decoded images, and what it refuses."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from memory_helpers import NORMALIZATION, arriving, codes, floats, full_memory

from clreplay.memory.replay_memory import ReplayMemory

# ---------------------------------------------------------------- filling


def check_invariants(memory):
    counts = {label: len(slot) for label, slot in memory.slots.items()}
    assert len(memory) == sum(counts.values()) == len(memory.images) == len(memory.labels) == len(memory.task_labels)
    assert {label: int((memory.labels == label).sum()) for label in counts} == counts
    if memory.mem_size is not None:
        assert len(memory) <= memory.mem_size
    assert min(counts.values()) >= 1
    assert max(counts.values()) - min(counts.values()) <= 1


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 20), st.permutations(range(20)))
def test_a_total_budget_shrinks_old_classes_to_their_first_images(experiences, more, order):
    memory = ReplayMemory(mem_size=sum(experiences) + more)
    labels = iter(order)
    for size in experiences:
        new = list(itertools.islice(labels, size))
        before = {label: memory.class_images(label) for label in memory.classes}
        memory.add(arriving(memory, new))
        check_invariants(memory)
        assert len(memory) == memory.mem_size
        assert memory.classes == [*before, *new]
        for label, images in before.items():
            assert torch.equal(memory.class_images(label), images[: len(memory.slots[label])])


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 5))
def test_a_fixed_quota_leaves_old_classes_untouched(experiences, each):
    memory = ReplayMemory(images_per_class=each)
    labels = iter(range(20))
    for size in experiences:
        before = dict(memory.slots)
        memory.add(arriving(memory, list(itertools.islice(labels, size))))
        check_invariants(memory)
        assert all(memory.slots[label] is slot for label, slot in before.items())
    assert {len(slot) for slot in memory.slots.values()} == {each}


def test_a_shrunk_class_lets_its_dropped_images_go():
    memory = ReplayMemory(mem_size=8)
    memory.add(arriving(memory, [0]))
    memory.add(arriving(memory, [1]))
    assert memory.slots[0].codes.untyped_storage().nbytes() == 4 * 48
    assert memory.slots[0].scale.untyped_storage().nbytes() == 4 * 12


def test_classes_stand_in_the_order_of_arrival_with_their_task_labels_and_keys():
    memory = ReplayMemory(images_per_class=2)
    memory.add({7: floats(2, seed=7), 3: floats(2, seed=3)}, {7: 1, 3: 1}, {7: "seven"}, [{"iteration": 1}])
    memory.add({5: floats(2, seed=5)})
    assert memory.classes == [7, 3, 5]
    assert memory.labels.tolist() == [7, 7, 3, 3, 5, 5] and memory.labels.dtype == torch.int64
    assert memory.task_labels.tolist() == [1, 1, 1, 1, 0, 0]
    assert [slot.key for slot in memory.slots.values()] == ["seven", "", ""]
    assert memory.record == [{"iteration": 1}]
    assert torch.equal(memory.images[2:4], memory.class_images(3))
    assert "6 images of 3 classes" in repr(memory)


def test_some_classes_can_be_asked_for():
    memory = ReplayMemory(images_per_class=2)
    memory.add({label: floats(2, seed=label) for label in (7, 3, 5)}, {5: 4})
    images, labels, task_labels = memory.of_classes([5, 7])
    assert labels.tolist() == [7, 7, 5, 5] and task_labels.tolist() == [0, 0, 4, 4]
    assert torch.equal(images, torch.cat([memory.class_images(7), memory.class_images(5)]))


def test_an_empty_memory_has_no_images():
    memory = ReplayMemory(images_per_class=2)
    assert len(memory) == memory.memory_bytes == 0 and memory.labels.tolist() == []
    with pytest.raises(ValueError, match="the memory is empty; add a class first"):
        memory.images


def test_images_follow_what_is_added():
    memory = ReplayMemory(images_per_class=1)
    memory.add({0: floats(1)})
    assert len(memory.images) == 1
    memory.add({1: floats(1)})
    assert len(memory.images) == 2


# ---------------------------------------------------------------- real images, pictures, bytes


def test_real_images_keep_their_pixel_code_and_cost_nothing_extra():
    memory = ReplayMemory(images_per_class=2, normalization=NORMALIZATION)
    images = codes(2, size=32)
    memory.add({0: images})
    assert torch.equal(memory.slots[0].codes, images)
    assert torch.equal(memory.images, NORMALIZATION.apply(images))
    assert memory.memory_bytes == 2 * 3072
    images.zero_()  # the memory holds its own copy
    assert memory.slots[0].codes.any()


def test_condensed_images_cost_24_bytes_more():
    memory = ReplayMemory(images_per_class=5)
    memory.add({0: floats(5, size=32), 1: floats(5, size=32)})
    assert memory.memory_bytes == 10 * (3072 + 24)


def test_floats_cost_four_times_the_bytes_and_come_back_exactly():
    memory = ReplayMemory(images_per_class=5, store="float32")
    images = floats(5, size=32)
    memory.add({0: images})
    assert torch.equal(memory.images, images)
    assert memory.memory_bytes == 5 * 4 * 3072


def test_real_images_stay_pixel_codes_in_a_memory_that_stores_floats():
    memory = ReplayMemory(images_per_class=2, store="float32", normalization=NORMALIZATION)
    memory.add({0: codes(2)})
    assert torch.equal(memory.images, NORMALIZATION.apply(codes(2)))


def test_pictures_are_within_zero_and_one():
    memory = ReplayMemory(images_per_class=2, normalization=NORMALIZATION)
    memory.add({0: codes(2), 1: floats(2, spread=10.0)})
    torch.testing.assert_close(memory.pixels(0), codes(2).float() / 255, atol=1e-6, rtol=0)
    assert memory.pixels(1).min() == 0 and memory.pixels(1).max() == 1
    plain = ReplayMemory(images_per_class=2)
    plain.add({0: floats(2, spread=10.0)})
    assert torch.equal(plain.pixels(0).amin((1, 2, 3)), torch.zeros(2))
    torch.testing.assert_close(plain.pixels(0).amax((1, 2, 3)), torch.ones(2))


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give either images_per_class or mem_size or"),
        ({"images_per_class": 2, "mem_size": 9}, "give either images_per_class or mem_size or"),
        ({"images_per_class": 0}, "images_per_class must be an integer of at least 1, got 0"),
        ({"mem_size": -3}, "mem_size must be an integer of at least 1, got -3"),
        ({"images_per_class": 2.0}, "images_per_class must be an integer.*2.0"),
        ({"images_per_class": True}, "images_per_class must be an integer.*True"),
        ({"images_per_class": 1, "store": "uint16"}, "store must be one of uint8, float32, .*, got 'uint16'"),
    ],
)
def test_a_wrong_budget_or_store_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ReplayMemory(**arguments)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({1: floats(2)}, "class 1 is in memory already.*merge the experiences"),
        ({2: floats(3)}, "class 2 must bring exactly 2 images, got 3"),
        ({2: floats(1)}, "class 2 must bring exactly 2 images, got 1"),
        ({label: floats(1) for label in range(2, 8)}, r"mem_size must be at least .*\(8\), got 6"),
        ({2: floats(2) / 0.0}, "class 2 brings images with NaN or infinity; lower lr_img"),
        ({2: torch.full((2, 3, 4, 4), float("nan"))}, "class 2 brings images with NaN or infinity"),
        ({2: codes(2)}, "a memory of uint8 pixel codes needs its normalization"),
        ({2: floats(2, size=8)}, r"class 2 brings images of shape \(3, 8, 8\), the memory holds \(3, 4, 4\)"),
        ({2: floats(2, channels=1)}, r"class 2 brings images of shape \(1, 4, 4\), the memory holds \(3, 4, 4\)"),
    ],
    ids=["again", "more", "fewer", "budget", "inf", "nan", "codes", "size", "channels"],
)
def test_what_cannot_be_added_changes_nothing(images, message):
    memory = full_memory()
    before = memory.images.clone()
    with pytest.raises(ValueError, match=message):
        memory.add(images)
    assert memory.classes == [0, 1] and torch.equal(memory.images, before)


def test_one_bad_class_keeps_the_good_ones_of_its_experience_out():
    memory = ReplayMemory(images_per_class=2)
    with pytest.raises(ValueError, match="class 1 must bring exactly 2"):
        memory.add({0: floats(2), 1: floats(1)})
    assert memory.classes == []
