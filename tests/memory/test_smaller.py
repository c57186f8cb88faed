"""Pictures kept smaller than they are trained on, and the quality that is chosen by the budget."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_helpers import NORMALIZATION, codes, floats
from safetensors import safe_open
from slow_tiles import enlarged_by_hand

from clreplay import condense
from clreplay.incremental.cli import continual_parser, continual_settings
from clreplay.incremental.plan import default_folder, plan_experiment
from clreplay.memory.codecs import CODECS
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.memory.smaller import shrink
from clreplay.memory.stores import LOWEST, MORE_IMAGES, STORES, best_quality, bytes_of, encode_finest, find_store


def smooth(n, size=16, seed=0):
    """Pictures that a codec can code well."""
    chance = torch.Generator().manual_seed(seed)
    small = torch.randint(0, 256, (n, 3, 4, 4), generator=chance, dtype=torch.uint8).float()
    return torch.nn.functional.interpolate(small, (size, size), mode="bilinear").round().to(torch.uint8)


def memory_of(store, pixels=4, quality=None, **budget):
    budget = budget or {"images_per_class": 5}
    return ReplayMemory(**budget, normalization=NORMALIZATION, store=store, quality=quality, pixels=pixels)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("images", [codes(3, size=8), floats(3, size=8)], ids=["codes", "floats"])
def test_a_smaller_pixel_is_the_mean_of_those_it_covers(images, size):
    found, block = shrink(images, size, size), 8 // size
    for n in range(3):
        for y in range(size):
            for x in range(size):
                covered = images[n, :, y * block : (y + 1) * block, x * block : (x + 1) * block].double().mean((1, 2))
                expected = covered.round() if images.dtype == torch.uint8 else covered
                torch.testing.assert_close(found[n, :, y, x].double(), expected, atol=1e-5, rtol=0)
    assert found.dtype == images.dtype


def test_sides_that_do_not_divide_keep_mean_and_range():
    flat = torch.full((2, 3, 9, 9), 77, dtype=torch.uint8)
    assert torch.equal(shrink(flat, 4, 5), torch.full((2, 3, 4, 5), 77, dtype=torch.uint8))
    images = floats(4, size=9)
    assert abs(float(shrink(images, 5, 5).mean() - images.mean())) < 0.2
    assert shrink(images, 9, 9) is images


@pytest.mark.parametrize("store", STORES)
def test_what_is_trained_on_is_the_small_picture_enlarged(store):
    memory, plain = memory_of(store), memory_of(store, pixels=None)
    small = {1: shrink(codes(5, size=8), 4, 4), 2: shrink(floats(5, size=8), 4, 4)}
    memory.add({1: codes(5, size=8), 2: floats(5, size=8)})
    plain.add(small)
    assert memory.memory_bytes == plain.memory_bytes
    for label in (1, 2):
        for found, kept in zip(memory.class_images(label), plain.class_images(label)):
            for channel in range(3):
                expected = enlarged_by_hand(kept[channel], 8)
                torch.testing.assert_close(found[channel], expected, atol=1e-5, rtol=1e-5)
        assert memory.class_images(label).shape == (5, 3, 8, 8)


def test_a_decoder_works_on_the_enlarged_picture():
    memory = memory_of("uint8")
    memory.add({0: codes(5, size=8)}, decoding="tiles2")
    assert memory.class_images(0).shape == (20, 3, 8, 8) and memory.stored_images(0).shape == (5, 3, 8, 8)
    assert memory.memory_bytes == 5 * 3 * 4 * 4


@pytest.mark.parametrize("store", STORES)
def test_pictures_that_are_small_already_are_kept_as_they_are(store):
    memory, plain = memory_of(store, pixels=8), memory_of(store, pixels=None)
    for one in (memory, plain):
        one.add({0: codes(5, size=8), 1: floats(5, size=8)})
    assert torch.equal(memory.images, plain.images) and memory.memory_bytes == plain.memory_bytes


@pytest.mark.parametrize("store", STORES)
def test_a_file_brings_the_same_images_back_and_says_how_small_they_are(store, tmp_path):
    memory = memory_of(store)
    memory.add({3: codes(5, size=8), 1: floats(5, size=8)})
    memory.save(tmp_path / "m.safetensors")
    again = ReplayMemory.load(tmp_path / "m.safetensors")
    assert again.stored_pixels == 4 and torch.equal(again.images, memory.images)
    with safe_open(str(tmp_path / "m.safetensors"), framework="pt") as file:
        said = json.loads(file.metadata()["clreplay"])
    assert (said["format"], said["pixels"]) == (4, 4)


def test_a_file_of_whole_pictures_can_be_read_by_those_who_know_no_smaller_ones():
    assert json.loads(memory_of("uint8", pixels=None).state_dict()["settings"])["format"] == 3


def test_a_damaged_file_of_small_pictures_is_told():
    memory = memory_of("uint8")
    memory.add({0: codes(5, size=8)})
    state = memory.state_dict()
    state["0.codes"] = codes(5, size=8)
    with pytest.raises(ValueError, match=r"must have a codes of \(5, 3, 4, 4\) uint8"):
        ReplayMemory(images_per_class=1).load_state_dict(state)


@settings(max_examples=25, deadline=None)
@given(
    store=st.sampled_from(STORES),
    size=st.integers(400, 6000),
    pixels=st.sampled_from([None, 4, 5, 16]),
    auto=st.booleans(),
    condensed=st.booleans(),
)
def test_a_budget_is_never_exceeded(store, size, pixels, auto, condensed):
    quality = "auto" if auto and store in ("jpeg", "webp", "avif") else None
    memory = ReplayMemory(
        mem_bytes=size, normalization=NORMALIZATION, store=store, pixels=pixels, quality=quality, total_classes=4
    )
    images = floats(9, size=16) if condensed else smooth(9)
    for classes in ([0, 1], [2, 3]):
        try:
            counts = memory.counts_for(classes, lambda label: smooth(9, seed=label), condensed)
            memory.add({label: images[: counts[label]] for label in classes})
        except ValueError as error:
            assert "too few for one image" in str(error)
            return
        assert memory.memory_bytes <= size
        assert min(len(slot) for slot in memory.slots.values()) >= 1


@pytest.mark.parametrize("pixels", [0, -4, 4.0, True, "16"])
def test_pixels_that_are_none_are_an_error(pixels):
    with pytest.raises(ValueError, match="pixels must be an integer of at least 1"):
        memory_of("uint8", pixels=pixels)


# ---------------------------------------------------------------- quality auto


@pytest.mark.parametrize("codec", ["jpeg", "webp", "avif"])
@pytest.mark.parametrize("pixels", [None, 8])
def test_the_quality_is_the_highest_at_which_all_images_fit(codec, pixels):
    images = smooth(40)
    needed = {}
    for quality in range(CODECS[codec].quality, CODECS[codec].qualities[1] + 1, 5):
        memory = memory_of(codec, pixels, quality, images_per_class=40)
        memory.add({0: images})
        needed[quality] = memory.memory_bytes
    for quality, size in needed.items():
        found = best_quality(codec, size, images, 40, pixels)
        # What fits is told by a mosaic's bytes; all 40 images are one.
        assert needed[found] <= size and all(other > size for q, other in needed.items() if q > found)
        assert found >= quality
    assert best_quality(codec, min(needed.values()) // 2, images, 40, pixels) == CODECS[codec].quality


def test_a_memory_settles_its_quality_once_and_by_all_that_will_come():
    chosen = []
    for total in (2, 20):
        memory = memory_of("avif", None, "auto", mem_bytes=9000, total_classes=total)
        memory.counts_for([0], lambda _: smooth(40), condensed=False)
        memory.add({0: smooth(40)})
        first = memory.quality
        memory.add({1: smooth(40, seed=1)})
        assert memory.quality == first and isinstance(first, int)
        chosen.append(first)
    assert chosen[0] > chosen[1] == CODECS["avif"].quality


@pytest.mark.parametrize("codec", ["jpeg", "webp", "avif"])
@pytest.mark.parametrize("pixels", [None, 8])
def test_condensed_images_are_coded_as_finely_as_their_bytes_allow(codec, pixels):
    images = (smooth(20).float() / 100 - 1).clone()
    ladder = range(int(CODECS[codec].quality * LOWEST), CODECS[codec].qualities[1] + 1, 5)
    stores = [find_store(codec, quality, pixels) for quality in ladder]
    needed = [bytes_of(store.encode(images, None)) for store in stores]
    for store, size in zip(stores[::3], needed[::3]):
        found, parts, count = encode_finest(codec, images, [size], None, pixels)
        assert count == 20 and bytes_of(parts) <= size
        # The bytes grow with the quality but for a little noise.
        assert 0.98 * size <= needed[stores.index(found)] <= size
    found, parts, count = encode_finest(codec, images, [needed[0] // 2], None, pixels)
    assert found == stores[0] and count < 20 and bytes_of(parts) <= needed[0] // 2


def test_more_condensed_images_are_made_where_the_quality_is_open_and_each_class_has_its_own():
    plain, open_ = (memory_of("avif", None, quality, mem_bytes=4000, total_classes=2) for quality in (None, "auto"))
    counts = [memory.counts_for([0, 1], lambda _: smooth(60, 32)) for memory in (plain, open_)]
    assert 0 < counts[1][0] < 60
    assert all(counts[1][label] == int(counts[0][label] * MORE_IMAGES) for label in (0, 1))
    images = {0: floats(12, size=32), 1: smooth(12, 32).float() / 100 - 1}
    open_.add(images)
    assert [len(slot) for slot in open_.slots.values()] == [12, 12] and open_.memory_bytes <= 4000
    assert open_.quality == "auto" and open_.slots[1].store.quality > open_.slots[0].store.quality
    again = ReplayMemory(mem_bytes=1)
    again.load_state_dict(open_.state_dict())
    assert torch.equal(again.images, open_.images) and again.quality == "auto"


def test_a_budget_in_images_takes_the_default():
    memory = memory_of("webp", None, "auto")
    memory.add({0: smooth(5)})
    assert memory.quality is None and len(memory) == 5


@pytest.mark.parametrize("store", ["uint8", "float32", "4bit", "2bit", "png"])
def test_auto_belongs_to_codecs_that_lose_something(store):
    with pytest.raises(ValueError, match="quality auto belongs to the stores jpeg, webp, avif"):
        find_store(store, "auto")


def test_both_are_flags_settings_and_arguments(tmp_path):
    flags = ["--memory", "random", "--mem-bytes", "9000", "--store", "avif", "--quality", "auto", "--pixels", "4"]
    asked = continual_settings(continual_parser("digits", "").parse_args([*flags, "--preset", "smoke"]))
    made = plan_experiment(asked)
    assert {k: made.as_settings()[k] for k in ("quality", "pixels")} == {"quality": "auto", "pixels": 4}
    assert default_folder(made).name == "digits-5step-random-bytes9000-avifauto-4px-smoke"
    memory = condense(
        smooth(30), torch.arange(30) % 3, "random", mem_bytes=2000, store="avif", quality="auto", pixels=8
    )
    assert memory.stored_pixels == 8 and memory.memory_bytes <= 2000 and memory.images.shape[1:] == (3, 16, 16)
    with pytest.raises(SystemExit):
        continual_parser("digits", "").parse_args(["--quality", "best"])
