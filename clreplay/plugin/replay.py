"""The Avalanche plugin: train any supervised strategy from scratch on a condensed memory.

Importing this module imports Avalanche, which takes seconds; nothing else of clreplay does.
"""

from __future__ import annotations

import copy
import logging
import numbers
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from avalanche.benchmarks.utils import TaskLabels, as_classification_dataset
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor, nn

from clreplay.condensation import Condenser, ConfiguredMethod, RealImages, condense_experience
from clreplay.data import pixel_codes
from clreplay.memory.class_cache import ClassCache
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.networks import reinitialize as draw_anew
from clreplay.networks.redraw import check_redrawable
from clreplay.plugin.avalanche_data import (
    MemoryDataset,
    MemoryLoader,
    has_task_labels,
    read_images,
    task_label_of_classes,
)
from clreplay.recipes.cases import check_spelling
from clreplay.recipes.recipe import Recipe, load_recipe, training_settings
from clreplay.runtime.device import default_device
from clreplay.runtime.progress import Progress
from clreplay.runtime.seeding import key_seed
from clreplay.training.augmentation import parse_strategy
from clreplay.training.batches import BatchSource

logger = logging.getLogger(__name__)
LONG_ON_A_CPU = 5_000


class CondensedReplayPlugin(SupervisedPlugin, supports_distributed=False):
    """Replace every experience by a condensed memory of all classes so far, and start the model anew.

    For each experience the plugin reads its images once through the evaluation transforms, condenses its
    classes into the memory, re-initialises the model in place (weights, normalisation statistics) with new
    random values, restores the optimizer's settings (its state is dropped) and restarts the schedulers, and
    lets the strategy train on the memory alone (the GDumb principle; the DDM paper's section 4.3).
    List it before other plugins that look at the weights when an experience begins.

    Args:
        condenser: a memory's name (``ddm``, ``dm``, ``herding``, ``random``), the path of a recipe, a loaded
            recipe, a configured method, or a callable as described by :class:`clreplay.condensation.Condenser`.
        images_per_class: fixed quota a class (20 in the paper). Give this or ``mem_size``.
        mem_size: total budget in images, shared by the classes seen. A recipe's settings for some numbers of
            images a class then do not apply.
        preset: which settings of the recipe: ``paper``, ``cpu`` or ``smoke``.
        seed: of the condensation; apart from the class order.
        training_seed: of fresh weights, shuffling and augmentation; ``seed`` when None.
        augment: augmentation of whole mini-batches on the device, one operator a batch with parameters an
            image. ``auto`` is the paper's evaluation, which does not mirror digits; None turns it off.
        dataset: name of the data (``cifar10``, ``mnist``, ...), for a recipe's settings for some data sets and for
            ``augment``; an Avalanche benchmark does not know it. Without it the settings for all data apply.
        reinitialize: called with the model to draw it anew in place. Without it every module's
            ``reset_parameters`` is called: pre-trained weights and initialisations that the model's own
            constructor makes are lost, and a module that has parameters and no such method is refused.
        memory: a :class:`ReplayMemory` to use instead of a new one. Classes found in it are not condensed
            again, so several strategies can share one memory. With ``mem_size`` they must take each step
            together: quotas shrink for all of them as soon as the first one moves on.
        device: where to condense; the strategy's device when None.
        progress: called with (done, total, unit) while condensing.
        keep: gives, for the number of an experience (from 0), the file in which its condensation is saved while it
            is under way, so that it goes on there when it was stopped; None keeps nothing.
        real_images: gives the images of an experience to condense, for callers that have them as pixel codes;
            None reads them from the experience.
        cache: folder where condensed classes are stored for other runs and class orders; None stores none.
        store: how images are kept: ``uint8``, the default, ``float32`` (condensed ones, at four times the bytes),
            ``4bit``, ``2bit``, ``png``, ``jpeg``, ``webp`` or ``avif``, see :class:`clreplay.ReplayMemory`.
        quality: of a store that is an image codec; None takes its default, ``auto`` the highest at which all images
            of a class fit into its bytes.
        pixels: height and width of what is kept of every image, enlarged again to be trained on; None keeps all.
        bytes_per_class, mem_bytes: budgets in bytes instead of images, of a class or in all; everything that is stored
            is counted, and they are never exceeded.
        **settings: any setting of the recipe, such as ``iterations=1000`` or ``lr_img=0.5``.

    Attributes:
        memory: the :class:`ReplayMemory`.
        condense_seconds: time spent condensing for the latest experience.

    Raises:
        ValueError: no budget or two are given, a seed is not an integer, a setting is unknown, or the data set's
            name is spelled otherwise.

    Example:
        >>> strategy = Naive(model=model, optimizer=optimizer, train_mb_size=256, train_epochs=300,
        ...                  plugins=[CondensedReplayPlugin("dm", images_per_class=20)])
    """

    def __init__(
        self,
        condenser: str | Path | Recipe | ConfiguredMethod | Condenser = "ddm",
        images_per_class: int | None = None,
        mem_size: int | None = None,
        *,
        preset: str = "paper",
        seed: int = 0,
        training_seed: int | None = None,
        augment: str | None = "auto",
        dataset: str | None = None,
        reinitialize: Callable[[nn.Module], None] | None = None,
        memory: ReplayMemory | None = None,
        device: torch.device | str | None = None,
        progress: Progress | None = None,
        keep: Callable[[int], Path] | None = None,
        real_images: Callable[[Any], RealImages] | None = None,
        cache: str | Path | None = None,
        store: str | None = None,
        quality: int | str | None = None,
        pixels: int | None = None,
        bytes_per_class: int | None = None,
        mem_bytes: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        budget = {"images_per_class": images_per_class, "mem_size": mem_size}
        budget.update(bytes_per_class=bytes_per_class, mem_bytes=mem_bytes)
        if memory is None:
            memory = ReplayMemory(**budget, store=store or "uint8", quality=quality, pixels=pixels)
        elif any(given is not None for given in (*budget.values(), store, quality, pixels)):
            raise ValueError(
                f"memory brings its own budget and store; leave {', '.join(budget)}, store, quality and pixels out"
            )
        self.memory = memory
        where = (None if dataset is None else check_spelling(dataset), memory.images_per_class)
        self.augment = training_settings(preset, None, *where).augment if augment == "auto" else augment
        parse_strategy(self.augment)
        if isinstance(condenser, ConfiguredMethod):
            if settings:
                raise ValueError(f"a configured method brings its settings; leave {', '.join(settings)} out")
            self.configured = condenser
        elif callable(condenser):
            self.configured = ConfiguredMethod.of_callable(condenser, settings)
        else:
            recipe = condenser if isinstance(condenser, Recipe) else load_recipe(condenser)
            self.configured = recipe.configured(preset, settings, *where)
        self.seed = _checked_seed("seed", seed)
        self.training_seed = _checked_seed("training_seed", seed if training_seed is None else training_seed)
        self.reinitialize, self.device, self.progress = reinitialize, device, progress
        self.cache = None if cache is None else ClassCache(cache)
        self.keep, self.real_images = keep, real_images
        # Run-time state, all of it: see state_dict.
        self.seen: list[int] = []
        self.task_labels: dict[int, int] = {}
        self.experiences = 0
        self.condense_seconds = 0.0
        self.unfinished: list[int] = []  # classes of an experience whose training has not ended
        self._optimizer_start: list[dict[str, Any]] | None = None
        self._scheduler_start: list[dict[str, Any]] | None = None

    @property
    def name(self) -> str:
        """The memory's name; a callable's own."""
        return self.configured.name

    @property
    def settings(self) -> Any:
        """The method's settings."""
        return self.configured.settings

    # ------------------------------------------------------------------ hooks, in Avalanche's order

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Remember how the optimizer and the schedulers began."""
        if self._optimizer_start is None:
            self._optimizer_start = [_options(group) for group in strategy.optimizer.param_groups]
            self._scheduler_start = [copy.deepcopy(s.state_dict()) for s in _schedulers(strategy)]

    def before_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Refuse a model that cannot be re-initialised, before hours of condensing."""
        if self.reinitialize is None:
            check_redrawable(strategy.model)

    def after_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Take the experience's classes into the memory."""
        self._remember(strategy)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Start model, optimizer and schedulers anew; make the memory the training set."""
        # The draw comes after Avalanche has grown dynamic modules: new outputs would else keep weights that
        # depend on the global generator. And after condensing: if that fails, the last model is still there.
        draw_anew(strategy.model, key_seed(*self._chance("weights")), self.reinitialize)
        self._restart(strategy)
        self._serve(strategy)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Count the experience; until here, training that was interrupted can be repeated."""
        self.unfinished = []
        self.experiences += 1

    # ------------------------------------------------------------------ what the hooks do

    def _chance(self, purpose: str) -> tuple[int | str, ...]:
        return (self.training_seed, purpose, self.experiences)

    def _remember(self, strategy: Any) -> None:
        experience = strategy.experience
        labels = torch.as_tensor(list(experience.dataset.targets), dtype=torch.int64)
        classes = labels.unique().tolist()
        if not classes:
            raise ValueError(f"experience {experience.current_experience} is empty; every experience needs images")
        again = [label for label in classes if label in self.seen]
        if again and classes != self.unfinished:
            raise ValueError(
                f"classes {again} have come in an earlier experience; a class may arrive in one experience only: "
                "merge the experiences, or number classes apart (class_ids_from_zero_in_each_exp=False)"
            )
        missing = [label for label in classes if label not in self.memory.slots]
        if missing and len(missing) < len(classes):
            raise ValueError(f"the memory holds some classes of the experience but not {missing}; use another memory")
        tasks = task_label_of_classes(experience, labels)
        self.condense_seconds = self._condense(strategy, labels, tasks) if missing else 0.0
        self.task_labels.update(tasks or {})
        self.seen = [*self.seen, *(label for label in classes if label not in again)]
        self.unfinished = classes

    def _condense(self, strategy: Any, labels: Tensor, task_labels: dict[int, int] | None) -> float:
        device = strategy.device if self.device is None else default_device(self.device)
        iterations = getattr(self.settings, "iterations", 0)
        if device.type == "cpu" and iterations > LONG_ON_A_CPU and self.experiences == 0:
            logger.warning(
                "%s with %d iterations is meant for a GPU and takes very long on a CPU; "
                "pass preset='cpu' or fewer iterations=",
                self.name,
                iterations,
            )
        if self.real_images is not None:
            real = self.real_images(strategy.experience)
        else:
            real = self._real_images(read_images(strategy.experience.dataset), labels)
        before = self.memory.normalization
        if not self.memory.slots and real.normalization is not None:
            self.memory.normalization = real.normalization
        try:
            return condense_experience(
                self.memory,
                real,
                self.configured,
                seed=self.seed,
                device=device,
                task_labels=task_labels,
                progress=self.progress,
                keep=None if self.keep is None else self.keep(self.experiences),
                cache=self.cache,
                # Only the plugin knows what the memory is called.
                who=f"memory {self.name} at experience {strategy.experience.current_experience}",
            )
        except BaseException:
            if not self.memory.slots:
                self.memory.normalization = before
            raise

    def _real_images(self, images: Tensor, labels: Tensor) -> RealImages:
        """Real images by their pixel codes where these can be recovered exactly: a quarter of the bytes."""
        normalization = self.memory.normalization
        if images.dtype == torch.uint8:
            return RealImages(images, labels, normalization)
        pixels, found = (images, None) if normalization is None else pixel_codes(images, normalization)
        if found is None and not self.memory.slots:
            pixels, found = pixel_codes(images)
        return RealImages(pixels, labels, found)

    def _serve(self, strategy: Any) -> None:
        """Let the strategy train on the classes seen so far: whole augmented batches, from the device."""
        images, labels, tasks = self.memory.of_classes(self.seen)
        # A memory made elsewhere need not know the task labels.
        tasks = torch.tensor([self.task_labels.get(*pair) for pair in zip(labels.tolist(), tasks.tolist())])
        has_tasks = has_task_labels(strategy.experience)
        # For whatever reads it. Avalanche has made its own loader by now, which may refuse small batches.
        strategy.adapted_dataset = _dataset(images, labels, tasks if has_tasks else None)
        images, labels, tasks = (t.to(strategy.device) for t in (images, labels, tasks))
        source = BatchSource(images, labels, strategy.train_mb_size, self.augment, self._chance("train"))
        strategy.dataloader = MemoryLoader(source, tasks if has_tasks else None)

    def _restart(self, strategy: Any) -> None:
        strategy.optimizer.state.clear()
        for group, start in zip(strategy.optimizer.param_groups, self._optimizer_start):
            group.update(copy.deepcopy(start))
        for scheduler, start in zip(_schedulers(strategy), self._scheduler_start):
            scheduler.load_state_dict(copy.deepcopy(start))

    # ------------------------------------------------------------------ saving and going on

    def state_dict(self) -> dict[str, Any]:
        """Memory, classes seen, and how optimizer and schedulers began; tensors and plain values only.

        The model is not part of it: every experience starts with a new draw. Only a model that grows
        (Avalanche's dynamic modules) has to be brought back as well.
        """
        return {
            "memory": self.memory.state_dict(),
            "seen": list(self.seen),
            "task_labels": dict(self.task_labels),
            "experiences": self.experiences,
            "unfinished": list(self.unfinished),
            "optimizer_start": copy.deepcopy(self._optimizer_start),
            "scheduler_start": copy.deepcopy(self._scheduler_start),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was taken; a memory that is shared is loaded for all.

        Raises:
            ValueError: the state is incomplete; nothing is changed then.
        """
        missing = [name for name in self.state_dict() if name not in state]
        if missing:
            raise ValueError(f"the plugin's state lacks {', '.join(missing)}; it is incomplete")
        self.memory.load_state_dict(state["memory"])
        self.seen, self.experiences = list(state["seen"]), state["experiences"]
        self.task_labels, self.unfinished = dict(state["task_labels"]), list(state["unfinished"])
        self._optimizer_start = copy.deepcopy(state["optimizer_start"])
        self._scheduler_start = copy.deepcopy(state["scheduler_start"])


class DDMReplayPlugin(CondensedReplayPlugin, supports_distributed=False):
    """:class:`CondensedReplayPlugin` with the DDM condenser: style matching and diversity on top of DM.

    Args:
        images_per_class: fixed quota a class; 20 in the paper. Give this or ``mem_size``.
        mem_size: total budget in images instead.
        **options: as for :class:`CondensedReplayPlugin`, and any setting of ``strategies/ddm.yaml``.

    Example:
        >>> strategy = Naive(model=model, optimizer=optimizer, criterion=CrossEntropyLoss(), train_mb_size=256,
        ...                  train_epochs=300, plugins=[DDMReplayPlugin(images_per_class=20)])
    """

    def __init__(self, images_per_class: int | None = None, mem_size: int | None = None, **options: Any) -> None:
        super().__init__("ddm", images_per_class, mem_size, **options)


def _dataset(images: Tensor, labels: Tensor, task_labels: Tensor | None) -> Any:
    """A memory as an Avalanche data set."""
    data = as_classification_dataset(MemoryDataset(images, labels.tolist()))
    if task_labels is None:
        return data
    return data.update_data_attribute("targets_task_labels", TaskLabels(task_labels.tolist()))


def _checked_seed(name: str, seed: int) -> int:
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool):
        raise ValueError(f"{name} must be an integer, got {seed!r}")
    return int(seed)


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy({name: value for name, value in group.items() if name != "params"})


def _schedulers(strategy: Any) -> list[Any]:
    """Schedulers in plugins of the strategy, such as Avalanche's ``LRSchedulerPlugin``."""
    schedulers = (getattr(plugin, "scheduler", None) for plugin in strategy.plugins)
    return [s for s in schedulers if hasattr(s, "state_dict") and hasattr(s, "load_state_dict")]
