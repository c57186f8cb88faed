"""The cache of condensed classes: the same address only for the same outcome."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace

import pytest
import torch
from cache_writer import put_many
from memory_helpers import CPU, NORMALIZATION, codes, floats
from safetensors.torch import save

from clreplay.condensation import METHODS, RealImages, condense_experience
from clreplay.condensation.configured import ConfiguredMethod
from clreplay.condensation.engine.execution import Execution
from clreplay.condensation.matching.engine import MatchingSettings
from clreplay.memory.class_cache import ARITHMETIC, ClassCache
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.runtime.files import user_cache

SETTINGS = MatchingSettings(width=4, iterations=3, real_batch=6, style_weight=5000.0, diversity_weight=10.0)


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (40, 3, 16, 16), generator=chance, dtype=torch.uint8), torch.arange(40) % 4


def condensed(images, cache, classes=(0, 1, 2, 3), settings=SETTINGS, seed=0, method="matching", count=3, **how):
    pixels, labels = images
    rows = torch.isin(labels, torch.tensor(classes))
    memory = ReplayMemory(images_per_class=count, normalization=NORMALIZATION)
    real = RealImages(pixels[rows], labels[rows], memory.normalization)
    configured = ConfiguredMethod(METHODS[method], settings, Execution(**how))
    condense_experience(memory, real, configured, seed=seed, device=CPU, cache=cache)
    return memory


def hits(memory: ReplayMemory) -> int:
    return memory.info["chosen"]["classes_from_cache"]


def test_classes_found_in_the_cache_are_the_bytes_of_condensing_them(images, tmp_path):
    cache = ClassCache(tmp_path)
    plain, first, second = condensed(images, None), condensed(images, cache), condensed(images, cache)
    assert (hits(first), hits(second)) == (0, 4)
    for label in range(4):
        for other in (first, second):
            assert torch.equal(plain.slots[label].codes, other.slots[label].codes)
            assert torch.equal(plain.slots[label].scale, other.slots[label].scale)


def test_a_class_is_found_whatever_company_it_was_condensed_in(images, tmp_path):
    cache = ClassCache(tmp_path)
    condensed(images, cache, (1, 3))
    mixed = condensed(images, cache)
    assert hits(mixed) == 2
    assert torch.equal(mixed.images, condensed(images, None).images)
    assert mixed.classes == [0, 1, 2, 3]


def test_a_hit_computes_nothing(images, tmp_path, monkeypatch):
    cache = ClassCache(tmp_path)
    condensed(images, cache)
    monkeypatch.setattr(
        "clreplay.condensation.matching.engine.MatchingEngine.step", lambda self: pytest.fail("computed again")
    )
    condensed(images, cache)


@pytest.mark.parametrize(
    "change",
    [
        {"settings": replace(SETTINGS, lr_img=0.5)},
        {"settings": replace(SETTINGS, iterations=4)},
        {"settings": replace(SETTINGS, siamese_augment=None)},
        {"classes_at_once": 2},
        {"settings": replace(SETTINGS, sigma_of="mean_map")},
        {"seed": 1},
        {"count": 4},
    ],
)
def test_whatever_changes_the_outcome_never_hits(images, tmp_path, change):
    cache = ClassCache(tmp_path)
    condensed(images, cache)
    assert hits(condensed(images, cache, **change)) == 0


def test_changed_pixels_never_hit(images, tmp_path):
    cache = ClassCache(tmp_path)
    condensed(images, cache)
    changed = images[0].clone()
    changed[0, 0, 0, 0] ^= 1  # one bit of one image of class 0
    assert hits(condensed((changed, images[1]), cache)) == 3


def test_device_and_version_are_part_of_the_address(monkeypatch):
    cache = ClassCache("unused")
    here = cache.address("matching", SETTINGS, "key", 3, 0, CPU)
    assert cache.address("matching", SETTINGS, "key", 3, 0, torch.device("cuda")) != here
    monkeypatch.setattr("clreplay.memory.class_cache.ARITHMETIC", ARITHMETIC + 1)
    assert cache.address("matching", SETTINGS, "key", 3, 0, CPU) != here
    monkeypatch.undo()
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert cache.address("matching", SETTINGS, "key", 3, 0, CPU) != here


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("matching", replace(SETTINGS, norm="batch")),
        ("matching", replace(SETTINGS, encoders="trajectory", encoder_networks=1, encoder_epochs=1)),
        ("herding", METHODS["herding"].settings(width=4, epochs=1)),
    ],
)
def test_classes_that_depend_on_one_another_are_found_in_the_same_company_only(images, tmp_path, method, settings):
    cache, how = ClassCache(tmp_path), {"method": method, "settings": settings}
    plain, first = condensed(images, None, **how), condensed(images, cache, **how)
    assert hits(first) == 0 and hits(condensed(images, cache, (0, 1), **how)) == 0
    again = condensed(images, cache, **how)
    assert hits(again) == 4 and torch.equal(again.images, plain.images)
    condensed(images, cache, count=2, **how)
    next(iter(tmp_path.rglob("*.safetensors"))).unlink()  # one of a company: all of it is made again
    found = [hits(condensed(images, cache, classes, count=count, **how)) for classes, count in COMPANIES]
    assert sorted(found) in ([0, 2, 4], [0, 4, 4])


COMPANIES = [((0, 1, 2, 3), 3), ((0, 1), 3), ((0, 1, 2, 3), 2)]


def test_what_is_quicker_than_a_file_passes_the_cache_by(images, tmp_path):
    condensed(images, ClassCache(tmp_path), settings=METHODS["random"].settings(), method="random")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_code_whose_changes_nobody_would_notice_passes_the_cache_by(images, tmp_path):
    made = METHODS["random"]

    def mine(*arguments, **more):
        return made.condense(*arguments, **more)

    method = replace(made, name="mine", condense=mine, cached=True)
    configured = ConfiguredMethod(method, made.settings())
    assert not configured.cacheable()
    assert ConfiguredMethod(replace(method, code="0123"), made.settings()).cacheable()


def test_a_damaged_file_counts_as_absent_and_is_mended(images, tmp_path, caplog):
    cache = ClassCache(tmp_path)
    condensed(images, cache)
    files = sorted(tmp_path.rglob("*.safetensors"))
    files[0].write_bytes(files[0].read_bytes()[:50])
    assert hits(condensed(images, cache)) == 3
    assert "damaged" in caplog.text
    assert hits(condensed(images, cache)) == 4


def test_a_cache_that_cannot_be_written_costs_a_warning_only(images, tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    memory = condensed(images, ClassCache(blocked))
    assert len(memory) == 12 and "cannot cache" in caplog.text


def test_several_processes_may_write_and_read_one_address(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=put_many, args=(str(tmp_path), value)) for value in (1, 2)]
    for writer in writers:
        writer.start()
    cache, seen = ClassCache(tmp_path), set()
    while any(writer.is_alive() for writer in writers):
        found = cache.get("ab" * 20, (2, 3, 16, 16))
        if found is not None:
            assert len(found.images.unique()) == 1  # never half of one and half of the other
            seen.add(float(found.images[0, 0, 0, 0]))
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen <= {1.0, 2.0} and seen
    assert not list(tmp_path.rglob("*.partial"))


def test_a_cached_class_without_a_decoding_is_as_stored(tmp_path):
    cache, images = ClassCache(tmp_path), floats(2)
    cache.put("ab" * 20, images)
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(save({"images": images}))  # as earlier versions wrote it
    found = cache.get("ab" * 20, (2, 3, 4, 4))
    assert found.decoding == "none" and torch.equal(found.images, images)


def test_cached_pixel_codes_stay_pixel_codes(tmp_path):
    cache = ClassCache(tmp_path)
    cache.put("cd" * 20, codes(2), "tiles2")
    found = cache.get("cd" * 20, (2, 3, 4, 4))
    assert found.images.dtype == torch.uint8 and torch.equal(found.images, codes(2)) and found.decoding == "tiles2"
    cache.put("ef" * 20, floats(2, dtype=torch.float64))
    assert cache.get("ef" * 20, (2, 3, 4, 4)).images.dtype == torch.float32


def test_the_default_follows_the_user_s_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "clreplay"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache() == tmp_path / ".cache" / "clreplay"


def test_a_damaged_value_counts_as_absent(tmp_path, caplog):
    cache, images = ClassCache(tmp_path), floats(2)
    images[1, 0, 0, 0] = float("nan")
    cache.put("ab" * 20, images)
    assert cache.get("ab" * 20, (2, 3, 4, 4)) is None
    assert "ignoring the damaged cache file" in caplog.text


def test_a_flipped_bit_counts_as_absent(tmp_path, caplog):
    cache = ClassCache(tmp_path)
    cache.put("abc", torch.ones(2, 1, 4, 4))
    (path,) = tmp_path.rglob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x20
    path.write_bytes(bytes(data))
    assert cache.get("abc", (2, 1, 4, 4)) is None
    assert "ignoring the damaged cache file" in caplog.text and "does not match its checksum" in caplog.text
