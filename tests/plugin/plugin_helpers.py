"""Toy benchmarks, a tiny network and spies for the tests of the Avalanche plugin.

To be imported before Avalanche: it silences what that warns of when it is imported.
"""

import warnings

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip, ToTensor

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="no QP solver found")
    from avalanche.benchmarks import benchmark_from_datasets, class_incremental_benchmark, nc_benchmark
    from avalanche.benchmarks.utils import as_classification_dataset
    from avalanche.benchmarks.utils.transform_groups import TransformGroups
    from avalanche.models import IncrementalClassifier, MultiHeadClassifier, MultiTaskModule
    from avalanche.training.plugins import EvaluationPlugin, SupervisedPlugin
    from avalanche.training.supervised import Naive

from clreplay.data import NORMALIZATIONS
from clreplay.plugin.replay import CondensedReplayPlugin

CIFAR10 = NORMALIZATIONS["cifar10"]
TO_TENSOR = Compose([ToTensor(), Normalize(CIFAR10.mean, CIFAR10.std)])
AUGMENTING = Compose([RandomCrop(8, padding=2), RandomHorizontalFlip(), TO_TENSOR])
FIRST, SECOND = {0, 1}, {2, 3}  # classes of the two experiences of every toy benchmark


class Pictures(Dataset):
    """uint8 images and labels as torchvision's data sets give them: a PIL picture and an int."""

    def __init__(self, images, labels):
        self.pixels = images.permute(0, 2, 3, 1).numpy()
        self.targets = labels.tolist()

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        pixels = self.pixels[index]
        return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels), self.targets[index]


class Counting:
    """A transform that counts its calls."""

    def __init__(self, transform):
        self.transform, self.calls = transform, 0

    def __call__(self, picture):
        self.calls += 1
        return self.transform(picture)


def toy_pixels(classes=4, each=10, size=8, seed=0):
    """uint8 (classes * each, 3, size, size) and labels, shuffled; classes differ in their mean colour."""
    chance = np.random.RandomState(seed)
    labels = np.repeat(np.arange(classes), [each] * classes if isinstance(each, int) else each)
    colour = chance.randint(0, 200, (classes, 3, 1, 1))
    images = colour[labels] + chance.randint(0, 56, (len(labels), 3, size, size))
    order = chance.permutation(len(labels))
    return torch.from_numpy(images[order].astype(np.uint8)), torch.from_numpy(labels[order])


def transform_groups(train=TO_TENSOR, evaluation=TO_TENSOR):
    return TransformGroups({"train": (train, None), "eval": (evaluation, None)})


def plain_benchmark(pixels=None, steps=2, train=TO_TENSOR, evaluation=TO_TENSOR):
    """``class_incremental_benchmark``: no task labels, a plain DataLoader, ``x, y`` batches."""
    images, labels = pixels or toy_pixels()
    data = as_classification_dataset(Pictures(images, labels), transform_groups=transform_groups(train, evaluation))
    order = sorted(set(labels.tolist()))
    return class_incremental_benchmark({"train": data, "test": data}, class_order=order, num_experiences=steps)


def nc(pixels=None, steps=2, task_labels=False, train=TO_TENSOR, evaluation=TO_TENSOR, **options):
    """``nc_benchmark``, as all Split benchmarks are made: ``x, y, t`` batches."""
    images, labels = pixels or toy_pixels()
    data = Pictures(images, labels)
    order = sorted(set(labels.tolist()))
    options = {"fixed_class_order": order, "train_transform": train, "eval_transform": evaluation, **options}
    return nc_benchmark(data, data, n_experiences=steps, task_labels=task_labels, **options)


def one_per_dataset(*parts, evaluation=TO_TENSOR):
    """``benchmark_from_datasets``: one experience a part, each a pair of images and labels."""
    sets = [
        as_classification_dataset(Pictures(*part), transform_groups=transform_groups(evaluation=evaluation))
        for part in parts
    ]
    return benchmark_from_datasets(train=sets, test=sets)


class TinyNet(nn.Module):
    """Convolution, batch norm, dropout, linear: everything that can be left in the wrong mode."""

    def __init__(self, classes=4, channels=3):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.25)
        self.classifier = nn.Linear(4, classes)

    def forward(self, images):
        return self.classifier(self.dropout(self.norm(self.conv(images)).relu().mean((2, 3))))


