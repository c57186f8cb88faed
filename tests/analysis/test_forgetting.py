"""Forgetting, accuracy by class and the confusion of old and new, against counts written out by hand and by loops."""

from __future__ import annotations

import itertools

import pandas as pd
import pytest
import torch

from clreplay.analysis.forgetting import accuracy_by_class, accuracy_by_task, forgetting, old_and_new

CLASSES = ((2, 0), (3, 1), (4,))
"""Of each step, in order of arrival."""


@pytest.fixture
def counted():
    """Random counts of two orders, two networks and three steps: by place, and as the frame of them."""
    chance, counts, rows = torch.Generator().manual_seed(0), {}, []
    arrived = {label: step for step, part in enumerate(CLASSES) for label in part}
    for order, network, step in itertools.product(range(2), range(2), range(3)):
        for label, taken_for in itertools.product([c for part in CLASSES[: step + 1] for c in part], range(5)):
            count = int(torch.randint(0, 6, (), generator=chance))
            counts[order, network, step, label, taken_for] = count
            if count:
                other = arrived[taken_for] if arrived[taken_for] <= step else -1
                rows.append(("r", "dm", order, step, network, label, taken_for, count, arrived[label], other))
    columns = "run memory class_order step network label taken_for count arrived taken_for_arrived".split()
    return counts, pd.DataFrame(rows, columns=columns)


def share(counts, order, network, step, labels):
    right = sum(counts[order, network, step, label, label] for label in labels)
    return 100 * right / sum(counts[order, network, step, label, other] for label in labels for other in range(5))


NETWORKS = list(itertools.product(range(2), range(2)))


def test_accuracy_of_a_class_and_of_a_task_are_means_over_networks(counted):
    counts, frame = counted
    by_class = accuracy_by_class(frame).set_index(["step", "label"])
    by_task = accuracy_by_task(frame).set_index(["step", "arrived"])
    for step in range(3):
        for task, labels in enumerate(CLASSES[: step + 1]):
            values = torch.tensor([share(counts, *network, step, labels) for network in NETWORKS])
            found = by_task.loc[step, task]
            assert found.accuracy == pytest.approx(values.mean().item(), rel=1e-5) and found.networks == 4
            assert found["std"] == pytest.approx(values.std(correction=0).item(), rel=1e-4)
            for label in labels:
                values = [share(counts, *network, step, [label]) for network in NETWORKS]
                assert by_class.loc[step, label].accuracy == pytest.approx(sum(values) / 4)


def test_forgetting_is_the_distance_from_the_best_so_far(counted):
    counts, frame = counted
    found = forgetting(frame).set_index("step").forgetting
    assert list(found.index) == [1, 2]
    for step in (1, 2):
        values = []
        for network in NETWORKS:
            drops = [
                max(share(counts, *network, before, CLASSES[task]) for before in range(task, step))
                - share(counts, *network, step, CLASSES[task])
                for task in range(step)
            ]
            values.append(sum(drops) / len(drops))
        assert found[step] == pytest.approx(sum(values) / 4)


def test_old_and_new_images_go_somewhere(counted):
    counts, frame = counted
    found = old_and_new(frame).set_index(["step", "of"])
    assert (0, "old") not in found.index
    shares = found[["right", "other_old", "other_new", "unseen"]]
    assert shares.sum(axis=1).tolist() == pytest.approx([100] * len(found))
    new, old = CLASSES[2], [label for part in CLASSES[:2] for label in part]
    as_new = sum(counts[o, n, 2, label, other] for o, n in NETWORKS for label in old for other in new)
    total = sum(counts[o, n, 2, label, other] for o, n in NETWORKS for label in old for other in range(5))
    assert found.loc[(2, "old"), "other_new"] == pytest.approx(100 * as_new / total)
    unseen = sum(counts[o, n, 0, label, other] for o, n in NETWORKS for label in CLASSES[0] for other in (3, 1, 4))
    total = sum(counts[o, n, 0, label, other] for o, n in NETWORKS for label in CLASSES[0] for other in range(5))
    assert found.loc[(0, "new"), "unseen"] == pytest.approx(100 * unseen / total)
