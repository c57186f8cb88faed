"""Learned steps and their sizes: their order, training with them, and where they are found in a memory."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from engines import NORMALIZATION, maker

from clreplay.api import condense
from clreplay.condensation import RealImages
from clreplay.condensation.distillation.engine import DistillationEngine
from clreplay.condensation.distillation.learned_steps import learned_step_sizes, native_accuracies, step_batches
from clreplay.condensation.distillation.settings import UnrolledSettings
from clreplay.data import ImageSet
from clreplay.memory.decoders import tiles2
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.networks.flat_function import FlatFunction
from clreplay.runtime.seeding import generator

TINY = UnrolledSettings(
    width=4, depth=2, updates=5, real_batch=10, distill_epochs=2, step_size=0.3, lr_img=0.1, lr_stages=2
)
engine = maker(DistillationEngine, TINY, count=2)


def test_step_t_takes_image_t_of_every_class_that_has_one():
    images = {7: torch.full((2, 1, 1, 1), 70.0), 2: torch.full((3, 1, 1, 1), 20.0), 5: torch.full((1, 1, 1, 1), 50.0)}
    for own in images.values():
        own += torch.arange(len(own))[:, None, None, None]
    batches = [(rows.flatten().tolist(), labels.tolist()) for rows, labels in step_batches(images)]
    assert batches == [([20, 50, 70], [0, 1, 2]), ([21, 71], [0, 2]), ([22], [0])]


@pytest.fixture
def task(pixels):
    images, labels = pixels(3, 40)
    return RealImages(images[:60], labels[:60] * 4 + 1, NORMALIZATION), ImageSet(images[60:], labels[60:] * 4 + 1)


def test_native_training_takes_the_learned_steps_with_their_sizes(task):
    real, test = task
    images, sizes = engine(real).images(), [0.5, 0.1, 0.9, 0.0001]
    found = native_accuracies(images, sizes, test, NORMALIZATION, TINY, cycles=2, networks=2, seed=6)
    expected = []
    for number in range(2):
        function = FlatFunction(TINY.build(3, 3, 8))
        network = function.module(function.xavier_normal(generator(6, "native", number))).requires_grad_()
        for t, size in enumerate(sizes):
            loss = F.cross_entropy(network(torch.stack([own[t % 2] for own in images.values()])), torch.arange(3))
            network.zero_grad()
            loss.backward()
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter -= size * parameter.grad
        right = network(NORMALIZATION.apply(test.images)).argmax(1) * 4 + 1 == test.labels
        expected.append(100 * float(right.float().mean()))
    assert found == pytest.approx(expected, abs=1e-3)


def test_the_learned_steps_train_fresh_networks_and_their_sizes_are_part_of_them(task):
    real, test = task
    settings = replace(TINY, updates=50, real_batch=60)
    result = engine(real, settings).run()
    sizes = learned_step_sizes(result.record)

    def measured(images, sizes, networks=8):
        values = native_accuracies(images, sizes, test, NORMALIZATION, settings, cycles=2, networks=networks)
        return sum(values) / len(values)

    learned = measured(result.images, sizes)
    assert learned > 60
    assert learned > measured(engine(real, settings).images(), sizes) + 20  # the noise they began as
    assert learned > measured(result.images, sizes / 20) + 10


def test_step_sizes_and_images_are_found_again_in_a_saved_memory(pixels, tmp_path):
    images, labels = pixels(4, 20)
    memory = condense(images, labels, "dd", 2, preset="smoke", normalization="cifar10", width=4, depth=2, device="cpu")
    memory.save(tmp_path / "memory.safetensors")
    again = ReplayMemory.load(tmp_path / "memory.safetensors")
    sizes = learned_step_sizes(again.record)
    assert torch.equal(sizes, learned_step_sizes(memory.record)) and len(sizes) % 2 == 0 and (sizes > 0).all()
    own = {label: again.class_images(label) for label in again.classes}
    settings = replace(TINY, distill_epochs=len(sizes) // 2)
    test = ImageSet(images, labels)
    (value,) = native_accuracies(own, sizes, test, NORMALIZATION, settings, cycles=settings.distill_epochs, networks=1)
    assert 0 <= value <= 100


def test_tiles_are_trained_on_all_together_in_the_step_of_their_image(task):
    real, test = task
    settings = replace(TINY, updates=3, real_batch=60, tiles=2)
    result = engine(real, settings).run()
    sizes, how = learned_step_sizes(result.record), {"cycles": 2, "networks": 1}
    assert result.decoding == "tiles2" and len(sizes) == 4
    (found,) = native_accuracies(result.images, sizes, test, NORMALIZATION, settings, **how, decoding="tiles2")
    start = FlatFunction(settings.build(len(result.images), 3, 8)).xavier_normal(generator(0, "native", 0))
    function = FlatFunction(settings.build(len(result.images), 3, 8))
    function.network.train()
    for number, size in enumerate(sizes):
        shown = {label: tiles2(own[number % 2][None]) for label, own in result.images.items()}
        batch = torch.cat([shown[label] for label in sorted(shown)])
        targets = torch.arange(len(shown)).repeat_interleave(4)
        start.requires_grad_()
        loss = F.cross_entropy(function(start, batch), targets)
        start = (start - size * torch.autograd.grad(loss, start)[0]).detach()
    right = function(start, NORMALIZATION.apply(test.images)).argmax(1) * 4 + 1 == test.labels
    assert found == pytest.approx(100 * float(right.float().mean()), abs=1e-3)


def test_step_sizes_of_every_experience_are_kept_apart():
    rows = [{"experience": e, "iteration": i, "step_size": e + i / 10} for e in (0, 1) for i in (2, 1)]
    rows.append({"experience": 1, "iteration": 1, "loss": 3.0})
    assert learned_step_sizes(rows, 1).tolist() == pytest.approx([1.1, 1.2])
    with pytest.raises(ValueError, match="no step_size in experience 2; only dd learns step sizes"):
        learned_step_sizes(rows, 2)


def test_a_shrunken_memory_leaves_its_empty_steps_out(task):
    real, test = task
    images = engine(real).images()
    first = {label: own[:1] for label, own in images.items()}
    shrunk = native_accuracies(first, [0.3, 9.0, 0.2, 9.0], test, NORMALIZATION, TINY, cycles=2)
    assert shrunk == native_accuracies(first, [0.3, 0.2], test, NORMALIZATION, TINY, cycles=2)


@pytest.mark.parametrize("sizes", [[0.1] * 3, [0.1] * 2, [0.1] * 5])
def test_step_sizes_that_do_not_fit_the_images_are_refused(task, sizes):
    real, test = task
    with pytest.raises(ValueError, match=f"2 cycles of at least 2 steps, got {len(sizes)}"):
        native_accuracies(engine(real).images(), sizes, test, NORMALIZATION, TINY, cycles=2)
