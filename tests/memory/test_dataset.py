"""A memory as a data set of PyTorch and as mini-batches: the images and labels that one trains on."""

import pytest
import torch
from memory_helpers import NORMALIZATION, codes, floats
from torch.utils.data import DataLoader

from clreplay.memory.formats.eight_bits import SLACK
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.training.batches import BatchSource


def mixed(**more):
    """A condensed class and a class of real pictures."""
    memory = ReplayMemory(4, normalization=NORMALIZATION, **more)
    memory.add({3: floats(4), 1: codes(4)})
    return memory


def test_items_are_the_images_and_labels_that_training_sees():
    memory = mixed()
    dataset = memory.dataset()
    assert len(dataset) == 8 and dataset.targets == [3, 3, 3, 3, 1, 1, 1, 1]
    for (image, label), wanted, true in zip(dataset, memory.images, memory.labels.tolist()):
        assert torch.equal(image, wanted) and label == true and type(label) is int
    images, labels = next(iter(DataLoader(dataset, batch_size=8)))
    assert torch.equal(images, memory.images) and torch.equal(labels, memory.labels)


def test_decoded_images_are_items():
    memory = ReplayMemory(1)
    memory.add({0: floats(1)}, decoding="tiles2")
    dataset = memory.dataset()
    assert len(dataset) == 4 and torch.equal(dataset[3][0], memory.images[3])


def test_transforms_see_every_item_and_the_memory_stays_as_it_is():
    memory = mixed()
    before = memory.images.clone()
    dataset = memory.dataset(transform=lambda image: image.mul_(2), target_transform=lambda label: label + 10)
    assert [label for _, label in dataset] == [13] * 4 + [11] * 4
    assert torch.equal(memory.images, before), "also a transform that changes its image in place"
    for name in ("transform", "target_transform"):
        with pytest.raises(ValueError, match=f"{name} must be a function, got True"):
            memory.dataset(**{name: True})


def test_pixels_lie_in_their_range_and_codes_are_codes(caplog):
    memory = mixed()
    pixels, coded = memory.dataset(values="pixels"), memory.dataset(values="uint8")
    assert pixels[0][0].dtype == torch.float32 and coded[0][0].dtype == torch.uint8
    assert 0 <= float(pixels.images.min()) and float(pixels.images.max()) <= 1
    assert torch.equal(coded.images[4:], memory.slots[1].codes), "real pictures are exact"
    std, mean = (torch.tensor(values).view(3, 1, 1) for values in (NORMALIZATION.std, NORMALIZATION.mean))
    true = memory.images * std + mean
    assert torch.allclose(pixels.images, true.clamp(0, 1), atol=1e-6)
    outside = int(((true < -SLACK) | (true > 1 + SLACK)).sum())
    assert [f"{outside} of 384 pixel values" in line for line in caplog.messages] == [True, True]
    with pytest.raises(ValueError, match="values must be one of network, pixels, uint8, got 'unit'"):
        memory.dataset(values="unit")


def test_real_pictures_are_not_cut_and_nothing_is_said(caplog):
    memory = ReplayMemory(2, normalization=NORMALIZATION)
    memory.add({0: codes(2)})
    assert torch.equal(memory.dataset(values="uint8").images, codes(2))
    assert torch.equal(memory.dataset(values="pixels").images, codes(2) / 255)
    assert not caplog.messages


def test_without_a_normalization_nobody_knows_the_pixels():
    memory = ReplayMemory(2)
    memory.add({0: floats(2)})
    assert len(memory.dataset()) == 2
    with pytest.raises(ValueError, match="'uint8' needs pixels, and the memory has no normalization"):
        memory.dataset(values="uint8")
    with pytest.raises(ValueError, match="the memory is empty"):
        ReplayMemory(2).dataset()


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (None, ["1", "3"]),
        (["a", "b", "c", "d"], ["a", "b", "c", "d"]),
        (["a", "b", "c", "d", "e"], ["a", "b", "c", "d", "e"]),
        ({3: "d", 1: "b"}, ["b", "d"]),
        ({3: "same", 1: "same"}, ["same 1", "same 3"]),
    ],
)
def test_classes_are_names_in_the_order_of_labels(names, classes):
    memory = mixed()
    if names:
        memory.name_classes(names)
    dataset = memory.dataset()
    assert dataset.classes == classes
    assert set(dataset.targets) <= set(dataset.class_to_idx.values())
    if len(classes) > 3:
        assert [dataset.classes[label] for label in (3, 1)] == ["d", "b"]


@pytest.mark.parametrize("names", [["a", "b"], {1: "b"}, "abcd", 3, {1: "b", 3: 4}, [1, 2, 3, 4], {"x": "y"}, []])
def test_names_that_are_none_or_miss_a_class_are_refused(names):
    memory = mixed()
    with pytest.raises(ValueError, match="class_names must"):
        memory.name_classes(names)
    assert memory.class_names == {}


def test_names_of_classes_to_come_join_those_that_are_known(tmp_path):
    memory = mixed()
    memory.name_classes({1: "b", 3: "d"})
    memory.name_classes({7: "h", -2: "z"})
    memory.save(tmp_path / "m.safetensors")
    assert ReplayMemory.load(tmp_path / "m.safetensors").class_names == {1: "b", 3: "d", 7: "h", -2: "z"}


# ------------------------------------------------------------------ mini-batches


def test_batches_are_those_of_training_and_every_pass_is_the_next_epoch():
    memory = mixed()
    loader = memory.loader(3, augment="color_crop_flip", seed=5)
    source = BatchSource(memory.images, memory.labels, 3, "color_crop_flip", (5, "train"))
    assert len(loader) == 3
    state = torch.get_rng_state()
    for epoch in range(2):
        for (images, labels), (wanted, true) in zip(loader, source.epoch(epoch), strict=True):
            assert torch.equal(images, wanted) and torch.equal(labels, true)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is not touched"
    loader.epoch = 0
    assert torch.equal(next(iter(loader))[0], next(source.epoch(0))[0])


def test_batches_in_order_and_of_one_size():
    memory = mixed()
    plain = memory.loader(3, shuffle=False)
    assert torch.equal(torch.cat([images for images, _ in plain]), memory.images)
    assert [len(labels) for _, labels in memory.loader(3, drop_last=True)] == [3, 3]
    one, other = (torch.cat([labels for _, labels in memory.loader(3, seed=seed)]) for seed in (0, 1))
    assert not torch.equal(one, other) and torch.equal(one.sort().values, other.sort().values)


@pytest.mark.parametrize("size", [0, -1, 2.0, True, None])
def test_a_batch_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match=f"batch_size must be an integer of at least 1, got {size}"):
        mixed().loader(size)
    with pytest.raises(ValueError, match="augment must join operators of"):
        mixed().loader(2, augment="blur")
