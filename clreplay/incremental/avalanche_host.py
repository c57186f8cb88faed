"""The class-incremental experiment through Avalanche: strategies with the plugin, as a user would write them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import CrossEntropyLoss
from torch.utils.data import Dataset

warnings.filterwarnings("ignore", message=".*qpsolvers.*|No QP solver.*|.*GEM.*solver.*")

from avalanche.benchmarks import dataset_benchmark, nc_benchmark  # noqa: E402  (the filter must be in place first)
from avalanche.training.plugins import EvaluationPlugin, SupervisedPlugin  # noqa: E402
from avalanche.training.supervised import Naive  # noqa: E402

from clreplay.data import ImageSet, Normalization  # noqa: E402
from clreplay.incremental.domain_plan import DomainPlan  # noqa: E402
from clreplay.incremental.recipe_run import Measured  # noqa: E402
from clreplay.plugin.replay import CondensedReplayPlugin  # noqa: E402
from clreplay.training.evaluate import pair_counts  # noqa: E402
from clreplay.training.going_on import Training  # noqa: E402
from clreplay.training.loop import changed_by_training, set_for_epoch, whose  # noqa: E402

if TYPE_CHECKING:
    from clreplay.incremental.experiment_plan import ExperimentPlan
    from clreplay.incremental.recipe_run import RecipeRun


def avalanche_steps(recipe_run: RecipeRun, todo: Sequence[int]) -> Iterator[list[Measured]]:
    """The Avalanche host: what every network gives, for every step that is to be done.

    One strategy a network; all share the line's memory, which the first of them condenses.
    """
    plan = recipe_run.plan
    benchmark = make_benchmark(recipe_run.plan, recipe_run.order)
    strategies = [_strategy(recipe_run, number) for number in range(plan.settings.networks)]
    for step in todo:
        measured = []
        for strategy in strategies:
            plugin = strategy.plugins[0]
            plugin.seen, plugin.experiences = recipe_run.seen(step - 1), step
            with recipe_run.condensing(step) as plugin.progress, strategy.plugins[1].kept:
                strategy.train(benchmark.train_stream[step])
                seconds = strategy.plugins[1].seconds
            strategy.eval(benchmark.test_stream[: step + 1])
            measured.append(Measured.of_parts(strategy.plugins[1].counts, seconds))
        yield measured


@lru_cache(maxsize=1)
def make_benchmark(plan: ExperimentPlan, order: int) -> Any:
    """The data set as an Avalanche benchmark whose experiences follow a class order; memories compared share it."""
    transform = ToInput(plan.data.normalization)
    if isinstance(plan, DomainPlan):
        train, test = zip(*(map(PixelDataset, parts) for parts in plan.benchmark_sets()))
        return dataset_benchmark(list(train), list(test), train_transform=transform, eval_transform=transform)
    return nc_benchmark(
        PixelDataset(plan.data.train),
        PixelDataset(plan.data.test),
        n_experiences=plan.settings.steps,
        per_exp_classes=dict(enumerate(plan.sizes)),
        task_labels=False,
        fixed_class_order=[label for part in plan.classes(order) for label in part],
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

    def __init__(self, recipe_run: RecipeRun, number: int, memory: CondensedReplayPlugin) -> None:
        super().__init__()
        self.recipe_run, self.number, self.memory = recipe_run, number, memory
        self.task: Any = None
        self.epochs = 0
        self.counts: list[torch.Tensor] = []
        self.drops_after: set[int] = set()
        self.start = 0.0
        self.training = Training()
        self.kept = ExitStack()

    def after_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Begin to time the training: the plugin before this one has condensed, maybe over several processes."""
        self.start = time.perf_counter()

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Save a memory that was just condensed before hours of training begin; fix their length."""
        images = len(strategy.adapted_dataset)  # as served: a memory may decode to more images than it stores
        learner = self.recipe_run.plan.learner
        self.epochs, self.drops_after = learner.epochs_for(images), learner.drops_after(images)
        step = self.memory.experiences
        if len(self.recipe_run.memory.info["condense_seconds"]) == step:
            self.recipe_run.keep(step, self.memory.condense_seconds)
        networks = self.recipe_run.plan.settings.networks
        self.task = self.recipe_run.reporter.task(
            f"{self.recipe_run.title(step)}, network {self.number + 1}/{networks}"
        )
        self._go_on(strategy, step)

    def _go_on(self, strategy: Any, step: int) -> None:
        """Take over what is kept of this very training, up to the end of an epoch."""
        loader = strategy.dataloader
        self.training = Training(
            self.recipe_run.training(step, self.number),
            ["avalanche", *whose(self.recipe_run.plan.learner, loader.source.key)],
            (loader.source.images, loader.source.labels),
        )
        self.training.begin(changed_by_training(strategy.model), strategy.optimizer)
        self.kept.enter_context(self.training.saved())
        loader.epoch = self.training.epoch
        strategy.train_epochs = self.epochs - self.training.epoch

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """After half of the epochs the learning rate drops and momentum starts anew (a new optimiser in DM)."""
        set_for_epoch(strategy.optimizer, self.recipe_run.plan.learner, self.drops_after, self.training.epoch)
        self.training.weights_change()

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Show and keep what is done."""
        self.training.next_epoch()
        self.task(self.training.epoch, self.epochs, "epochs")

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Begin to count."""
        self.counts = []

    def before_eval_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Count every experience by itself."""
        classes = self.recipe_run.plan.data.num_classes
        self.counts.append(torch.zeros(classes, classes, dtype=torch.int64))

    def after_eval_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Count what the test images are taken for."""
        counts = self.counts[-1]
        counts += pair_counts(strategy.mb_y, strategy.mb_output.argmax(1), len(counts)).cpu()

    @property
    def seconds(self) -> float:
        """Of the training so far, those of processes before this one among them."""
        return self.training.seconds + time.perf_counter() - self.start

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Take the progress bar away."""
        self.task.__exit__()


def _strategy(recipe_run: RecipeRun, number: int) -> Naive:
    plan, learner = recipe_run.plan, recipe_run.plan.learner
    network = plan.network()
    memory = CondensedReplayPlugin(
        plan.methods[recipe_run.recipe.name],
        memory=recipe_run.memory,
        seed=plan.seed_of(recipe_run.recipe, recipe_run.order),
        training_seed=plan.training_seed(recipe_run.order, number),
        augment=learner.augment,
        update_bn=False,  # the papers' protocol, and what the core host does
        cache=plan.settings.cache,
        keep=recipe_run.work_in_progress,
        returning=plan.returning,
        real_images=lambda experience: plan.real_images(
            list(experience.classes_in_this_experience), experience.current_experience
        ),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No loggers specified")  # the run's own lines and files say it
        evaluator = EvaluationPlugin()
    return Naive(
        model=network,
        optimizer=torch.optim.SGD(
            network.parameters(), lr=learner.lr, momentum=learner.momentum, weight_decay=learner.weight_decay
        ),
        criterion=CrossEntropyLoss(),
        train_mb_size=learner.batch_size,
        train_epochs=1,  # set at every step: it follows from the size of the memory
        eval_mb_size=512,
        device=plan.device,
        plugins=[memory, Schedule(recipe_run, number, memory)],
        evaluator=evaluator,
    )
