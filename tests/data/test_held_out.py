"""Training images that are held out, to choose by."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clreplay.data import Dataset, ImageSet, Normalization, held_out_name, load_dataset, load_digits
from clreplay.data.held_out import hold_out, split_name


def numbered(counts):
    """A data set whose images are all different: every pixel is the image's number."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    images = torch.arange(len(labels)).view(-1, 1, 1, 1).to(torch.uint8)
    names = tuple(map(str, range(len(counts))))
    test = ImageSet(images[:1] + 100, labels[:1])
    return Dataset("some", ImageSet(images, labels), test, names, Normalization((0.5,), (0.5,)), "made here")


def numbers(part):
    return part.images.flatten().tolist()


@given(st.lists(st.integers(2, 20), min_size=1, max_size=5), st.floats(0.001, 0.999))
def test_a_share_of_every_class_is_moved_and_nothing_is_lost(counts, share):
    data = numbered(counts)
    apart = hold_out(data, share)
    assert sorted(numbers(apart.train) + numbers(apart.held_out)) == numbers(data.train)
    assert numbers(apart.train) == sorted(numbers(apart.train)), "the rest keeps its order"
    for label, count in enumerate(counts):
        moved = int((apart.held_out.labels == label).sum())
        assert 1 <= moved <= count - 1 and (abs(moved - share * count) <= 0.5 or moved in (1, count - 1))
    by_number = data.train.labels
    assert torch.equal(apart.held_out.labels, by_number[apart.held_out.images.flatten().long()])
    assert apart.test is data.test and apart.normalization is data.normalization
    assert numbers(hold_out(data, share).held_out) == numbers(apart.held_out)


def test_which_images_are_moved_is_chance_and_not_the_first_ones():
    moved = numbers(hold_out(numbered([100, 100]), 0.2).held_out)
    assert len(moved) == 40 and max(moved[:20]) > 50 and moved[:20] != [number - 100 for number in moved[20:]]


def test_a_class_of_one_image_is_an_error():
    with pytest.raises(ValueError, match="class 1 of some has one image, of which none can be held out"):
        hold_out(numbered([5, 1]), 0.5)


@pytest.mark.parametrize("name", ["digits", "folder:some where@32", "cifar10"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.25])
def test_a_name_says_what_is_held_out(name, share):
    full = held_out_name(name, share)
    assert split_name(full) == (name, share) and (full == name) == (share == 0)


def test_a_data_set_is_loaded_without_what_is_held_out():
    data, whole = load_dataset("digits#held-out=0.2"), load_digits()
    assert data.name == "digits#held-out=0.2" and whole.held_out is None
    assert len(data.train) + len(data.held_out) == len(whole.train)
    assert len(data.held_out) == pytest.approx(0.2 * len(whole.train), abs=5)
    assert torch.equal(data.test.images, whole.test.images)


@pytest.mark.parametrize("name", ["digits#held-out=", "digits#held-out=1", "digits#held-out=-0.1", "digits#held-out=x"])
def test_a_share_that_is_none_is_an_error(name):
    with pytest.raises(ValueError, match="name must end in a share such as #held-out=0.1, got 'digits#held-out="):
        load_dataset(name)
    with pytest.raises(ValueError, match=r"the held-out share must be within \[0, 1\), got 1.5"):
        held_out_name("digits", 1.5)
