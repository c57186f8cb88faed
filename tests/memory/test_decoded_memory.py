"""A memory with classes that are decoded: budget and bytes count what is stored, one trains on what it decodes to."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from memory_helpers import NORMALIZATION, codes, floats
from slow_tiles import tiles_by_hand

from clreplay.analysis.figures import memory_figure
from clreplay.data import ImageSet
from clreplay.memory.decoders import DECODERS, decoder, register_decoder
from clreplay.memory.replay_memory import ReplayMemory


def mixed(**budget):
    """A class of two experiences that store plain images, and one in between that stores tiles."""
    memory = ReplayMemory(normalization=NORMALIZATION, **(budget or {"images_per_class": 2}))
    sizes = memory.quotas_with([7])
    memory.add({7: floats(sizes[7])}, {7: 1})
    sizes = memory.quotas_with([3, 5])
    memory.add({3: floats(sizes[3], seed=1), 5: codes(sizes[5])}, {3: 2, 5: 2}, decoding="tiles2")
    memory.add({1: floats(memory.quotas_with([1])[1], seed=2)}, {1: 3})
    return memory


def test_budget_and_bytes_count_what_is_stored_and_images_are_what_one_trains_on():
    memory, plain = mixed(), ReplayMemory(images_per_class=2, normalization=NORMALIZATION)
    plain.add({7: floats(2), 3: floats(2, seed=1), 5: codes(2), 1: floats(2, seed=2)})
    assert len(memory) == len(plain) == 8
    assert memory.memory_bytes == plain.memory_bytes == 6 * (48 + 24) + 2 * 48
    assert len(memory.images) == len(memory.labels) == len(memory.task_labels) == 2 + 8 + 8 + 2
    assert memory.labels.tolist() == [7] * 2 + [3] * 8 + [5] * 8 + [1] * 2
    assert memory.task_labels.tolist() == [1] * 2 + [2] * 16 + [3] * 2
    assert torch.equal(memory.images, torch.cat([memory.class_images(label) for label in (7, 3, 5, 1)]))
    assert "8 images (20 when decoded) of 4 classes" in repr(memory) and "decoded" not in repr(plain)


def test_a_class_is_decoded_after_its_codes_are():
    memory = mixed()
    for label in (3, 5):
        assert memory.stored_images(label).shape == (2, 3, 4, 4)
        torch.testing.assert_close(
            memory.class_images(label), tiles_by_hand(memory.stored_images(label)), rtol=1e-5, atol=1e-6
        )
    assert torch.equal(memory.stored_images(5), NORMALIZATION.apply(codes(2)))
    assert torch.equal(memory.class_images(7), memory.stored_images(7))


def test_some_classes_come_decoded_with_their_labels():
    images, labels, tasks = mixed().of_classes([1, 3])
    assert labels.tolist() == [3] * 8 + [1] * 2 and tasks.tolist() == [2] * 8 + [3] * 2
    assert torch.equal(images, torch.cat([mixed().class_images(3), mixed().class_images(1)]))


def test_pictures_show_what_is_stored():
    memory = mixed()
    torch.testing.assert_close(memory.pixels(5), codes(2).float() / 255, atol=1e-6, rtol=0)
    real = ImageSet(codes(8), torch.tensor([1, 3, 5, 7] * 2))
    figure = memory_figure({"tiles": memory}, real, class_names=[str(i) for i in range(8)], columns=5)
    widths = [axes.get_window_extent().width for axes in figure.axes]
    assert widths[0] == pytest.approx(widths[1])  # two real ones a class beside two stored ones, not eight


@given(st.integers(4, 19))
def test_a_total_budget_shrinks_stored_images_and_keeps_the_first(size):
    memory = mixed(mem_size=size)
    assert len(memory) == size
    for label, slot in memory.slots.items():
        each = 4 if label in (3, 5) else 1
        assert len(memory.class_images(label)) == each * len(slot) == int((memory.labels == label).sum())
    first = decoder("tiles2")(memory.stored_images(3)[:1])
    assert torch.equal(memory.class_images(3)[:4], first)


@pytest.mark.parametrize(
    ("images", "decoding", "message"),
    [
        (floats(2, size=5), "tiles2", "tiles2 needs images whose height and width are multiples of 2, got 5"),
        (floats(2), "tiles9", "unknown decoding 'tiles9'"),
        (floats(8), "tiles2", "class 0 must bring exactly 2 images, got 8"),
    ],
)
def test_what_cannot_be_decoded_is_refused_and_nothing_changes(images, decoding, message):
    memory = ReplayMemory(images_per_class=2)
    with pytest.raises(ValueError, match=message):
        memory.add({0: images}, decoding=decoding)
    assert memory.classes == []


def test_files_and_states_carry_the_decoding(tmp_path):
    memory, restored = mixed(), ReplayMemory(images_per_class=1)
    memory.save(tmp_path / "m.safetensors")
    restored.load_state_dict(memory.state_dict())
    for other in (ReplayMemory.load(tmp_path / "m.safetensors"), restored):
        assert [slot.decoding for slot in other.slots.values()] == ["none", "tiles2", "tiles2", "none"]
        assert torch.equal(other.images, memory.images) and len(other) == len(memory)


def as_format_1(memory):
    state = memory.state_dict()
    settings = json.loads(state["settings"])
    settings["format"], settings["classes"] = 1, [row[:5] for row in settings["classes"]]
    return {**state, "settings": json.dumps(settings)}


def test_files_of_the_format_before_are_read():
    memory, restored = ReplayMemory(images_per_class=2), ReplayMemory(images_per_class=1)
    memory.add({4: floats(2), 2: floats(2, seed=1)}, {4: 3}, {4: "four"})
    restored.load_state_dict(as_format_1(memory))
    assert {slot.decoding for slot in restored.slots.values()} == {"none"}
    assert torch.equal(restored.images, memory.images) and restored.slots[4].key == "four"
    assert restored.task_labels.tolist() == [3, 3, 0, 0]


def test_a_file_whose_decoder_is_not_known_here_is_refused(tables):
    register_decoder("mine")(lambda stored: stored.flip(3))
    memory, other = ReplayMemory(images_per_class=2), ReplayMemory(images_per_class=1)
    memory.add({0: floats(2)}, decoding="mine")
    state = memory.state_dict()
    del DECODERS["mine"]
    with pytest.raises(ValueError, match="unknown decoding 'mine'.*load the recipe"):
        other.load_state_dict(state)
    assert other.classes == [] and other.images_per_class == 1
