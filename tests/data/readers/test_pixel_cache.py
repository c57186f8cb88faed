"""The cache of decoded images: decoded once, never half, whoever is killed or comes at the same time."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import cache_files, picture, tarred, write, write_classes, zipped

from clreplay.data import ImageSet, InvalidDataError, load_dataset
from clreplay.data.readers import decoding_jobs, image_files, pixel_cache
from clreplay.data.readers.image_files import Target
from clreplay.data.readers.image_sets import TreeSplit
from clreplay.data.readers.trees import FolderTree
from clreplay.runtime.files import user_cache

TESTS = Path(__file__).parent


@pytest.fixture
def pets(tmp_path) -> Path:
    """Two classes of 20x20 pictures in train/ and test/."""
    folder = tmp_path / "pets"
    write_classes(folder / "train", {"cat": 70, "dog": 70})
    write_classes(folder / "test", {"cat": 2, "dog": 2}, first=5000)
    return folder


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Grows by one with every image that is decoded in this process."""
    calls, decode = [], image_files.decode_image

    def counting(data, target):
        calls.append(target.size)
        return decode(data, target)

    monkeypatch.setattr(image_files, "decode_image", counting)
    return calls


def load(folder, size="@16"):
    return load_dataset(f"folder:{folder}{size}")


def training_split(folder):
    tree = FolderTree(folder)
    return TreeSplit(tree, "train", tree.files("train"))


def decode_alone(folder, size=16):
    """Every training image decoded here, one after another."""
    paths = sorted((folder / "train").rglob("*.JPEG"))
    return torch.from_numpy(np.stack([image_files.decode_image(p.read_bytes(), Target(size, 3, True)) for p in paths]))


# --- once -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [None, zipped, tarred])
def test_a_second_load_decodes_nothing(pets, tmp_path, decoded, pack):
    place = pack(pets, tmp_path / {zipped: "pets.zip", tarred: "pets.tgz"}[pack]) if pack else pets
    first = load(place)
    assert len(decoded) == 144
    second = load(place)
    assert len(decoded) == 144
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.train.images, decode_alone(pets))


def test_a_copy_elsewhere_with_the_same_times_decodes_nothing(pets, tmp_path, decoded):
    import shutil

    load(pets)
    shutil.copytree(pets, tmp_path / "elsewhere" / "pets")
    load(tmp_path / "elsewhere" / "pets")
    assert len(decoded) == 144


@pytest.mark.parametrize("size", ["@17", "@20", ""])
def test_another_size_is_another_file(pets, decoded, size):
    load(pets)
    assert load(pets, size).train.images.shape[-1] == int(size[1:] or 20)
    assert len(decoded) == 288


def test_resized_and_required_to_have_a_size_are_told_apart(pets, decoded):
    load(pets, "@20")
    write(pets / "train" / "dog" / "dog_7.JPEG", picture(3, (30, 30)))
    load(pets, "@20")
    with pytest.raises(InvalidDataError, match="dog_7.JPEG: image must be 20x20"):
        load(pets, "")


def change_content(path):
    state = path.stat()
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        change_content,
        lambda path: os.utime(path, ns=(0, path.stat().st_mtime_ns + 1)),
        lambda path: path.rename(path.with_name("other.JPEG")),
        lambda path: path.unlink(),
        lambda path: write(path.with_name("another.JPEG"), picture(8)),
    ],
)
def test_a_changed_file_decodes_its_split_again_and_the_other_not(pets, decoded, change):
    load(pets)
    change(pets / "train" / "dog" / "dog_5.JPEG")
    dataset = load(pets)
    assert len(decoded) == 144 + len(dataset.train)
    assert torch.equal(dataset.train.images, decode_alone(pets))
    assert len(cache_files()) == 3


def test_another_version_of_the_decoder_decodes_again(pets, decoded, monkeypatch):
    load(pets)
    monkeypatch.setattr(pixel_cache, "VERSION", pixel_cache.VERSION + 1)
    load(pets)
    assert len(decoded) == 288


def test_the_cache_is_where_the_environment_says(pets, tmp_path, monkeypatch):
    monkeypatch.setenv("CLREPLAY_CACHE", str(tmp_path / "roomy"))
    load(pets)
    assert user_cache() == tmp_path / "roomy"
    assert len(list((tmp_path / "roomy" / "images").glob("folder-pets-16-t*.npy"))) == 2
    assert cache_files() == []


# --- mapped -----------------------------------------------------------------------------------------------------


