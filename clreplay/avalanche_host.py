"""The class-incremental experiment through Avalanche: strategies with the plugin, as a user would write them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import CrossEntropyLoss
from torch.utils.data import Dataset

warnings.filterwarnings("ignore", message=".*qpsolvers.*|No QP solver.*|.*GEM.*solver.*")

from avalanche.benchmarks import nc_benchmark  # noqa: E402  (the filter must be in place first)
from avalanche.evaluation.metrics import accuracy_metrics  # noqa: E402
from avalanche.training.plugins import EvaluationPlugin, SupervisedPlugin  # noqa: E402
from avalanche.training.supervised import Naive  # noqa: E402

from clreplay.data import ImageSet, Normalization  # noqa: E402
from clreplay.plugin import CondensedReplayPlugin  # noqa: E402

if TYPE_CHECKING:
    from clreplay.continual import Line
    from clreplay.experiment import Plan

METRIC = "Top1_Acc_Stream/eval_phase/test_stream"


def avalanche_steps(line: Line, first: int) -> Iterator[list[tuple[float, float]]]:
    """The Avalanche host: accuracy and training seconds of every network, step by step from ``first``.

    One strategy a network; all share the line's memory, which the first of them condenses.
    """
    made = line.plan
    benchmark = make_benchmark(line.plan, line.order)
    strategies = [_strategy(line, number, first) for number in range(made.settings.networks)]
    for step in range(first, made.settings.steps):
        measured = []
        for strategy in strategies:
            with line.condensing(step) as condensing:
                plugin = strategy.plugins[0]
                plugin.progress, plugin.keep = condensing, line.work_in_progress(step)
                start = time.perf_counter()
                strategy.train(benchmark.train_stream[step])
                seconds = time.perf_counter() - start - plugin.condense_seconds
                plugin.progress = None
            metrics = strategy.eval(benchmark.test_stream[: step + 1])
            measured.append((100.0 * _stream_accuracy(metrics), seconds))
        yield measured


@lru_cache(maxsize=1)
def make_benchmark(made: Plan, order: int) -> Any:
    """The data set as an Avalanche benchmark whose experiences follow a class order; memories compared share it."""
    transform = ToInput(made.data.normalization)
    return nc_benchmark(
        PixelDataset(made.data.train),
        PixelDataset(made.data.test),
        n_experiences=made.settings.steps,
        task_labels=False,
        fixed_class_order=[label for part in made.classes(order) for label in part],
        train_transform=transform,
        eval_transform=transform,
    )


class PixelDataset(Dataset):
    """An :class:`ImageSet` as Avalanche likes data sets: uint8 images (c, h, w), integer labels, ``targets``."""

    def __init__(self, images: ImageSet) -> None:
        self.images, self.targets = images.images, images.labels.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], self.targets[index]


class ToInput:
    """Pixel codes to network input: bit for bit ``ToTensor()`` and ``Normalize(...)``, in a third of their time."""

    def __init__(self, normalization: Normalization) -> None:
        self.normalization = normalization

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.normalization.apply(pixels[None])[0]


class Schedule(SupervisedPlugin, supports_distributed=False):
    """The learning-rate drop of DM's protocol, and the line's book-keeping at the start of training."""

    def __init__(self, line: Line, number: int, memory: CondensedReplayPlugin) -> None:
        super().__init__()
        self.line, self.number, self.memory = line, number, memory
        self.task: Any = None
        self.drop_after: int | None = None

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Save a memory that was just condensed before hours of training begin; fix their length."""
        images = len(strategy.adapted_dataset)  # as served: a memory may decode to more images than it stores
        learner = self.line.plan.learner
        strategy.train_epochs, self.drop_after = learner.epochs_for(images), learner.drop_after(images)
        step = self.memory.experiences
        if len(self.line.memory.info["condense_seconds"]) == step:
            self.line.keep(step, self.memory.condense_seconds)
        networks = self.line.plan.settings.networks
        self.task = self.line.reporter.task(f"{self.line.title(step)}, network {self.number + 1}/{networks}")

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """After half of the epochs the learning rate drops and momentum starts anew (a new optimiser in DM)."""
        learner = self.line.plan.learner
        epoch = strategy.clock.train_exp_epochs
        self.task(epoch + 1, strategy.train_epochs, "epochs")
        if epoch == self.drop_after:
            strategy.optimizer.state.clear()
            for group in strategy.optimizer.param_groups:
                group["lr"] *= learner.lr_drop

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Take the progress bar away."""
        self.task.__exit__()


def _strategy(line: Line, number: int, first: int) -> Naive:
    made, learner = line.plan, line.plan.learner
    network = made.network()
    memory = CondensedReplayPlugin(
        line.recipe,
        preset=made.settings.preset,
        memory=line.memory,
        seed=made.seed_of(line.recipe, line.order),
        training_seed=made.training_seed(line.order, number),
        augment=learner.augment,
        cache=made.settings.cache,
    )
    memory.settings = made.memory_settings[line.recipe.name]  # the recipe's, with the run's overrides
    memory.seen, memory.experiences = line.seen(first - 1), first
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No loggers specified")  # the run's own lines and files say it
        evaluator = EvaluationPlugin(accuracy_metrics(stream=True))
    return Naive(
        model=network,
        optimizer=torch.optim.SGD(
            network.parameters(), lr=learner.lr, momentum=learner.momentum, weight_decay=learner.weight_decay
        ),
        criterion=CrossEntropyLoss(),
        train_mb_size=learner.batch_size,
        train_epochs=1,  # set at every step: it follows from the size of the memory
        eval_mb_size=512,
        device=made.device,
        plugins=[memory, Schedule(line, number, memory)],
        evaluator=evaluator,
    )


def _stream_accuracy(metrics: dict[str, Any]) -> float:
    return next(value for name, value in metrics.items() if name.startswith(METRIC))
