"""Labels and task labels are those that the items of a data set give."""

import numpy as np
import pytest
import torch
from avalanche.training import Cumulative
from avalanche.training.supervised import JointTraining
from avalanche.training.templates import SupervisedTemplate
from plugin_helpers import (
    SmallNet,
    Spy,
    TinyNet,
    as_classification_dataset,
    benchmark_from_datasets,
    ddm_replay,
    memory_bytes,
    nc,
    nc_benchmark,
    one_per_dataset,
    plain_benchmark,
    random_replay,
    run,
    strategy,
    toy_pixels,
    weights,
)
from torch.utils.data import Dataset
from torchvision.transforms import ToTensor

from clreplay.condensation import Condensed
from clreplay.plugin.replay import CondensedReplayPlugin


class Relabelled(Dataset):
    """As torchvision's data sets: ``targets`` are raw, items give what ``target_transform`` makes of them."""

    def __init__(self, images, labels, target_transform):
        self.images = images.float() / 255
        self.targets, self.target_transform = labels.tolist(), target_transform

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return self.images[index], self.target_transform(self.targets[index])


def relabelled(target_transform, steps=1):
    """A benchmark of four classes whose items give other labels than ``targets``."""
    data = Relabelled(*toy_pixels(), target_transform)
    return nc_benchmark(data, data, steps, task_labels=False, fixed_class_order=[0, 1, 2, 3])


def as_they_come(target_transform):
    """An experience whose labels nothing of Avalanche's looks up: ``nc_benchmark`` takes class numbers only."""
    data = as_classification_dataset(Relabelled(*toy_pixels(), target_transform))
    return benchmark_from_datasets(train=[data], test=[data]).train_stream[0]


def never(real, counts, settings, **rest):
    raise AssertionError("nothing may be condensed")


def never_condensed(experience, message, **options):
    """Training is refused, and nothing was condensed for it."""
    plugin = CondensedReplayPlugin(never, 2)
    with pytest.raises(ValueError, match=message):
        strategy(plugin, **options).train(experience)
    assert len(plugin.memory) == 0


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize("kind", [int, np.int64, torch.tensor], ids=["int", "NumPy", "tensor"])
def test_a_target_transform_numbers_the_memory_s_classes(kind):
    images, labels = toy_pixels()
    plugin = random_replay(augment=None)
    run(relabelled(lambda target: kind(3 - target)), plugin)
    for label in range(4):
        real = {row.numpy().tobytes() for row in images[labels == 3 - label]}
        assert {row.numpy().tobytes() for row in plugin.memory.slots[label].codes} <= real


def test_a_network_learns_what_the_target_transform_says():
    benchmark = relabelled(lambda target: 3 - target)
    trained = run(
        benchmark, random_replay(6, augment=None), model=SmallNet(), train_epochs=60, train_mb_size=8, lr=0.05
    )
    trained.model.eval()
    data = benchmark.test_stream[0].dataset.eval()
    right = [int(trained.model(data[i][0][None]).argmax()) == data[i][1] for i in range(len(data))]
    assert sum(right) / len(right) > 0.9


