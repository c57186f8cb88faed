"""Training exactly as Dataset Distillation learned it: its images in their order, with their step sizes.

A memory is an ordinary training set to everybody else. The distilled images are only at their best in the steps
they were learned for (Wang et al. 2018), which is what is measured here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clreplay.condensation.distillation.unrolled_gradient import Batch, Loss, walk
from clreplay.data import ImageSet, Normalization
from clreplay.memory.decoders import decoder
from clreplay.networks.flat_function import FlatFunction
from clreplay.networks.settings import NetworkSettings
from clreplay.runtime.seeding import generator
from clreplay.training.evaluate import accuracy


def step_batches(images: Mapping[int, Tensor]) -> list[Batch]:
    """The batches of a cycle: step t takes image t of every class that has one.

    Args:
        images: of every class (k, c, h, w); the label that a network learns is the class's place in ascending order.

    Returns:
        as many batches as the largest class has images.
    """
    classes = sorted(images)
    steps = max(len(images[label]) for label in classes)
    batches = []
    for step in range(steps):
        places = [place for place, label in enumerate(classes) if len(images[label]) > step]
        rows = torch.stack([images[classes[place]][step] for place in places])
        batches.append((rows, torch.tensor(places, device=rows.device)))
    return batches


def step_loss(function: FlatFunction) -> Loss:
    """Mean cross-entropy of a batch as a function of the weights."""
    return lambda weights, images, labels: F.cross_entropy(function(weights, images), labels)


def learned_step_sizes(record: Iterable[Mapping[str, Any]], experience: int = 0) -> Tensor:
    """Step sizes as ``Condensed.record`` and ``ReplayMemory.record`` have them, in the order of the steps.

    Args:
        record: rows; those of step t of the learned training hold ``step_size``, at ``iteration`` t + 1.
        experience: which experience of a memory, from 0.

    Raises:
        ValueError: there are none.
    """
    rows = [row for row in record if "step_size" in row and row.get("experience", 0) == experience]
    if not rows:
        raise ValueError(f"the record has no step_size in experience {experience}; only dd learns step sizes")
    return torch.tensor([row["step_size"] for row in sorted(rows, key=lambda row: row["iteration"])])


def native_accuracies(
    images: Mapping[int, Tensor],
    step_sizes: Tensor | Sequence[float],
    test: ImageSet,
    normalization: Normalization,
    settings: NetworkSettings,
    *,
    cycles: int,
    networks: int = 5,
    seed: int = 0,
    device: torch.device | str = "cpu",
    decoding: str = "none",
) -> list[float]:
    """Percent right of fresh networks trained with exactly the learned steps and step sizes.

    The weights are drawn as while condensing, from other keys, so the networks are new to the images.

    Args:
        images: stored, of every class of one experience (k, c, h, w), normalised floats in the order learned. A class
            that has lost its last images to a shrinking budget takes part in fewer steps; empty steps are left out.
        step_sizes: (T,), see :func:`learned_step_sizes`.
        test: images of at least these classes; those of other classes are left out.
        normalization: of the test images.
        settings: the network, the one the images were learned with.
        cycles: times the batches were gone through: ``distill_epochs`` of the settings.
        networks: how many are trained, one after another.
        seed: of the weights.
        device: where to work.
        decoding: name of the decoder that makes images to train on of the stored ones.

    Raises:
        ValueError: step sizes and images do not fit, or a class has no test image.

    Example:
        >>> settings = load_recipe("dd").settings("smoke")
        >>> memory = condense(images, labels, "dd", 10, preset="smoke")
        >>> own = {label: memory.stored_images(label) for label in memory.classes}
        >>> sizes = learned_step_sizes(memory.record)
        >>> native_accuracies(own, sizes, test, memory.normalization, settings, cycles=settings.distill_epochs)
    """
    sizes = torch.as_tensor(step_sizes, dtype=torch.float32, device=device)
    batches = step_batches({label: own.to(device) for label, own in images.items()})
    if len(sizes) % cycles or len(sizes) < cycles * len(batches):
        raise ValueError(
            f"step_sizes must be {cycles} cycles of at least {len(batches)} steps, got {len(sizes)}; "
            "take those learned with these images"
        )
    taken = sizes.view(cycles, -1)[:, : len(batches)].flatten()
    function = FlatFunction(settings.build_for(len(images), batches[0][0].shape[1:]).to(device))
    function.network.train()
    shown = decoder(decoding)
    batches = [(shown(rows), places.repeat_interleave(shown.images_each)) for rows, places in batches]
    classes = torch.tensor(sorted(images))
    own_test = test.of_classes(classes.tolist())
    placed = ImageSet(own_test.images, torch.searchsorted(classes.to(own_test.labels.device), own_test.labels))
    found = []
    for number in range(networks):
        start = function.xavier_normal(generator(seed, "native", number, device=device))
        end = walk(step_loss(function), start, batches, taken)[-1]
        found.append(accuracy(function.module(end), placed, normalization, torch.device(device)))
    return found
