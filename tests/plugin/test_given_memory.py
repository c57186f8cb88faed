"""A memory that is given is compared with the classes that an experience has."""

import logging

import pytest
import torch
from plugin_helpers import (
    CIFAR10,
    TO_TENSOR,
    Counting,
    Spy,
    TinyNet,
    memory_bytes,
    nc,
    plain_benchmark,
    random_replay,
    run,
    strategy,
    toy_pixels,
    weights,
)
from torchvision.transforms import ToTensor

from clreplay import ReplayMemory, condense
from clreplay.condensation import RealImages


def condensed(images, labels, **options):
    return condense(images, labels, "random", 2, **{"normalization": "cifar10", "device": "cpu", **options})


@pytest.mark.parametrize("make", [plain_benchmark, nc])
def test_the_memory_of_the_data_is_taken_without_a_word(make, caplog):
    images, labels = toy_pixels()
    with caplog.at_level(logging.WARNING, "clreplay"):
        run(make((images, labels)), random_replay(memory=condensed(images, labels)))
    assert caplog.records == []


@pytest.mark.parametrize("order", [[1, 0, 3, 2], [1, 2, 3, 0]], ids=["within an experience", "across experiences"])
def test_permuted_labels_are_refused(order):
    images, labels = toy_pixels()
    memory = condensed(images, torch.tensor(order)[labels])
    plugin = random_replay(memory=memory)
    trained = strategy(plugin)
    before = weights(trained.model)
    with pytest.raises(ValueError, match=r"class \d of the memory was made from the images of class \d.*benchmark's"):
        trained.train(plain_benchmark((images, labels)).train_stream[0])
    assert torch.equal(weights(trained.model), before) and plugin.seen == []


def test_images_of_other_data_are_warned_of(caplog):
    with caplog.at_level(logging.WARNING, "clreplay"):
        run(plain_benchmark(toy_pixels(seed=1)), random_replay(memory=condensed(*toy_pixels(seed=0))))
    assert [r.getMessage().split(" were not")[0] for r in caplog.records] == [
        "the memory's classes [0, 1]",
        "the memory's classes [2, 3]",
    ]


def test_a_total_budget_that_is_shared_with_classes_to_come_is_told_of_once(caplog):
    benchmark, memory = plain_benchmark(), ReplayMemory(mem_size=16)
    with caplog.at_level(logging.WARNING, "clreplay"):
        run(benchmark, random_replay(memory=memory))
        assert caplog.records == []
        spy = Spy()
        run(benchmark, random_replay(memory=memory), spy, train_epochs=1)
    assert [len(spy.labels(step)) for step in (0, 1)] == [8, 16]
    assert [r.getMessage().split(": they take")[0] for r in caplog.records] == [
        "classes in memory that this strategy has not seen yet"
    ]


def test_strategies_that_share_a_total_budget_step_by_step_are_not_told(caplog):
    benchmark, memory = plain_benchmark(), ReplayMemory(mem_size=16)
    both = [strategy(random_replay(memory=memory)) for _ in range(2)]
    with caplog.at_level(logging.WARNING, "clreplay"):
        for experience in benchmark.train_stream:
            for trained in both:
                trained.train(experience)
    assert caplog.records == []


def test_another_normalisation_is_refused():
    images, labels = toy_pixels()
    memory = condensed(images, labels)
    with pytest.raises(
        ValueError, match="the memory is normalised with .*0.49.* and the experience with .*eval_transform"
    ):
        run(plain_benchmark((images, labels), evaluation=ToTensor()), random_replay(memory=memory))


def test_another_shape_is_refused():
    images, labels = toy_pixels()
    memory = condensed(images, labels)
    small = lambda picture: TO_TENSOR(picture.resize((6, 6)))  # noqa: E731
    with pytest.raises(ValueError, match=r"images of shape \(3, 6, 6\) and the memory holds \(3, 8, 8\)"):
        run(plain_benchmark((images, labels), evaluation=small), random_replay(memory=memory))


def test_other_channels_are_refused():
    images, labels = toy_pixels()
    memory = condensed(images[:, :1].clone(), labels, normalization="digits")
    with pytest.raises(ValueError, match=r"images of shape \(3, 8, 8\) and the memory holds \(1, 8, 8\)"):
        run(plain_benchmark((images, labels)), random_replay(memory=memory), model=TinyNet())


def test_a_memory_may_be_given_by_the_path_of_its_file(tmp_path):
    images, labels = toy_pixels()
    memory = condensed(images, labels)
    memory.save(tmp_path / "memory.safetensors")
    for path in (tmp_path / "memory.safetensors", str(tmp_path / "memory.safetensors")):
        plugin, spy = random_replay(memory=path), Spy()
        run(plain_benchmark((images, labels)), plugin, spy)
        assert memory_bytes(plugin.memory) == memory_bytes(memory)
        assert set(spy.labels(0).tolist()) == {0, 1}


@pytest.mark.parametrize("other", [{"images": 1}, 20, [ReplayMemory(2)]], ids=["dict", "int", "list"])
def test_what_is_no_memory_is_refused_in_the_constructor(other):
    with pytest.raises(ValueError, match=f"must be a ReplayMemory or the path of its file, got {type(other).__name__}"):
        random_replay(memory=other)


def test_a_path_without_a_memory_is_refused_in_the_constructor(tmp_path):
    with pytest.raises(FileNotFoundError, match="no memory at"):
        random_replay(memory=tmp_path / "nothing.safetensors")


def test_images_from_elsewhere_must_be_of_the_experience_s_classes():
    images, labels = toy_pixels()
    plugin = random_replay(real_images=lambda experience: RealImages(images, labels, CIFAR10))
    with pytest.raises(ValueError, match=r"real_images gave classes \[0, 1, 2, 3\] of an experience of \[0, 1\]"):
        run(plain_benchmark((images, labels)), plugin)


def test_images_from_elsewhere_are_condensed_and_the_experience_is_not_read():
    images, labels = toy_pixels()
    reading = Counting(TO_TENSOR)

    def given(experience):
        rows = torch.isin(labels, torch.tensor(list(experience.classes_in_this_experience)))
        return RealImages(images[rows], labels[rows], CIFAR10)

    plugin, reference = random_replay(real_images=given), random_replay()
    run(plain_benchmark((images, labels), evaluation=reading), plugin)
    run(plain_benchmark((images, labels)), reference)
    assert reading.calls == 2  # an image an experience, to try the model
    assert memory_bytes(plugin.memory) == memory_bytes(reference.memory)