class SmallNet(TinyNet):
    """Without dropout, whose masks come from the global generator."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Identity()


class GrowingNet(SmallNet):
    """Outputs are added as classes arrive."""

    def __init__(self):
        super().__init__()
        self.classifier = IncrementalClassifier(4, initial_out_features=1)


class HeadedNet(MultiTaskModule):
    """One head a task."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.heads = MultiHeadClassifier(4, initial_out_features=4)

    def forward(self, images, task_labels):
        return self.heads(self.norm(self.conv(images)).relu().mean((2, 3)), task_labels)


class Spy(SupervisedPlugin, supports_distributed=True):
    """Notes what the strategy is like when training on an experience begins, and every batch."""

    def __init__(self):
        super().__init__()
        self.starts, self.batches, self.rates, self.kwargs = [], [], [], []

    def before_training_epoch(self, strategy, **kwargs):
        if strategy.clock.train_exp_epochs == 0:
            self.kwargs.append(kwargs)
            self.batches.append([])
            self.rates.append([])
            groups = strategy.optimizer.param_groups
            self.starts.append(
                {
                    "weights": weights(strategy.model),
                    "buffers": {name: b.clone() for name, b in strategy.model.named_buffers()},
                    "optimizer_state": {p: dict(s) for p, s in strategy.optimizer.state.items()},
                    "groups": [{k: v for k, v in group.items() if k != "params"} for group in groups],
                    "optimized": {id(p) for group in groups for p in group["params"]},
                    "parameters": {id(p) for p in strategy.model.parameters()},
                    "model": strategy.model,
                    "training": [m.training for m in strategy.model.modules()],
                    "adapted_dataset": strategy.adapted_dataset,
                }
            )

    def before_training_iteration(self, strategy, **kwargs):
        self.batches[-1].append([part.clone() for part in strategy.mbatch])
        self.rates[-1].append(strategy.optimizer.param_groups[0]["lr"])

    def labels(self, step):
        """All labels that an experience's batches held."""
        return torch.cat([batch[1] for batch in self.batches[step]])

    def images(self, step):
        """All images that an experience's batches held."""
        return torch.cat([batch[0] for batch in self.batches[step]])


def stored(served, images):
    """Of every image that was served, whether it is one of the stored images to the last bit."""
    return [bool((images == one).flatten(1).all(1).any()) for one in served]


def weights(model):
    return torch.cat([p.detach().flatten().cpu() for p in model.parameters()])


def random_replay(images_per_class=2, **options):
    """The plugin with the cheapest memory."""
    if {"memory", "mem_size", "mem_bytes"} & set(options):
        images_per_class = None
    return CondensedReplayPlugin("random", images_per_class, **options)


def ddm_replay(images_per_class=2, **options):
    """The plugin with two iterations of DDM on a narrow network."""
    if {"memory", "mem_size", "mem_bytes"} & set(options):
        images_per_class = None
    return CondensedReplayPlugin(
        "ddm", images_per_class, **{"iterations": 2, "width": 4, "depth": 1, "real_batch": 4, **options}
    )


def strategy(*plugins, model=None, kind=Naive, optimizer=None, lr=0.1, **options):
    """A strategy with the tiny network; its model and optimizer are ``.model`` and ``.optimizer``."""
    model = TinyNet() if model is None else model
    if optimizer is None:
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    defaults = {"criterion": nn.CrossEntropyLoss(), "train_mb_size": 4, "eval_mb_size": 64, "train_epochs": 2}
    settings = {**defaults, **options}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No loggers specified")
        settings.setdefault("evaluator", EvaluationPlugin())
        return kind(model=model, optimizer=optimizer, plugins=list(plugins), **settings)


def run(benchmark, *plugins, **options):
    """Train on every experience in turn; gives the strategy back."""
    trained = strategy(*plugins, **options)
    for experience in benchmark.train_stream:
        trained.train(experience)
    return trained


def memory_bytes(memory):
    """All that a memory is, comparable: settings text and the bytes of every tensor."""
    return {
        name: value if isinstance(value, str) else (value.dtype, tuple(value.shape), value.numpy().tobytes())
        for name, value in memory.state_dict().items()
    }
