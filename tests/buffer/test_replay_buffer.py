"""A replay buffer for loops of one's own: images in, batches of a condensed memory out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import clreplay
from clreplay import ReplayBuffer, ReplayMemory, condense
from clreplay.data import NORMALIZATIONS
from clreplay.memory.balanced import distinct_rows
from clreplay.runtime.seeding import generator

QUICK = {"iterations": 2, "width": 4, "depth": 1, "real_batch": 4, "device": "cpu"}


def fill(buffer, images, labels, *experiences):
    """Observe the classes of every experience in batches, and consolidate."""
    for classes in experiences:
        rows = torch.isin(labels, torch.tensor(classes))
        for part in zip(images[rows].split(5), labels[rows].split(5)):
            buffer.observe(*part)
        buffer.consolidate()
    return buffer


def same(memory, other):
    ours, theirs = memory.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(
        ours[name] == theirs[name] if name == "settings" else torch.equal(ours[name], theirs[name]) for name in ours
    )


def test_it_is_a_public_name():
    assert clreplay.ReplayBuffer is ReplayBuffer and "ReplayBuffer" in clreplay.__all__


@pytest.mark.parametrize("method", ["random", "dm"])
def test_one_experience_gives_what_condense_gives(pixels, method):
    images, labels = pixels()
    settings = QUICK if method == "dm" else {"device": "cpu"}
    memory = condense(images, labels, method, 3, **settings)
    buffer = fill(ReplayBuffer(method, 3, **settings), images, labels, [0, 1, 2])
    buffer.memory.total_classes = 3  # which a stream does not know
    assert same(buffer.memory, memory)


def test_experiences_add_up_and_nothing_is_drawn_of_the_present_one(pixels):
    images, labels = pixels(4)
    buffer = ReplayBuffer("random", 3, device="cpu")
    assert buffer.is_empty() and len(buffer) == 0
    buffer.observe(images[labels < 2], labels[labels < 2])
    assert buffer.is_empty()
    buffer.consolidate()
    buffer.observe(images[labels == 3], labels[labels == 3])
    assert buffer.classes == [0, 1] and len(buffer) == 6
    assert set(buffer.sample(20)[1].tolist()) == {0, 1}
    buffer.consolidate()
    assert buffer.classes == [0, 1, 3] and len(buffer) == 9
    assert buffer.consolidate() == 0.0 and len(buffer) == 9  # an empty experience


def test_an_epoch_more_changes_nothing(pixels):
    images, labels = pixels()
    once, twice = (ReplayBuffer("random", 3, device="cpu") for _ in range(2))
    fill(once, images, labels, [0, 1, 2])
    for part in (images, images.flip(0)):
        twice.observe(part, labels if part is images else labels.flip(0))
    twice.consolidate()
    assert same(once.memory, twice.memory)


def test_no_images_are_no_error(pixels):
    buffer = ReplayBuffer("random", 3)
    buffer.observe(torch.empty(0, 3, 8, 8), torch.empty(0, dtype=torch.int64))
    assert buffer.consolidate() == 0.0


def test_classes_come_back_as_it_is_said(pixels, caplog):
    images, labels = pixels(2)
    stands = {}
    for returning in ("condense", "keep"):
        buffer = fill(ReplayBuffer("random", 4, returning=returning, device="cpu"), images, labels, [0, 1])
        fill(buffer, 255 - images, labels, [1])
        stands[returning] = buffer.memory.info["stands_for"]
        assert buffer.classes == [0, 1] and len(buffer) == 8
    assert stands == {"condense": {"0": 12, "1": 24}, "keep": {"0": 12, "1": 12}}
    assert "class 1: came back; what is stored stays" in caplog.text
    refusing = fill(ReplayBuffer("random", 4, returning="refuse", device="cpu"), images, labels, [0, 1])
    with pytest.raises(ValueError, match=r"classes \[0, 1\] are in memory already, and returning='refuse'"):
        refusing.observe(images, labels)


def test_a_class_smaller_than_its_share_is_kept_whole(pixels):
    buffer = fill(ReplayBuffer("random", 5, device="cpu"), *pixels(2, [12, 3]), [0, 1])
    assert [len(buffer.memory.slots[label]) for label in (0, 1)] == [5, 3]


# ---------------------------------------------------------------- batches


def test_a_batch_is_balanced_decoded_and_normalised(pixels):
    images, labels = pixels(3, [20, 12, 9])
    buffer = fill(ReplayBuffer("random+tiles", 2, normalization="cifar10", device="cpu"), images, labels, [0, 1, 2])
    batch, of = buffer.sample(12)
    assert batch.shape == (12, 3, 8, 8) and batch.dtype == torch.float32 and of.dtype == torch.int64
    assert torch.bincount(of).tolist() == [4, 4, 4]
    memory = buffer.memory
    assert all(any(torch.equal(one, kept) for kept in memory.class_images(int(y))) for one, y in zip(batch, of))
    assert len({one.numpy().tobytes() for one in batch}) == 12  # eight of each class: none comes again before


def test_more_may_be_drawn_than_is_stored(pixels):
    buffer = fill(ReplayBuffer("random", 2, device="cpu"), *pixels(), [0, 1, 2])
    assert torch.bincount(buffer.sample(30)[1]).tolist() == [10, 10, 10]


def test_draws_follow_from_the_seed_and_their_number(pixels, global_chance_untouched):
    def draws(seed):
        buffer = fill(
            ReplayBuffer("random", 3, seed=seed, augment="color_crop_flip", device="cpu"), *pixels(), [0, 1, 2]
        )
        with global_chance_untouched():
            return [buffer.sample(6)[0] for _ in range(3)]

    first, again, other = draws(0), draws(0), draws(1)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[0], other[0])


@given(st.lists(st.integers(-2, 4), min_size=1, max_size=30), st.integers(0, 40), st.integers(0, 5))
def test_distinct_rows_are_distinct_and_in_turns(labels, count, seed):
    labels = torch.tensor(labels)
    rows = distinct_rows(labels, count, generator(seed))
    assert len(rows) == min(count, len(labels)) == len(rows.unique())
    drawn = {int(label): int((labels[rows] == label).sum()) for label in labels.unique()}
    most = max(drawn.values())
    assert all(n >= most - 1 or n == int((labels == label).sum()) for label, n in drawn.items())


# ---------------------------------------------------------------- kinds of images


@pytest.mark.parametrize("kind", ["codes", "unit", "normalised"])
def test_any_way_to_give_images_gives_one_memory(pixels, kind):
    images, labels = pixels(4)
    normalization = NORMALIZATIONS["cifar10"]
    given = {"codes": images, "unit": images / 255, "normalised": normalization.apply(images)}[kind]
    buffer = fill(ReplayBuffer("dm", 2, normalization="cifar10", **QUICK), given, labels, [0, 1], [2, 3])
    reference = fill(ReplayBuffer("dm", 2, normalization="cifar10", **QUICK), images, labels, [0, 1], [2, 3])
    assert same(buffer.memory, reference.memory)


def test_later_experiences_are_normalised_as_the_first(pixels):
    images, labels = pixels(4)
    buffer = fill(ReplayBuffer("random", 2, device="cpu"), images, labels, [0, 1])
    first = buffer.memory.normalization
    fill(buffer, images // 2, labels, [2, 3])
    assert buffer.memory.normalization == first
    kept = buffer.memory.slots[2].codes
    assert all(any(torch.equal(one, code) for code in (images // 2)[labels == 2]) for one in kept)


def test_task_labels_are_kept(pixels):
    images, labels = pixels(2)
    buffer = ReplayBuffer("random", 2, device="cpu")
    buffer.observe(images, labels, labels + 5)
    buffer.consolidate()
    assert buffer.memory.task_labels.tolist() == [5, 5, 6, 6]
    mixed = ReplayBuffer("random", 2, device="cpu")
    mixed.observe(images, labels, torch.arange(len(labels)) % 2)
    with pytest.raises(ValueError, match=r"class 0 comes with several task labels \[0, 1\]"):
        mixed.consolidate()


# ---------------------------------------------------------------- errors before any work


def test_what_cannot_be_observed_is_refused_and_changes_nothing(pixels):
    images, labels = pixels(2)
    buffer = ReplayBuffer("random", 2, device="cpu")
    buffer.observe(images, labels)
    for batch, match in (
        ((images[:, :, :4, :4], labels), r"images have shape \(3, 4, 4\), those before \(3, 8, 8\)"),
        ((images / 255, labels), "images are torch.float32, those before torch.uint8"),
        ((images, labels[:-1]), "labels must be 24 integers"),
        ((images, labels - 1), "labels must be at least 0, got -1"),
        ((images[0], labels), r"images must have shape \(n, c, h, w\)"),
    ):
        with pytest.raises(ValueError, match=match):
            buffer.observe(*batch)
    buffer.consolidate()
    assert same(buffer.memory, fill(ReplayBuffer("random", 2, device="cpu"), images, labels, [0, 1]).memory)


def test_an_empty_buffer_gives_no_batch():
    with pytest.raises(ValueError, match="the buffer is empty; call observe and consolidate first"):
        ReplayBuffer("random", 2).sample(4)
    with pytest.raises(ValueError, match="size must be an integer of at least 1, got 0"):
        ReplayBuffer("random", 2).sample(0)


def test_a_condensation_that_fails_loses_nothing(pixels):
    images, labels = pixels(2)

    def fails(real, counts, settings, **rest):
        raise RuntimeError("the machine is on fire")

    buffer = ReplayBuffer(fails, 2, device="cpu")
    buffer.observe(images, labels)
    with pytest.raises(RuntimeError, match="on fire"):
        buffer.consolidate()
    assert len(buffer.state_dict()["met"]["images"]) == 24 and buffer.is_empty()
    assert buffer.memory.normalization is None


# ---------------------------------------------------------------- saving and going on


@pytest.mark.parametrize("method", ["random", "dm"])
def test_a_state_goes_on_in_the_middle_of_an_experience(pixels, tmp_path, method):
    images, labels = pixels(4)
    settings = QUICK if method == "dm" else {"device": "cpu"}
    unbroken = fill(ReplayBuffer(method, mem_size=9, **settings), images, labels, [0, 1])
    unbroken.sample(3)
    half = (labels > 1).nonzero().squeeze(1)
    unbroken.observe(images[half[:10]], labels[half[:10]])
    torch.save(unbroken.state_dict(), tmp_path / "state.pt")
    resumed = ReplayBuffer(method, mem_size=9, **settings)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for buffer in (unbroken, resumed):
        buffer.observe(images[half], labels[half])  # ten of them for the second time
        buffer.consolidate()
    assert same(unbroken.memory, resumed.memory)
    assert all(map(torch.equal, unbroken.sample(5), resumed.sample(5)))


def test_a_state_of_another_buffer_is_refused(pixels):
    state = fill(ReplayBuffer("random", 2, device="cpu"), *pixels(), [0]).state_dict()
    with pytest.raises(ValueError, match="the state is of a buffer with seed 0 .here 1."):
        ReplayBuffer("random", 2, seed=1).load_state_dict(state)
    with pytest.raises(ValueError, match="the buffer's state lacks draws"):
        ReplayBuffer("random", 2).load_state_dict({k: v for k, v in state.items() if k != "draws"})


def test_a_memory_s_file_is_gone_on_with(pixels, tmp_path):
    images, labels = pixels(4)
    buffer = fill(ReplayBuffer("random", 2, device="cpu"), images, labels, [0, 1])
    buffer.save(tmp_path / "memory.safetensors")
    again = ReplayBuffer("random", memory=tmp_path / "memory.safetensors", device="cpu")
    assert same(ReplayMemory.load(tmp_path / "memory.safetensors"), again.memory)
    for one in (buffer, again):
        fill(one, images, labels, [2, 3])
    assert same(buffer.memory, again.memory)
    buffer.observe(images[:0], labels[:0])
    buffer.save(tmp_path / "memory.safetensors")
    fresh = ReplayBuffer("random", 2)
    fresh.observe(images, labels)
    with pytest.raises(ValueError, match="48 images were observed and not consolidated"):
        fresh.save(tmp_path / "memory.safetensors")


@pytest.mark.parametrize("method", [3, None])
def test_what_is_no_method_is_named(method):
    with pytest.raises(ValueError, match=f"the method must be a memory's name, .* got {type(method).__name__}"):
        ReplayBuffer(method)
