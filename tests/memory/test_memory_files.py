"""State and files of a memory: the same memory comes back, and nothing damaged passes."""

import json

import pytest
import torch
from memory_helpers import NORMALIZATION, codes, floats, full_memory
from safetensors.torch import load_file, save_file

from clreplay.memory.replay_memory import ReplayMemory


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
    with pytest.raises(
        ValueError, match="m.safetensors is damaged: it is truncated or not a safetensors file.*restore it"
    ):
        ReplayMemory.load(path)


def test_a_file_of_something_else_is_an_error(tmp_path):
    (tmp_path / "notes.safetensors").write_text("these are not the tensors you are looking for, " * 9)
    with pytest.raises(ValueError, match="notes.safetensors is damaged: it is truncated or not a safetensors file"):
        ReplayMemory.load(tmp_path / "notes.safetensors")
    save_file({"weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="model.safetensors is a safetensors file but not a replay memory"):
        ReplayMemory.load(tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError, match="no memory at .*absent"):
        ReplayMemory.load(tmp_path / "absent")


def test_of_a_folder_its_only_memory_is_taken_and_of_several_all_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no memory at .*: it has neither memory.safetensors, nor"):
        ReplayMemory.load(tmp_path)
    memory = mixed()
    memory.save(tmp_path / "memory-ddm.safetensors")
    assert torch.equal(ReplayMemory.load(tmp_path).images, memory.images)
    memory.save(tmp_path / "memory-dm.safetensors")
    with pytest.raises(ValueError, match="several memories; pass one of memory-ddm.safetensors, memory-dm.safetensors"):
        ReplayMemory.load(tmp_path)


@pytest.mark.parametrize("look", ["pixels", "class_images", "stored_images"])
def test_a_class_that_is_not_there_is_told_with_those_that_are(look):
    with pytest.raises(KeyError, match=r"class 77 is not in the memory, which has \[9, -1\]"):
        getattr(mixed(), look)(77)


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
        (lambda state, settings: settings.update(format=7), "memory format 7 is not one of 1 to 6; update"),
        (lambda state, settings: settings.update(mem_size=6), "class 9 .* has 4 images, its budget of 6 .* gives it 3"),
        (lambda state, settings: settings.update(mem_size=1), "mem_size must be at least the number of classes"),
        (lambda state, settings: settings.update(mem_size=-7), "mem_size must be an integer of at least 1, got -7"),
        (lambda state, settings: settings.update(mem_size=None, mem_bytes=90), "class 9 .* bytes, its budget of 90"),
        (lambda state, settings: settings.update(store="pickle"), "pickle"),
        (lambda state, settings: settings.update(classes=[]), "-1.codes, 9.codes, .* of no class that it names"),
        (lambda state, settings: settings["classes"].append(settings["classes"][0]), r"classes \[9\] are .* twice"),
        (lambda state, settings: state["9.scale"].fill_(float("nan")), "9.scale of the memory holds NaN or infinity"),
        (lambda state, settings: settings.update(normalization=None), "class -1 .* has pixel codes, and no normal"),
        (lambda state, settings: settings["classes"][0].__setitem__(3, 0), "class 9 .* 1 image or more, got 0"),
        (lambda state, settings: settings.pop("classes"), "the settings are not those of a memory .KeyError"),
        (lambda state, settings: settings.update(classes=3), "the settings are not those of a memory .TypeError"),
        (lambda state, settings: settings.update(record=3), "the record or the info of the memory is something else"),
    ],
    ids="lacks fewer misshapen format budget classes negative bytes store leftover twice nan normalization none "
    "no-classes number record".split(),
)
def test_a_state_that_does_not_fit_changes_nothing(change, message):
    memory = ReplayMemory(images_per_class=1)
    memory.add({0: floats(1)})
    with pytest.raises(ValueError, match=message):
        memory.load_state_dict(spoiled(change))
    assert memory.images_per_class == 1 and memory.classes == [0]


@pytest.mark.parametrize("settings", ["[1, 2]", "3", "null", "{", "[" * 200_000, '{"format": "x"}', "\ud800"])
def test_settings_of_something_else_are_told_with_the_file(settings, tmp_path):
    tensors = {"0.codes": torch.zeros(1, 3, 4, 4, dtype=torch.uint8)}
    path = tmp_path / "m.safetensors"
    save_file(tensors, path, metadata={"clreplay": settings.encode("ascii", "replace").decode()})
    with pytest.raises(ValueError, match="m.safetensors: the settings are not those of a memory .*damaged"):
        ReplayMemory.load(path)


def test_a_flipped_bit_is_told_by_the_checksum(tmp_path):
    path = tmp_path / "m.safetensors"
    mixed().save(path)
    whole = path.read_bytes()
    for place in (len(whole) - 1, len(whole) // 2, whole.index(b"images_per_class") + 25):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="m.safetensors is damaged: .*; restore it from a copy, or delete it"):
            ReplayMemory.load(path)


def test_a_file_of_before_checksums_is_read(tmp_path):
    state = mixed().state_dict()
    settings = state.pop("settings")
    save_file(state, tmp_path / "m.safetensors", {"clreplay": settings})
    assert ReplayMemory.load(tmp_path / "m.safetensors").state_dict()["settings"] == settings


def test_a_failed_write_leaves_the_old_file_and_no_trace(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    mixed().save(path)
    before = path.read_bytes()

    def full_disk(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="m.safetensors cannot be written .no space left on device.; make room on that"):
        full_memory().save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_holds_what_memory_bytes_counts(tmp_path):
    memory = mixed()
    memory.save(tmp_path / "m.safetensors")
    tensors = load_file(tmp_path / "m.safetensors")
    stored = [tensor for name, tensor in tensors.items() if not name.startswith("record.")]
    assert sum(tensor.numel() * tensor.element_size() for tensor in stored) == memory.memory_bytes
    assert set(tensors) - {"record.0.iteration", "record.0.loss"} == {"-1.codes", "9.codes", "9.offset", "9.scale"}