def test_coarse_labels_make_coarse_classes():
    plugin = random_replay()
    run(relabelled(lambda target: target // 2), plugin, model=TinyNet(2))
    assert plugin.memory.classes == [0, 1]
    assert plugin.seen == [0, 1]


@pytest.mark.parametrize(
    ("target_transform", "got"),
    [
        (lambda target: target + 0.9, r"item 0 gives \d.9 \(float\)"),
        (lambda target: torch.tensor(float(target)), r"item 0 gives \d.0 \(Tensor\)|item 0 gives tensor"),
        (lambda target: np.float32(target), "item 0 gives .* \\(float32\\)"),
        (str, r"item 0 gives \d \(str\)"),
        (bool, r"item 0 gives (True|False) \(bool\)"),
        (lambda target: torch.eye(4, dtype=torch.int64)[target], "item 0 gives tensor"),
        (lambda target: None, "item 0 gives None"),
    ],
    ids=["float", "float tensor", "NumPy float", "text", "bool", "one-hot", "none"],
)
def test_labels_that_are_no_integers_are_refused_before_condensing(target_transform, got):
    never_condensed(
        as_they_come(target_transform), f"labels must be integers, {got}.*target_transform, give class numbers"
    )


def test_negative_labels_are_refused_before_condensing():
    never_condensed(
        as_they_come(lambda target: target - 9), r"labels must be at least 0, item 0 gives -\d; number classes from 0"
    )


def test_classes_that_a_target_transform_joins_across_experiences_are_refused():
    stream, plugin = relabelled(lambda target: target % 2, steps=2).train_stream, random_replay()
    trained = strategy(plugin)
    trained.train(stream[0])
    with pytest.raises(ValueError, match=r"classes \[0, 1\] have come in an earlier experience"):
        trained.train(stream[1])


def test_task_labels_are_the_items_last_value():
    experience = nc(task_labels=True).train_stream[1]
    plugin = random_replay()
    strategy(plugin).train(experience)
    assert plugin.task_labels == {2: 1, 3: 1}


def test_uint8_images_are_refused_with_the_cure():
    images, labels = toy_pixels()
    benchmark = plain_benchmark((images, labels), evaluation=lambda picture: (ToTensor()(picture) * 255).byte())
    never_condensed(benchmark.train_stream[0], "give uint8 images.*eval_transform that ends in ToTensor")


# ---------------------------------------------------------------- data that the strategy adapts


@pytest.mark.parametrize("make", [plain_benchmark, nc])
def test_joint_training_condenses_all_experiences(make):
    images, labels = toy_pixels()
    spy, plugin, reference = Spy(), ddm_replay(augment=None), ddm_replay()
    trained = strategy(plugin, spy, kind=JointTraining)
    trained.train(make((images, labels)).train_stream)
    assert plugin.memory.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert set(spy.labels(0).tolist()) == {0, 1, 2, 3}
    run(make((images, labels)), reference)
    assert [plugin.memory.class_images(c).tolist() for c in range(4)] == [
        reference.memory.class_images(c).tolist() for c in range(4)
    ]


class Half(SupervisedTemplate):
    """Trains on a part of every experience."""

    def train_dataset_adaptation(self, **kwargs):
        super().train_dataset_adaptation(**kwargs)
        targets = list(self.adapted_dataset.targets)
        self.adapted_dataset = self.adapted_dataset.subset([i for i, target in enumerate(targets) if target % 2])


def test_what_a_strategy_leaves_out_is_not_condensed():
    plugin = random_replay()
    run(plain_benchmark(), plugin, kind=Half)
    assert plugin.memory.classes == plugin.seen == [1, 3]


class Replacing(SupervisedTemplate):
    """Trains on something that is no data set of Avalanche's."""

    def train_dataset_adaptation(self, **kwargs):
        self.adapted_dataset = [(torch.zeros(3, 8, 8), 0)]


def test_data_without_evaluation_transforms_are_refused():
    never_condensed(
        plain_benchmark().train_stream[0],
        "trains on a list, which has no evaluation transforms.*adapted_dataset",
        kind=Replacing,
    )


def test_classes_that_a_strategy_carries_along_are_condensed_once():
    condensed = []

    def first(real, counts, settings, **rest):
        condensed.append((real.classes, len(real.images)))
        return Condensed({label: real.raw(label)[: counts[label]] for label in real.classes})

    plugin, spy = CondensedReplayPlugin(first, 2), Spy()
    run(plain_benchmark(), plugin, spy, kind=Cumulative)
    assert condensed == [([0, 1], 20), ([2, 3], 20)]
    assert set(spy.labels(1).tolist()) == {0, 1, 2, 3}


def test_more_images_of_an_earlier_class_are_refused_where_a_strategy_carries_it_along():
    images, labels = toy_pixels(3)
    parts = [torch.isin(labels, torch.tensor(classes)) for classes in ([0, 1], [1, 2])]
    stream = one_per_dataset(*((images[rows], labels[rows]) for rows in parts)).train_stream
    plugin = random_replay()
    trained = strategy(plugin, kind=Cumulative)
    trained.train(stream[0])
    before, learned = memory_bytes(plugin.memory), weights(trained.model)
    with pytest.raises(ValueError, match=r"classes \[1\] have come in an earlier experience"):
        trained.train(stream[1])
    assert memory_bytes(plugin.memory) == before and torch.equal(weights(trained.model), learned)


def test_training_twice_on_an_experience_is_refused_with_what_to_do():
    stream, trained = plain_benchmark().train_stream, strategy(random_replay())
    trained.train(stream[0])
    with pytest.raises(ValueError, match="To train longer raise train_epochs; for another strategy make a new plugin"):
        trained.train(stream[0])
