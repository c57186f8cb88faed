"""Memories in every store: what one trains on, what is counted and saved, and how a class shrinks."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_helpers import NORMALIZATION, codes, floats
from PIL import Image
from safetensors import safe_open

from clreplay.data import Normalization
from clreplay.memory.codecs import CODECS, SIDE
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.memory.stores import STORES, find_store

LOSSLESS = ["uint8", "float32", "png"]


def memory_of(store, quality=None, **budget):
    return ReplayMemory(
        **(budget or {"images_per_class": 6}), normalization=NORMALIZATION, store=store, quality=quality
    )


def filled(store, **options):
    """A class of real and a class of condensed images."""
    memory = memory_of(store, **options)
    memory.add({1: codes(6, size=8), 2: floats(6, size=8)})
    return memory


@pytest.mark.parametrize("store", STORES)
def test_every_store_gives_images_to_train_on_that_are_near_what_was_put_in(store):
    memory, real, condensed = filled(store), NORMALIZATION.apply(codes(6, size=8)), floats(6, size=8)
    errors = [(memory.class_images(label) - images).abs() for label, images in ((1, real), (2, condensed))]
    if store in LOSSLESS:
        assert errors[0].max() == 0
    if store == "float32":
        assert errors[1].max() == 0
    ranges = [images.amax((2, 3)) - images.amin((2, 3)) for images in (real, condensed)]
    levels = {"uint8": 255, "png": 255, "4bit": 15, "2bit": 3}.get(store)
    for error, span in zip(errors, ranges):
        if levels and (store != "png" or span is ranges[0]):
            assert (error.amax((2, 3)) <= span / levels / 2 + 1e-5).all()
        assert error.mean() < 0.2 * span.mean()  # noise, which no codec was made for
    assert memory.images.shape == (12, 3, 8, 8) and memory.images.dtype == torch.float32


def test_coded_condensed_images_keep_their_contrast_beside_one_another():
    """A class has one range: an image that is ten times flatter comes back ten times flatter."""
    images = floats(4, size=8)
    images[1] /= 10
    memory = memory_of("png", images_per_class=4)
    memory.add({0: images})
    found = memory.class_images(0)
    step = (images.amax((0, 2, 3)) - images.amin((0, 2, 3))) / 255
    assert ((found - images).abs().amax((0, 2, 3)) <= step / 2 + 1e-5).all()
    assert found[1].std() / found[0].std() == pytest.approx((images[1].std() / images[0].std()).item(), rel=0.05)
    assert memory.slots[0].scale.shape == (3,)


@pytest.mark.parametrize("store", STORES)
def test_bytes_are_those_of_all_tensors_that_are_saved(store, tmp_path):
    memory = filled(store)
    memory.save(tmp_path / "m.safetensors")
    with safe_open(str(tmp_path / "m.safetensors"), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    assert memory.memory_bytes == sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    expected = {"uint8": 6 * 192 * 2 + 6 * 24, "4bit": 12 * (96 + 24), "2bit": 12 * (48 + 24), "float32": 6 * 192 * 5}
    assert memory.memory_bytes == expected.get(store, memory.memory_bytes)


@pytest.mark.parametrize("store", STORES)
def test_a_file_gives_the_same_memory_back_and_it_goes_on(store, tmp_path):
    quality = 40 if store in ("jpeg", "webp", "avif") else None
    memory = memory_of(store, quality, mem_size=12)
    memory.add({1: codes(6, size=8), 2: floats(6, size=8)})
    memory.save(tmp_path / "m.safetensors")
    loaded = ReplayMemory.load(tmp_path / "m.safetensors")
    assert (loaded.store, loaded.quality) == (store, quality) and torch.equal(loaded.images, memory.images)
    for one in (memory, loaded):
        one.add({7: codes(4, size=8, seed=3)})
    assert torch.equal(loaded.images, memory.images) and loaded.memory_bytes == memory.memory_bytes


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(STORES), st.integers(1, 2 * SIDE**2 + 5), st.integers(1, 2 * SIDE**2 + 5))
def test_a_class_that_shrinks_keeps_its_first_images_as_they_were(store, count, kept):
    """Nothing is coded a second time: what is left is bit for bit what it was, and never larger."""
    memory = memory_of(store, images_per_class=count)
    memory.add({0: codes(count, size=4), 1: floats(count, size=4)})
    for slot in memory.slots.values():
        less, images = slot.first(kept), slot.images(NORMALIZATION)
        assert len(less) == min(kept, count) and torch.equal(less.images(NORMALIZATION), images[: len(less)])
        assert less.bytes <= slot.bytes
        less.store.check(less.parts, len(less), less.shape, "it")
    mosaics = -(-kept // SIDE**2) < -(-count // SIDE**2)
    if store not in CODECS and kept < count or store in CODECS and mosaics:
        assert less.bytes < slot.bytes


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("store", sorted(CODECS))
def test_a_coded_file_opens_with_safetensors_and_pillow_alone(store, channels, tmp_path):
    normalization = NORMALIZATION if channels == 3 else Normalization((0.5,), (0.25,))
    memory = ReplayMemory(images_per_class=70, normalization=normalization, store=store)
    memory.add({4: codes(70, channels, 8)})
    memory.save(tmp_path / "m.safetensors")
    with safe_open(str(tmp_path / "m.safetensors"), framework="np") as file:
        lengths, counts = file.get_tensor("4.lengths"), file.get_tensor("4.pictures")
        data, start, pictures = file.get_tensor("4.mosaics").tobytes(), 0, []
        assert json.loads(file.metadata()["clreplay"])["store"] == store
    assert counts.tolist() == [SIDE**2, 70 - SIDE**2]
    for length, count in zip(lengths.tolist(), counts.tolist()):
        image = np.array(Image.open(io.BytesIO(data[start : start + length])).convert("L" if channels == 1 else "RGB"))
        start += length
        image = image.reshape(*image.shape[:2], channels)
        for place in range(count):
            row, column = divmod(place, SIDE)
            pictures.append(image[8 * row : 8 * row + 8, 8 * column : 8 * column + 8].transpose(2, 0, 1))
    assert start == len(data)
    found = memory.normalization.apply(torch.from_numpy(np.stack(pictures)))
    assert torch.equal(found, memory.images)


# ---------------------------------------------------------------- what does not fit


def spoiled(memory, change):
    state = memory.state_dict()
    parsed = json.loads(state["settings"])
    change(state, parsed)
    return {**state, "settings": json.dumps(parsed)}


def larger(name, by=1):
    return lambda state, parsed: state.update({name: state[name] + by})


@pytest.mark.parametrize(
    ("store", "change", "message"),
    [
        ("avif", larger("1.lengths"), r"class 1 of the memory must have a mosaics of"),
        ("avif", larger("1.pictures", 60), "must have 6 images, its mosaics say 66; it is damaged"),
        ("avif", lambda s, p: s.update({"1.lengths": s["1.lengths"].float()}), "must have a lengths of .* int32"),
        ("webp", lambda s, p: s.update({"2.scale": s["2.scale"][:2]}), r"must have a scale of \(3,\) float32"),
        ("2bit", lambda s, p: s.update({"1.packed": s["1.packed"][:, :, 1:]}), r"must have a packed of \(6, 3, 16\)"),
        ("2bit", lambda s, p: p.update(store="uint8"), "has offset, packed, scale, which its store does not keep"),
        ("uint8", lambda s, p: p.update(store="bmp"), "store must be one of"),
        ("png", lambda s, p: s.pop("1.mosaics"), "the memory lacks 1.mosaics; it is incomplete"),
    ],
    ids=["lengths", "pictures", "dtype", "range", "packed", "names", "store", "missing"],
)
def test_a_state_whose_parts_do_not_fit_is_refused_before_anything_is_decoded(store, change, message):
    memory = ReplayMemory(images_per_class=1)
    with pytest.raises(ValueError, match=message):
        memory.load_state_dict(spoiled(filled(store), change))
    assert memory.classes == [] and memory.store == "uint8"


def test_a_mosaic_of_other_pictures_than_the_memory_says_is_refused_when_it_is_decoded():
    memory = ReplayMemory(images_per_class=1)
    memory.load_state_dict(spoiled(filled("avif"), larger("1.pictures")))
    with pytest.raises(ValueError, match="must be 56 x 8 pixels for 7 pictures of 8 x 8, its header says 48 x 8"):
        memory.images


def test_channels_are_asked_for_before_any_work():
    memory = memory_of("avif")
    memory.check_channels(1)
    with pytest.raises(ValueError, match="store 'avif' codes pictures of 1 or 3 channels, got 4"):
        memory.check_channels(4)
    memory_of("2bit").check_channels(4)


def test_a_quality_belongs_to_codecs():
    with pytest.raises(ValueError, match="quality belongs to the stores png, jpeg, webp, avif, got it for '4bit'"):
        find_store("4bit", 50)


def test_the_documentation_s_way_to_read_a_file_gives_its_pictures(tmp_path, monkeypatch):
    page = (Path(__file__).resolve().parents[2] / "docs" / "memory_file.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    memory = ReplayMemory(images_per_class=70, normalization=NORMALIZATION, store="webp")
    memory.add({5: codes(70, size=8)})
    memory.save(tmp_path / "memory.safetensors")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    pictures = torch.from_numpy(names["pictures"]).permute(0, 3, 1, 2)
    assert torch.equal(NORMALIZATION.apply(pictures), memory.images)