def test_images_are_mapped_without_a_warning_and_writing_does_not_reach_the_file(pets):
    load(pets)
    before = [path.read_bytes() for path in cache_files()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = load(pets).train.images
    original = images[3].clone()
    images[3] = 255
    assert (images[3] == 255).all()
    assert [path.read_bytes() for path in cache_files()] == before
    assert torch.equal(load(pets).train.images[3], original)


def resident_kilobytes() -> int:
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Rss:"))


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
def test_classes_are_taken_out_without_loading_the_rest(tmp_path):
    shape = (4000, 3, 64, 64)  # 49 MB
    with (tmp_path / "big.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + int(np.prod(shape)))
        file.seek(-1, os.SEEK_END)
        file.write(b"\7")
    before = resident_kilobytes()
    images = pixel_cache.map_images(tmp_path / "big.npy", shape)
    whole = ImageSet(images, torch.arange(4000) // 40)
    part = whole.of_classes([99])
    assert part.images.shape == (40, 3, 64, 64) and part.images[-1, -1, -1, -1] == 7
    assert torch.equal(whole.class_images(99), part.images)
    assert resident_kilobytes() - before < 12_000


def test_a_set_larger_than_memory_can_be_mapped(tmp_path):
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shape = (2 * total // (3 * 128 * 128), 3, 128, 128)
    with (tmp_path / "huge.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + int(np.prod(shape)))  # all holes: takes no room
    images = pixel_cache.map_images(tmp_path / "huge.npy", shape)
    images[-1] = 5
    assert images[-1].sum() == 5 * 3 * 128 * 128 and images[0].sum() == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[:50],
        lambda data: b"",
        lambda data: b"x" + data[1:],
        lambda data: data.replace(b"|u1", b"|i1"),
        lambda data: data[:5000] + bytes([data[5000] ^ 4]) + data[5001:],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    ],
)
def test_a_damaged_cache_file_is_made_again(pets, decoded, caplog, damage):
    load(pets)
    path = next(path for path in cache_files() if "train" in path.name)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert torch.equal(load(pets).train.images, decode_alone(pets))
    assert path.read_bytes() == whole
    assert f"decoding again, because {path} is damaged" in caplog.text
    assert not [path for path in cache_files() if "partial" in path.name]


def test_a_cache_file_of_before_checksums_is_used(pets, decoded):
    load(pets)
    for path in cache_files():
        path.write_bytes(path.read_bytes()[: -len(b"clreplay-sum-1\n") - 16])
    expected = decode_alone(pets)
    decoded.clear()
    assert torch.equal(load(pets).train.images, expected)
    assert decoded == []


# --- whole or not at all ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_breaks_off_leaves_nothing(pets, monkeypatch, error):
    decode, calls = image_files.decode_image, []

    def breaking_off(data, target):
        calls.append(1)
        if len(calls) == 100:
            raise error
        return decode(data, target)

    monkeypatch.setattr(image_files, "decode_image", breaking_off)
    with pytest.raises(error):
        load(pets)
    assert cache_files() == []


def test_a_full_disk_is_told_before_the_work(pets, monkeypatch, decoded):
    usage = type(pixel_cache.shutil.disk_usage("."))
    monkeypatch.setattr(pixel_cache.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 20_000))
    with pytest.raises(OSError, match="images need 0.1 MB and the disk has 0.0 MB; set CLREPLAY_CACHE") as caught:
        load(pets)
    assert caught.value.errno == errno.ENOSPC
    assert decoded == [] and cache_files() == []


@pytest.mark.parametrize("call", ["posix_fallocate", "fsync"])
def test_a_disk_that_fills_up_on_the_way_is_told(pets, monkeypatch, call):
    def fill_up(*anything):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pixel_cache.os, call, fill_up)
    with pytest.raises(OSError, match="the disk is full; set CLREPLAY_CACHE to a folder elsewhere"):
        load(pets)
    assert cache_files() == []


@pytest.mark.parametrize("system_has_a_call", [True, False])
def test_room_on_the_disk_is_taken_before_anything_is_written_there(tmp_path, monkeypatch, system_has_a_call):
    monkeypatch.setattr(pixel_cache, "_RESERVED_AT_ONCE", 30_000)
    if not system_has_a_call:
        monkeypatch.delattr(os, "posix_fallocate")
    with (tmp_path / "file").open("w+b") as file:
        file.write(b"head")
        file.truncate(1_000_004)
        assert os.fstat(file.fileno()).st_blocks * 512 < 1_000_000
        pixel_cache._reserve(file, 4, 1_000_000)
        assert os.fstat(file.fileno()).st_blocks * 512 >= 1_000_000
    assert (tmp_path / "file").read_bytes() == b"head" + bytes(1_000_000)


@pytest.mark.parametrize("way", ["no folder", "read-only"])
def test_a_cache_that_cannot_be_written_costs_a_warning(way, pets, tmp_path, monkeypatch, caplog):
    expected = load(pets).train.images.clone()
    cache = tmp_path / "elsewhere"
    monkeypatch.setenv("CLREPLAY_CACHE", str(cache))
    if way == "no folder":
        monkeypatch.setenv("CLREPLAY_CACHE", str(write(tmp_path / "file", b"") / "below"))
    else:
        make = pixel_cache.np.lib.format.open_memmap

        def read_only(path, *arguments, **options):
            if cache in path.parents:
                raise OSError(errno.EROFS, "Read-only file system", str(path))
            return make(path, *arguments, **options)

        monkeypatch.setattr(pixel_cache.np.lib.format, "open_memmap", read_only)
    assert torch.equal(load(pets).train.images, expected)
    assert "every process decodes its own; set CLREPLAY_CACHE to a folder elsewhere" in caplog.text


BEGIN = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
sys.path.insert(0, {tests!r})
from clreplay.data import load_dataset
from clreplay.data.readers import decoding_jobs, image_files
decode = image_files.decode_image
def slow(data, target):
    open({marks!r} + "/" + str(os.getpid()) + "-" + str(time.monotonic_ns()), "w").close()
    time.sleep({wait})
    return decode(data, target)
image_files.decode_image = slow
decoding_jobs.cores = lambda: {jobs}
decoding_jobs.PARALLEL_FROM = 0
print(int(load_dataset("folder:{folder}@16").train.images.sum()), flush=True)
"""


@pytest.fixture
def start(pets, tmp_path):
    """``start(wait, jobs)``: a process that loads the pets and takes `wait` seconds over an image."""
    running = []

    def begin(wait, jobs=1):
        marks = tmp_path / "marks"
        marks.mkdir(exist_ok=True)
        code = textwrap.dedent(BEGIN).format(tests=str(TESTS), marks=str(marks), wait=wait, jobs=jobs, folder=pets)
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.02)


def marks(tmp_path) -> list[str]:
    return [path.name for path in (tmp_path / "marks").glob("*")]


def test_a_killed_decoding_leaves_no_half_cache_and_no_process_and_the_next_one_goes_through(pets, tmp_path, start):
    killed = start(0.05, jobs=2)
    wait_for(lambda: len(marks(tmp_path)) > 4)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()  # comes back when the children, who share its output, are gone as well
    assert [path.suffix for path in cache_files()] == [".partial"]
    assert torch.equal(load(pets).train.images, decode_alone(pets))
    assert sorted(path.suffix for path in cache_files()) == [".npy", ".npy"]


def test_ctrl_c_ends_the_other_processes_and_leaves_nothing(tmp_path, start):
    stopped = start(0.2, jobs=2)  # seconds of work left, however late the signal comes
    wait_for(lambda: len(marks(tmp_path)) > 4)
    stopped.send_signal(signal.SIGINT)
    _, told = stopped.communicate(timeout=120)
    assert stopped.returncode != 0 and told.count(b"KeyboardInterrupt") == 1
    assert cache_files() == []


def test_two_processes_at_once_decode_once_and_see_the_same(pets, tmp_path, start, decoded, caplog):
    other = start(0.1, jobs=2)  # its own decoding processes inherit the lock and must not give it back
    wait_for(lambda: marks(tmp_path))
    images = load(pets).train.images
    assert other.communicate(timeout=120)[0] == b"%d\n" % int(images.sum())
    assert len(marks(tmp_path)) + len(decoded) == 144
    assert "waiting for another process that decodes the same images" in caplog.text
    assert torch.equal(images, decode_alone(pets))
    assert sorted(path.suffix for path in cache_files()) == [".npy", ".npy"]


def test_a_process_that_waits_takes_over_when_the_other_is_killed(pets, tmp_path, start, decoded, monkeypatch):
    other, wait_for_lock = start(0.05), pixel_cache._wait_for
    wait_for(lambda: marks(tmp_path))

    def kill_the_other_first(lock, path):
        other.send_signal(signal.SIGKILL)
        return wait_for_lock(lock, path)

    monkeypatch.setattr(pixel_cache, "_wait_for", kill_the_other_first)
    images = load(pets).train.images
    assert len(decoded) == 144
    assert torch.equal(images, decode_alone(pets))
    assert sorted(path.suffix for path in cache_files()) == [".npy", ".npy"]


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError()])
def test_a_disk_without_locks_gets_the_same_file(pets, monkeypatch, error):
    def refuse(*anything, **more):
        raise error

    monkeypatch.setattr(pixel_cache.FileLock, "acquire", refuse)
    assert torch.equal(load(pets).train.images, decode_alone(pets))
    assert sorted(path.suffix for path in cache_files()) == [".npy", ".npy"]


# --- in parallel ------------------------------------------------------------------------------------------------


@pytest.fixture
def two_processes(monkeypatch):
    monkeypatch.setattr(decoding_jobs, "PARALLEL_FROM", 0)
    monkeypatch.setattr(decoding_jobs, "cores", lambda: 2)


@pytest.mark.parametrize("pack", [None, zipped, tarred])
def test_other_processes_give_the_same_rows(pets, tmp_path, decoded, two_processes, pack):
    place = pack(pets, tmp_path / {zipped: "pets.zip", tarred: "pets.tgz"}[pack]) if pack else pets
    dataset = load(place)
    assert decoded == []  # none of them here
    assert torch.equal(dataset.train.images, decode_alone(pets))


def test_where_forking_is_not_safe_threads_give_the_same_rows(pets, decoded, two_processes, monkeypatch):
    monkeypatch.setattr(decoding_jobs.sys, "platform", "darwin")
    dataset = load(pets)
    assert len(decoded) == 144
    assert torch.equal(dataset.train.images, decode_alone(pets))


def test_a_zip_archive_that_was_read_here_before_is_read_right_by_the_others(pets, tmp_path, monkeypatch):
    """Forked processes share the position of a file that their parent opened."""
    archive = zipped(pets, tmp_path / "pets.zip")
    load(archive, "@12")
    monkeypatch.setattr(decoding_jobs, "PARALLEL_FROM", 0)
    monkeypatch.setattr(decoding_jobs, "cores", lambda: 4)
    assert torch.equal(load(archive).train.images, decode_alone(pets))


def test_an_error_in_another_process_arrives_here(pets, two_processes):
    (pets / "train" / "dog" / "dog_60.JPEG").write_bytes(b"no image")
    with pytest.raises(InvalidDataError, match="train/dog/dog_60.JPEG: .*; fetch the file again"):
        load(pets)
    assert cache_files() == []


@pytest.mark.parametrize("most", [2, 20])
def test_bad_images_of_several_batches_are_named_together(pets, two_processes, monkeypatch, most):
    monkeypatch.setattr(decoding_jobs, "MOST_BAD", most)
    bad = ["train/cat/cat_3", "train/dog/dog_60", "train/dog/dog_69"]
    for name in bad:
        (pets / f"{name}.JPEG").write_bytes(b"no image")
    with pytest.raises(InvalidDataError) as caught:
        load(pets)
    assert [name in str(caught.value) for name in bad] == [True, True, most > 2]
    assert cache_files() == []


def test_a_process_that_dies_is_told(pets, two_processes, monkeypatch):
    here, decode = os.getpid(), image_files.decode_image
    monkeypatch.setattr(
        image_files, "decode_image", lambda *given: decode(*given) if os.getpid() == here else os._exit(9)
    )
    with pytest.raises(OSError, match=r"a process that decodes images died .*is there enough memory for 2\?"):
        load(pets)
    assert cache_files() == []


def test_few_encoded_images_are_held_at_a_time(pets, two_processes):
    taken = []

    def batches():
        for number, batch in enumerate(training_split(pets).batches()):
            for _ in range(10):
                taken.append(number)
                yield batch

    results = decoding_jobs.decode_all(batches(), 140, Target(16, resize=True))
    next(results)
    assert len(taken) <= 8
    results.close()


def test_a_batch_that_never_comes_is_noticed(pets, monkeypatch):
    batches = FolderTree.batches
    monkeypatch.setattr(FolderTree, "batches", lambda tree, paths: list(batches(tree, paths))[:-1])
    with pytest.raises(InvalidDataError, match="train changed while it was read: 12 images are gone"):
        load(pets)
    assert cache_files() == []
