"""ReplayMemory: quotas, coding, honest bytes, and files."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from clreplay.data import NORMALIZATIONS
from clreplay.memory.replay_memory import ReplayMemory, Slot, class_quotas, decode, encode

NORMALIZATION = NORMALIZATIONS["cifar10"]


def floats(n, channels=3, size=4, seed=0, spread=3.0):
    return spread * torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(seed))


def codes(n, channels=3, size=4, seed=0):
    chance = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, size, size), generator=chance, dtype=torch.uint8)


# ---------------------------------------------------------------- quotas


@given(st.integers(1, 40), st.integers(0, 400))
def test_a_total_budget_is_spent_whole_and_evenly(classes, more):
    quotas = class_quotas(classes, None, classes + more)
    assert sum(quotas) == classes + more
    assert max(quotas) - min(quotas) <= 1
    assert min(quotas) >= 1
    assert quotas == sorted(quotas, reverse=True)  # the earlier classes get the remainder


@given(st.integers(2, 40), st.integers(0, 400))
def test_no_quota_grows_as_classes_arrive(classes, more):
    before, after = class_quotas(classes - 1, None, classes + more), class_quotas(classes, None, classes + more)
    assert all(late <= early for early, late in zip(before, after))


@given(st.integers(0, 40), st.integers(1, 50))
def test_a_fixed_quota_is_the_same_for_every_class(classes, each):
    assert class_quotas(classes, each, None) == [each] * classes


def test_a_budget_smaller_than_the_classes_is_an_error():
    with pytest.raises(ValueError, match=r"mem_size must be at least the number of classes seen \(3\), got 2; "):
        class_quotas(3, None, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give either images_per_class or mem_size"),
        ({"images_per_class": 2, "mem_size": 9}, "give either images_per_class or mem_size"),
        ({"images_per_class": 0}, "images_per_class must be an integer of at least 1, got 0"),
        ({"mem_size": -3}, "mem_size must be an integer of at least 1, got -3"),
        ({"images_per_class": 2.0}, "images_per_class must be an integer.*2.0"),
        ({"images_per_class": True}, "images_per_class must be an integer.*True"),
        ({"images_per_class": 1, "store": "uint16"}, "store must be uint8 or float32, got 'uint16'"),
    ],
)
def test_a_wrong_budget_or_store_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ReplayMemory(**arguments)


# ---------------------------------------------------------------- coding


def slow_decode(images):
    """Code and decode one value at a time, in float64."""
    result = np.empty(images.shape)
    for i, c in itertools.product(range(images.shape[0]), range(images.shape[1])):
        low, high = float(images[i, c].min()), float(images[i, c].max())
        step = (high - low) / 255
        for y, x in itertools.product(range(images.shape[2]), range(images.shape[3])):
            value = float(images[i, c, y, x])
            code = round((value - low) / step) if step else 0
            assert 0 <= code <= 255
            result[i, c, y, x] = code * step + low
    return result


def test_coding_equals_the_formula():
    images = floats(3)
    found = decode(*encode(images)).double().numpy()
    np.testing.assert_allclose(found, slow_decode(images), atol=1e-5)


float32s = st.floats(-50, 50, width=32)


@given(st.lists(float32s, min_size=9, max_size=9), st.sampled_from([1e-3, 1.0, 10.0, 1e4]))
def test_coding_errs_by_at_most_half_a_step_and_never_clips(values, factor):
    images = torch.tensor(values).view(1, 1, 3, 3) * factor
    stored, scale, offset = encode(images)
    assert stored.dtype == torch.uint8 and scale.dtype == offset.dtype == torch.float32
    assert scale.shape == offset.shape == (1, 1)
    step = float(images.double().max() - images.double().min()) / 255
    slack = 4 * torch.finfo(torch.float32).eps * float(images.abs().max())
    decoded = decode(stored, scale, offset).double()
    assert float((decoded - images.double()).abs().max()) <= step / 2 * (1 + 1e-4) + slack
    assert float(decoded.max() - images.double().max()) == pytest.approx(0, abs=slack)
    assert float(decoded.min() - images.double().min()) == pytest.approx(0, abs=slack)


@pytest.mark.parametrize("value", [0.0, -2.7, 10.0, 1e6])
def test_a_constant_channel_comes_back_exactly(value):
    images = floats(2)
    images[1, 2] = value
    decoded = decode(*encode(images))
    assert torch.equal(decoded[1, 2], images[1, 2])
    assert torch.isfinite(decoded).all()


def test_every_image_and_channel_is_coded_by_its_own_range():
    images = floats(2)
    images[0, 0] *= 1000
    decoded = decode(*encode(images))
    error = (decoded - images).abs().amax((2, 3))
    assert error[0, 0] > 0.5
    error[0, 0] = 0
    assert error.max() < 0.1


# ---------------------------------------------------------------- filling


def check_invariants(memory):
    counts = {label: len(slot) for label, slot in memory.slots.items()}
    assert len(memory) == sum(counts.values()) == len(memory.images) == len(memory.labels) == len(memory.task_labels)
    assert {label: int((memory.labels == label).sum()) for label in counts} == counts
    if memory.mem_size is not None:
        assert len(memory) <= memory.mem_size
    assert min(counts.values()) >= 1
    assert max(counts.values()) - min(counts.values()) <= 1


def arriving(memory, classes):
    quotas = memory.quotas_with(classes)
    return {label: floats(quotas[label], seed=label) for label in classes}


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


# ---------------------------------------------------------------- what cannot be added


def full():
    memory = ReplayMemory(mem_size=6)
    memory.add(arriving(memory, [0, 1]))
    return memory


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
    memory = full()
    before = memory.images.clone()
    with pytest.raises(ValueError, match=message):
        memory.add(images)
    assert memory.classes == [0, 1] and torch.equal(memory.images, before)


def test_one_bad_class_keeps_the_good_ones_of_its_experience_out():
    memory = ReplayMemory(images_per_class=2)
    with pytest.raises(ValueError, match="class 1 must bring exactly 2"):
        memory.add({0: floats(2), 1: floats(1)})
    assert memory.classes == []


# ---------------------------------------------------------------- state and files


def mixed():
    """Condensed and real classes, with everything a memory can carry."""
    memory = ReplayMemory(mem_size=7, normalization=NORMALIZATION)
    memory.add({9: floats(4), -1: codes(3)}, {9: 2}, {9: "nine", -1: "minus"}, [{"iteration": 1, "loss": 0.5}])
    memory.info = {"dataset": "cifar10", "method": "ddm"}
    return memory


def assert_equal_memories(one, other):
    assert (one.images_per_class, one.mem_size, one.store) == (other.images_per_class, other.mem_size, other.store)
    assert one.normalization == other.normalization
    assert one.classes == other.classes and one.record == other.record and one.info == other.info
    for mine, theirs in zip(one.slots.values(), other.slots.values()):
        assert (mine.task_label, mine.key) == (theirs.task_label, theirs.key)
        for a, b in ((mine.codes, theirs.codes), (mine.scale, theirs.scale), (mine.offset, theirs.offset)):
            assert (a is None and b is None) or (a.dtype == b.dtype and torch.equal(a, b))
    assert torch.equal(one.images, other.images)


def test_a_file_gives_the_same_memory_back(tmp_path):
    memory = mixed()
    path = tmp_path / "new folder" / "memory.safetensors"
    memory.save(path)
    loaded = ReplayMemory.load(path, dataset="cifar10")
    assert_equal_memories(loaded, memory)
    loaded.add({4: floats(2)})  # and it can go on
    assert [len(slot) for slot in loaded.slots.values()] == [3, 2, 2]
    assert [file.name for file in path.parent.iterdir()] == ["memory.safetensors"]


@pytest.mark.parametrize("store", ["uint8", "float32"])
def test_a_file_keeps_the_store(store, tmp_path):
    memory = ReplayMemory(images_per_class=2, store=store)
    memory.add({0: floats(2)})
    memory.save(tmp_path / "m.safetensors")
    assert_equal_memories(ReplayMemory.load(tmp_path / "m.safetensors"), memory)


def test_a_state_gives_the_same_memory_back_and_shares_nothing():
    memory, other = mixed(), ReplayMemory(images_per_class=1)
    state = memory.state_dict()
    other.load_state_dict(state)
    for name, tensor in state.items():
        if name != "settings":
            tensor.zero_()
    assert_equal_memories(other, mixed())


def test_the_same_memory_gives_the_same_file_bytes(tmp_path):
    for name in ("a", "b"):
        mixed().save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_an_error_that_names_it(keep, tmp_path):
    path = tmp_path / "m.safetensors"
    mixed().save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="m.safetensors is truncated or not a safetensors file.*delete it"):
        ReplayMemory.load(path)


def test_a_file_of_something_else_is_an_error(tmp_path):
    (tmp_path / "notes.safetensors").write_text("these are not the tensors you are looking for, " * 9)
    with pytest.raises(ValueError, match="notes.safetensors is truncated or not a safetensors file"):
        ReplayMemory.load(tmp_path / "notes.safetensors")
    save_file({"weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="model.safetensors is a safetensors file but not a replay memory"):
        ReplayMemory.load(tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError, match="no memory at .*absent"):
        ReplayMemory.load(tmp_path / "absent")


def test_a_memory_of_another_data_set_is_an_error(tmp_path):
    mixed().save(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="is a memory of 'cifar10', not of 'cifar100'; pass the file of that data set"):
        ReplayMemory.load(tmp_path / "m.safetensors", dataset="cifar100")


def spoiled(change):
    state = mixed().state_dict()
    settings = json.loads(state["settings"])
    change(state, settings)
    state["settings"] = json.dumps(settings)
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state, settings: state.pop("9.scale"), "the memory lacks 9.scale; it is incomplete"),
        (lambda state, settings: state.update({"9.codes": state["9.codes"][:3]}), "class 9 .* must have 4 images"),
        (lambda state, settings: state.update({"9.offset": state["9.offset"][:, :2]}), r"class 9 .*\(4, 2\)"),
        (lambda state, settings: settings.update(format=3), "memory format 3 is not one of 1 to 2; update"),
    ],
    ids=["lacks", "fewer", "misshapen", "format"],
)
def test_a_state_that_does_not_fit_changes_nothing(change, message):
    memory = ReplayMemory(images_per_class=1)
    memory.add({0: floats(1)})
    with pytest.raises(ValueError, match=message):
        memory.load_state_dict(spoiled(change))
    assert memory.images_per_class == 1 and memory.classes == [0]


def test_a_failed_write_leaves_the_old_file_and_no_trace(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    mixed().save(path)
    before = path.read_bytes()

    def full_disk(tensors, filename, metadata):
        save_file(tensors, filename, metadata)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        full().save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_holds_what_memory_bytes_counts(tmp_path):
    memory = mixed()
    memory.save(tmp_path / "m.safetensors")
    tensors = load_file(tmp_path / "m.safetensors").values()
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) == memory.memory_bytes


def test_a_slot_is_not_changed_by_asking_for_more_than_it_has():
    slot = Slot(codes(2), None, None)
    assert slot.first(2) is slot and slot.first(5) is slot and len(slot.first(1)) == 1
