"""Names of classes in the plugin's memory: those of the benchmark's data set where labels are its own."""

import pytest
import torch
from plugin_helpers import (
    TO_TENSOR,
    Pictures,
    as_classification_dataset,
    benchmark_from_datasets,
    class_incremental_benchmark,
    nc_benchmark,
    strategy,
    toy_pixels,
)
from torch.utils.data import ConcatDataset, Subset

from clreplay.memory.replay_memory import ReplayMemory
from clreplay.plugin.class_names import names_of
from clreplay.plugin.contents import read_contents
from clreplay.plugin.replay import CondensedReplayPlugin

NAMES = ["ant", "bee", "cat", "dog"]


class Named(Pictures):
    """As torchvision's data sets: with the names of all classes."""

    classes = NAMES


class Coarse(Named):
    """Items have other labels than ``targets``."""

    def __getitem__(self, index):
        picture, label = super().__getitem__(index)
        return picture, 3 - label


class Declared(Named):
    """The same, said as torchvision says it."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.target_transform = lambda label: 3 - label
        self.targets = [3 - label for label in self.targets]


def names_in(benchmark):
    """Names that the experiences give, one after another."""
    found = {}
    for experience in benchmark.train_stream:
        contents, _ = read_contents(experience.dataset.eval(), experience, ReplayMemory(1))
        assert set(contents.names) in (set(), set(contents.classes))
        found.update(contents.names)
    return found


def made(kind=Named, **more):
    data = kind(*toy_pixels())
    transforms = {"train_transform": TO_TENSOR, "eval_transform": TO_TENSOR}
    return nc_benchmark(data, data, 2, task_labels=False, seed=3, **transforms, **more)


def test_names_follow_the_labels_that_a_benchmark_gives():
    benchmark = made()
    assert names_in(benchmark) == dict(enumerate(NAMES))
    anew = made(class_ids_from_zero_from_first_exp=True)
    order = [int(original) for original in anew.classes_order_original_ids]
    assert order != sorted(order), "the classes are numbered anew"
    assert names_in(anew) == {label: NAMES[original] for label, original in enumerate(order)}


def test_labels_that_every_experience_begins_anew_have_the_names_of_each():
    benchmark = made(class_ids_from_zero_in_each_exp=True)
    for step, experience in enumerate(benchmark.train_stream):
        contents, _ = read_contents(experience.dataset.eval(), experience, ReplayMemory(1))
        originals = benchmark.original_classes_in_exp[step]
        assert sorted(contents.names.values()) == sorted(NAMES[one] for one in originals)
        for label, name in contents.names.items():
            assert benchmark.class_mapping[NAMES.index(name)] == label


def test_names_are_found_below_subsets_and_in_newer_benchmarks():
    data = Named(*toy_pixels())
    inside = ConcatDataset([Subset(data, range(20)), Subset(data, range(20, 40))])
    inside.targets = data.targets
    for made_of in (data, inside):
        whole = as_classification_dataset(made_of)
        assert names_of(object(), whole, torch.tensor(data.targets)) == dict(enumerate(NAMES))
    whole = as_classification_dataset(data)
    for benchmark in (
        benchmark_from_datasets(train=[whole], test=[whole]),
        class_incremental_benchmark({"train": whole, "test": whole}, num_experiences=2, seed=1),
    ):
        for experience in benchmark.train_stream:
            labels = torch.tensor([int(label) for label in experience.dataset.targets])
            wanted = {label: NAMES[label] for label in labels.unique().tolist()}
            assert names_of(experience, experience.dataset, labels) == wanted


@pytest.mark.parametrize("kind", [Pictures, Coarse, Declared])
def test_where_names_are_not_certain_there_are_none(kind):
    assert names_in(made(kind)) == {}


def test_two_data_sets_with_different_names_give_none():
    first, second = Named(*toy_pixels()), Named(*toy_pixels(seed=1))
    second.classes = ["ape", "bat", "cow", "doe"]
    both = ConcatDataset([first, second])
    both.targets = [*first.targets, *second.targets]
    assert names_of(object(), as_classification_dataset(both), torch.tensor(both.targets)) == {}


def test_the_memory_of_a_strategy_has_the_names(tmp_path):
    plugin = CondensedReplayPlugin("random", 2, preset="smoke")
    training = strategy(plugin)
    for experience in made().train_stream:
        training.train(experience)
    assert plugin.memory.class_names == dict(enumerate(NAMES))
    plugin.memory.save(tmp_path / "m.safetensors")
    loaded = ReplayMemory.load(tmp_path / "m.safetensors")
    assert loaded.dataset().classes == NAMES
    assert loaded.info["method"] == "random" and loaded.info["made_with"][0].keys() == {"clreplay", "commit"}


def test_names_that_are_given_are_taken():
    plugin = CondensedReplayPlugin("random", 2, preset="smoke", class_names=["a", "b", "c", "d"])
    strategy(plugin).train(made().train_stream[0])
    assert plugin.memory.class_names == dict(enumerate("abcd"))
    with pytest.raises(ValueError, match="class_names must be texts in the order of the labels"):
        CondensedReplayPlugin("random", 2, class_names="abcd")
