"""What steers the loops of CAFE: accuracies on real images, and the window that looks at the last of them."""

import pytest
import torch
from engines import NORMALIZATION, maker
from hypothesis import given
from hypothesis import strategies as st
from tiny import SMALL_CAFE

from clreplay.condensation import RealImages
from clreplay.condensation.cafe.accuracy_control import AccuracyWindow, RealAccuracy
from clreplay.condensation.cafe.engine import CafeEngine

engine = maker(CafeEngine, SMALL_CAFE, count=4)


CARRIED = st.sampled_from([0.0, 0.5, 0.25])  # exact in floats


@given(st.integers(1, 5), CARRIED, st.lists(st.integers(0, 20), max_size=12), st.integers(0, 20))
def test_a_window_looks_at_the_last_accuracies_and_says_nothing_before_it_is_full(length, carried, steps, limit):
    window, values = AccuracyWindow(length, carried), []
    for count, accuracy_now in enumerate(steps, start=1):
        window.add(accuracy_now)
        values.append(accuracy_now + carried * (values[-1] if values else 0))
        last = values[-length:]
        far = max(last) - min(last)
        assert window.is_stable(limit) == (count >= length and far < limit)
        assert window.has_changed(limit) == (count >= length and far > limit)
        assert list(AccuracyWindow(length, carried, window.values).values) == last
    if not steps:
        assert not window.is_stable(1.0) and not window.has_changed(0.0)


def test_what_an_accuracy_carries_is_what_a_sum_over_classes_carries_that_starts_from_the_last_mean():
    """The authors' loop, class by class: the sum is not set back before it is divided by the number of classes."""
    by_class = [[0.1, 0.3, 0.2], [0.5, 0.9, 0.4], [0.6, 0.6, 0.6]]
    total, window = 0.0, AccuracyWindow(9, 1 / 3)
    for accuracies in by_class:
        for accuracy in accuracies:
            total += accuracy
        total /= 3
        window.add(sum(accuracies) / 3)
        assert window.values[-1] == pytest.approx(total)


class Answers(torch.nn.Module):
    """Remembers what it is shown and answers everything with one class."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.seen, self.modes = answer, [], []

    def forward(self, images):
        self.seen.append(images)
        self.modes.append(self.training)
        return torch.nn.functional.one_hot(torch.full((len(images),), self.answer), 3).float()


def rows_seen(network, real):
    """Of the last measurement: positions of the images within their class, by class."""
    found = {label: [] for label in real.classes}
    for image in network.seen[-1]:
        for label in real.classes:
            same = (real.normalised(label) == image).flatten(1).all(1).nonzero()
            found[label] += same.flatten().tolist()
    return found


def test_accuracy_is_measured_on_equally_many_images_of_every_class_drawn_anew(real):
    some = engine(real)
    network = Answers(1)
    assert [some.accuracy(network, (0, 0), turn) for turn in range(3)] == [pytest.approx(1 / 3)] * 3
    assert network.modes == [False] * 3
    seen, turns = [], []
    for number, turn in (((0, 0), 0), ((0, 0), 1), ((0, 1), 0), ((1, 0), 0), ((0, 0), 0)):
        some.accuracy(network, number, turn)
        rows = rows_seen(network, real)
        assert all(len(found) == len(set(found)) == 5 for found in rows.values())
        seen.append(rows)
        turns.append(rows[0])
    assert seen[4] == seen[0] and seen[0][0] != seen[0][1]
    assert len({tuple(row) for row in turns}) == 4
    assert not set(turns[0]) & set(turns[1])  # every image comes once before any comes again


def test_a_class_smaller_than_the_measurement_is_used_whole_and_right_answers_count(pixels):
    real = RealImages(*pixels(each=[3, 12, 9]), NORMALIZATION)
    some = engine(real, count=2)
    outputs = {label: i for i, label in enumerate(label for group in some.groups for label in group.labels)}
    for label, size in ((0, 3), (1, 5), (2, 5)):
        network = Answers(outputs[label])
        assert some.accuracy(network, (0, 0), 0) == pytest.approx(size / 13)
        assert {one: len(found) for one, found in rows_seen(network, real).items()} == {0: 3, 1: 5, 2: 5}


def test_a_class_s_measurement_does_not_depend_on_the_classes_beside_it(pixels):
    images, labels = pixels(3, 12)
    network, rows = Answers(0), []
    for chosen in (labels < 3, labels == 1):
        real = RealImages(images[chosen], labels[chosen], NORMALIZATION)
        some = engine(real)
        measure = RealAccuracy(some.groups, some.outputs, real.normalise, 5, 3)
        measure(network, (2, 4), 1)
        rows.append(rows_seen(network, real)[1])
    assert rows[0] == rows[1]
