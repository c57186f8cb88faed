"""Mini-batches: every image once an epoch, chance keyed by the epoch, and the same for several networks at once."""

import pytest
import torch
from training_helpers import NORMALIZATION, TINY, keys_of

from clreplay.training.augmentation import augment_images, parse_strategy
from clreplay.training.batches import BatchSource, StackedBatches


def numbered(n):
    """Images that carry their own number, with their number as label."""
    return torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1).expand(n, 3, 8, 8), torch.arange(n)


@pytest.mark.parametrize(("n", "sizes"), [(10, [4, 4, 2]), (8, [4, 4]), (3, [3]), (9, [4, 4, 1])])
def test_an_epoch_covers_every_image_once(n, sizes):
    source = BatchSource(*numbered(n), 4, None, (0,))
    for epoch in (0, 5):
        batches = list(source.epoch(epoch))
        assert [len(labels) for _, labels in batches] == sizes and len(source) == len(sizes)
        assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == list(range(n))
        assert all(torch.equal(images[:, 0, 0, 0].long(), labels) for images, labels in batches)


def test_every_epoch_is_shuffled_anew_and_keyed_by_its_number(global_chance_untouched):
    source = BatchSource(*numbered(20), 20, "crop_flip", (0, "x"))
    with global_chance_untouched():
        epochs = [source.rows(epoch)[0] for epoch in (0, 1)]
        late = BatchSource(*numbered(20), 20, "crop_flip", (0, "x")).rows(1)[0]
        other = BatchSource(*numbered(20), 20, "crop_flip", (0, "y")).rows(1)[0]
    assert not torch.equal(epochs[0][0], epochs[1][0])
    assert torch.equal(late[0], epochs[1][0]) and late[1] == epochs[1][1] and torch.equal(late[2], epochs[1][2])
    assert not torch.equal(other[0], epochs[1][0])


def test_one_operator_a_batch_and_parameters_an_image(pixels):
    images, labels = pixels(2, 30)
    source = BatchSource(images, labels, 16, "color_crop_scale", (0,), NORMALIZATION)
    choices = []
    for rows, choice, parameters in source.rows(0):
        assert parameters.shape == (len(rows), 3) and len(parameters.unique(dim=0)) == len(rows)
        batch, targets = source.batch(rows, choice, parameters)
        plain = NORMALIZATION.apply(images[rows])
        expected = augment_images(plain, choice, parameters, parse_strategy("color_crop_scale"))
        assert torch.equal(batch, expected) and torch.equal(targets, labels[rows])
        choices.append(choice)
    assert len(set(choices)) == 4


def test_the_operator_of_a_batch_is_uniform():
    source = BatchSource(*numbered(40), 1, "color_crop_cutout_flip_scale_rotate", (0,))
    names = [source.strategy.chosen(choice)[0] for epoch in range(50) for _, choice, _ in source.rows(epoch)]
    counts = [names.count(name) for name in source.strategy.names]
    expected = len(names) / 6
    assert sum((count - expected) ** 2 / expected for count in counts) < 20.5  # chi squared, 5 degrees, p = 0.001


def test_stacked_batches_are_bitwise_those_of_every_key_alone(pixels):
    images, labels = pixels()
    keys, options = keys_of(9), (16, TINY.augment)
    stacked = StackedBatches(images, labels, *options, keys, NORMALIZATION)
    sources = [BatchSource(images, labels, *options, key, NORMALIZATION) for key in keys]
    for epoch in range(3):
        for (some_images, some_labels), *alone in zip(
            stacked.epoch(epoch), *(source.epoch(epoch) for source in sources), strict=True
        ):
            assert torch.equal(some_images, torch.stack([batch for batch, _ in alone]))
            assert torch.equal(some_labels, torch.stack([targets for _, targets in alone]))
