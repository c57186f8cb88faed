"""The Avalanche plugin: train any supervised strategy on a condensed memory, alone or beside new images.

Importing this module imports Avalanche, which takes seconds; nothing else of clreplay does.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from avalanche.benchmarks.utils import TaskLabels, as_classification_dataset
from avalanche.models import avalanche_forward
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor, nn

from clreplay.condensation import Condenser, ConfiguredMethod, RealImages, condense_experience
from clreplay.condensation.engine.finished_file import forget_finished
from clreplay.condensation.intake import check_returning, plan_intake
from clreplay.memory.class_cache import ClassCache
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.networks import reinitialize as draw_anew
from clreplay.networks.redraw import check_redrawable, frozen_parameters
from clreplay.plugin.avalanche_data import MemoryDataset, MemoryLoader, evaluation_view, own_loader
from clreplay.plugin.batch_norm import moving_norms, retake_statistics
from clreplay.plugin.company import NO_LAST_WEIGHTS, SHARED_AHEAD, Notices, check_company, classes_ahead, holders
from clreplay.plugin.condensing_metrics import watched
from clreplay.plugin.contents import (
    Arrival,
    arriving,
    declared_images,
    is_own,
    look,
    part_of,
    read_contents,
    to_be_made,
)
from clreplay.plugin.model_checks import check_batches, check_model, check_trainable, expected_images
from clreplay.plugin.rehearsal import rehearsal_of, remembered
from clreplay.plugin.starts import Starts, schedulers_of
from clreplay.plugin.state import go_on_from, state_of
from clreplay.recipes.cases import checked_name
from clreplay.recipes.given import (
    checked_reinitialize,
    checked_seed,
    given_memory,
    given_method,
    loaded_method,
    warn_of_long_work,
)
from clreplay.recipes.presets import default_preset
from clreplay.recipes.recipe import Recipe, training_settings
from clreplay.runtime.device import default_device
from clreplay.runtime.progress import Progress, check_progress, counted, shown
from clreplay.runtime.seeding import key_seed
from clreplay.training.augmentation import parse_strategy
from clreplay.training.batches import BatchSource

logger = logging.getLogger(__name__)


class CondensedReplayPlugin(SupervisedPlugin, supports_distributed=False):  # type: ignore[misc, call-arg]
    """Replace every experience by a condensed memory of all classes so far, and start the model anew.

    That is ``mode="retrain"``. ``mode="rehearse"`` goes on with the same model, optimizer and schedulers: it trains on
    the new experience as the strategy would, with images of the memory added to every batch, and condenses its classes
    when training on them has ended. What follows is of ``retrain`` where the two differ.

    For each experience the plugin reads what the strategy would train on once, images and labels as the evaluation
    transforms give them, condenses its new classes into the memory, re-initialises the model in place (weights,
    normalisation statistics) with new random values, restores the optimizer's settings (its state is dropped) and
    restarts the schedulers, and lets the strategy train on the memory alone (the GDumb principle; the DDM paper's
    section 4.3). List it before other plugins that look at the weights when an experience begins.

    A class with fewer images than its share is kept whole, which is said.

    What cannot work is refused before anything is condensed: strategies and plugins that keep images of their own,
    and models that cannot take the images or have too few outputs. Parameters with ``requires_grad=False`` keep their
    values (and a module that has no others its statistics), and optimizer settings are those with which the optimizer
    was first trained. Of the arguments of ``strategy.train``, ``shuffle`` and ``drop_last`` hold for the memory.

    Args:
        condenser: a memory's name (``ddm``, ``dm``, ``herding``, ``random``), the path of a recipe, a loaded
            recipe, a configured method, or a callable as described by :class:`clreplay.condensation.Condenser`.
        images_per_class: fixed quota a class (20 in the paper). Give this or ``mem_size``.
        mem_size: total budget in images, shared by the classes seen. A recipe's settings for some numbers of
            images a class then do not apply.
        mode: ``retrain`` or ``rehearse``.
        memory_share: of ``rehearse``: the part of a batch of ``train_mb_size`` that comes from the memory, whose
            classes take turns; 0.5 when None. New images come through the benchmark's training transforms, those of
            the memory are augmented with ``augment``.
        preset: which settings of the recipe: ``paper`` (meant for a GPU), ``cpu`` or ``smoke``; None takes ``paper``
            where ``device``, or without it this machine, is a GPU, and ``cpu`` otherwise, and says so in the log with
            what the paper's would take. Settings that are given go before those of a preset.
        seed: of the condensation; apart from the class order.
        training_seed: of fresh weights, shuffling and augmentation; ``seed`` when None.
        returning: what becomes of classes that come again: ``refuse`` (an error before any work), ``condense`` (made
            anew of what is stored and what comes, each by the number of real images behind it), ``keep`` (what is
            stored stays, and it is said that new images are left out) or ``share`` (for domain-incremental streams:
            new images are made beside what is stored, which is only dropped, never made again; the experiences that a
            class came in have equal parts of its budget).
        augment: augmentation of whole mini-batches on the device, one operator a batch with parameters an
            image. ``auto`` is the paper's evaluation, which does not mirror digits; None turns it off.
        dataset: name of the data (``cifar10``, ``mnist``, ...), for a recipe's settings for some data sets and for
            ``augment``; an Avalanche benchmark does not know it. Without it the settings for all data apply.
        reinitialize: called with the model to draw it anew in place. Without it every module's
            ``reset_parameters`` is called: pre-trained weights and initialisations that the model's own
            constructor makes are lost, and a module that has parameters and no such method is refused. A function of
            one's own is given frozen parameters as well.
        update_bn: whether batch norm's running statistics are taken anew from the memory as it is, without
            augmentation, when training ends and at evaluations before: an operator a batch moves a batch's statistics,
            and running averages are those of the last few batches. False keeps the averages of training, as
            ``rehearse`` always does.
        memory: a :class:`ReplayMemory` to use instead of a new one, or the path of its file. Classes found in it are
            not condensed again, so several strategies can share one memory; they are compared with the experience's.
            With ``mem_size`` they must take each step together: quotas shrink for all of them as soon as the first one
            moves on.
        device: where to condense; the strategy's device when None.
        progress: called with (done, total, unit) while condensing, or with a line now and then where it takes a text
            (``print``, ``logger.info``); None says on a terminal what is condensed and draws a bar with the loss terms,
            True does so anywhere, False nothing. Whatever it is, the loss terms go to the loggers of the strategy's
            evaluation plugin as ``Condensing/TERM/Exp000`` by iteration, and to its ``get_all_metrics``.
        keep: gives, for the number of an experience (from 0), the file in which its condensation is saved while it
            is under way, so that it goes on there when it was stopped; None keeps nothing.
        real_images: gives the images of an experience to condense, for callers that have them as pixel codes;
            None reads them from the experience. The caller answers for them, and for what is in a memory that is given:
            classes are those of ``targets``, and nothing is compared.
        cache: folder where condensed classes are stored for other runs and class orders; None stores none.
        store: how images are kept: ``uint8``, the default, ``float32`` (condensed ones, at four times the bytes),
            ``4bit``, ``2bit``, ``png``, ``jpeg``, ``webp`` or ``avif``, see :class:`clreplay.ReplayMemory`.
        quality: of a store that is an image codec; None takes its default, ``auto`` as high as a
            budget in bytes allows, see :class:`clreplay.ReplayMemory`.
        pixels: height and width of what is kept of every image, enlarged again to be trained on; None keeps all.
        bytes_per_class, mem_bytes: budgets in bytes instead of images, of a class or in all; everything that is stored
            is counted, and they are never exceeded.
        class_names: in the order of the labels 0, 1, ..., or by label, for the memory's file and exports. None takes
            those that the benchmark's data set has in ``classes``, if labels are its own or the benchmark says how it
            numbered them.
        **settings: any setting of the recipe, such as ``iterations=1000`` or ``lr_img=0.5``.

    Attributes:
        memory: the :class:`ReplayMemory`.
        condense_seconds: time spent condensing for the latest experience.

    Raises:
        ValueError: no budget or two are given, a seed is not an integer, a setting is unknown, the data set's name is
            spelled otherwise, ``reinitialize`` is no function, or ``memory`` is none. Training raises it, before any
            condensing, for what cannot work.

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
        mode: str = "retrain",
        memory_share: float | None = None,
        preset: str | None = None,
        seed: int = 0,
        training_seed: int | None = None,
        returning: str = "refuse",
        augment: str | None = "auto",
        dataset: str | None = None,
        reinitialize: Callable[[nn.Module], None] | None = None,
        update_bn: bool = True,
        memory: ReplayMemory | str | Path | None = None,
        device: torch.device | str | None = None,
        progress: Progress | bool | None = None,
        keep: Callable[[int], Path] | None = None,
        real_images: Callable[[Any], RealImages] | None = None,
        cache: str | Path | None = None,
        store: str | None = None,
        quality: int | str | None = None,
        pixels: int | None = None,
        bytes_per_class: int | None = None,
        mem_bytes: int | None = None,
        class_names: Sequence[str] | Mapping[int, str] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        condenser = loaded_method(condenser, settings, CondensedReplayPlugin.__init__)
        budget = {"images_per_class": images_per_class, "mem_size": mem_size}
        budget.update(bytes_per_class=bytes_per_class, mem_bytes=mem_bytes)
        self.rehearsal, self.returning = rehearsal_of(mode, memory_share), check_returning(returning)
        self.memory = memory = given_memory(memory, budget, store, quality, pixels)
        if class_names is not None:
            self.memory.name_classes(class_names)
        if dataset is not None:
            self.memory.info.setdefault("dataset", dataset)
        check_progress(progress)
        chosen = default_preset(default_device(device)) if preset is None else preset
        where = (None if dataset is None else checked_name(dataset), memory.images_per_class)
        self.augment = training_settings(chosen, None, *where).augment if augment == "auto" else augment
        parse_strategy(self.augment)
        self.configured, self._unasked = given_method(condenser, preset, chosen, settings, where)
        self.seed = checked_seed("seed", seed)
        self.training_seed = checked_seed("training_seed", seed if training_seed is None else training_seed)
        checked_reinitialize(reinitialize)
        self.reinitialize, self.device, self.progress = reinitialize, device, progress
        self.update_bn = update_bn
        self.cache = None if cache is None else ClassCache(cache)
        self.keep, self.real_images = keep, real_images
        # Run-time state, all of it: see state_dict.
        self.seen: list[int] = []
        self.task_labels: dict[int, int] = {}
        self.experiences = 0
        self.condense_seconds = 0.0
        self.unfinished: list[int] = []  # classes of an experience whose training has not ended
        self.keys: dict[int, str] = {}  # of the images that every class came with
        self.starts = Starts()
        self._strategy: weakref.ref[Any] | None = None
        self._adapted: int | None = None  # the data set that was looked at
        self._arrival: Arrival | None = None  # classes that are condensed once they have been trained on
        self._untrained = False  # since a state was loaded
        self.optimizer_state: dict[str, Any] | None = None  # of a state that was loaded, to rehearse on
        self.notices = Notices()

    @property
    def name(self) -> str:
        """The memory's name; a callable's own."""
        return self.configured.name

    def strategy(self) -> Any:
        """The one that was trained last; None where there was none, or it is gone."""
        return None if self._strategy is None else self._strategy()

    @property
    def settings(self) -> Any:
        """The method's settings."""
        return self.configured.settings

    # ------------------------------------------------------------------ hooks, in Avalanche's order

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Look at who else is at work; remember how the optimizer and the schedulers began."""
        check_company(strategy, self)
        if self.rehearsal is None:
            self.notices.warn(NO_LAST_WEIGHTS, holders(strategy))
        self.starts.remember(strategy.optimizer, schedulers_of(strategy))
        if self.strategy() is not strategy and self._strategy is not None and self.seen:
            logger.warning(
                "the plugin goes on in another strategy: its memory and classes %s go along; for a new stream make a "
                "new plugin (memory=plugin.memory spares condensing again)",
                self.seen,
            )
        self._strategy = weakref.ref(strategy)

    def before_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Refuse a model that cannot be re-initialised, before hours of condensing."""
        check_trainable(strategy.model)
        if self.reinitialize is None and self.rehearsal is None:
            check_redrawable(strategy.model, keep_frozen=True)
            self.notices.warn(
                "not trained (requires_grad is False), so they keep their values at every experience; "
                "all others are drawn anew",
                frozen_parameters(strategy.model),
            )

    def after_train_dataset_adaptation(self, strategy: Any, drop_last: bool = False, **kwargs: Any) -> None:
        """Take the experience's classes into the memory; to rehearse, make sure that this can be done later."""
        self._arrival = self._look(strategy, drop_last)
        if self.rehearsal is None:
            self._take_in(strategy)
        self._adapted = id(strategy.adapted_dataset)

    def before_training_exp(self, strategy: Any, shuffle: bool = True, drop_last: bool = False, **kwargs: Any) -> None:
        """Start model, optimizer and schedulers anew; make the memory the training set, or a part of it."""
        if id(strategy.adapted_dataset) != self._adapted:
            raise ValueError(
                "another plugin changed the data after they were condensed; "
                "list it before the condensed replay, or leave it out"
            )
        if self.rehearsal is not None:
            self._untrained = False
            more = {"shuffle": shuffle, "drop_last": drop_last, **kwargs}
            return self.rehearsal.serve(strategy, self, self._chance("rehearse"), **more)
        # The draw comes after Avalanche has grown dynamic modules: new outputs would else keep weights that
        # depend on the global generator. And after condensing: if that fails, the last model is still there.
        draw_anew(strategy.model, key_seed(*self._chance("weights")), self.reinitialize, keep_frozen=True)
        self.starts.restore(strategy.optimizer, schedulers_of(strategy))
        self._untrained = False
        self._serve(strategy, shuffle, drop_last)

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Make sure that the memory is what is trained on."""
        loader = own_loader(strategy, self)
        loader.norms = moving_norms(strategy.model) if self.update_bn and self.rehearsal is None else []

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Make sure that the memory was what was trained on."""
        own_loader(strategy, self)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Count the experience; until here, training that was interrupted can be repeated."""
        self._retake_statistics(strategy)
        own_loader(strategy, self).norms = []  # they are what they are to be
        if self.rehearsal is not None:
            self._take_in(strategy)
        self.unfinished = []
        if self.keep is not None:
            forget_finished(self.keep(self.experiences))
        self.experiences += 1

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Evaluations during training see the statistics that the end of training gives."""
        if isinstance(strategy.dataloader, MemoryLoader):
            self._retake_statistics(strategy)
        if self._untrained:
            self._untrained = False
            logger.warning(
                "the plugin's state was loaded and nothing has been trained since: unless you loaded the model's "
                "weights as well, this evaluates untrained ones; train the next experience first"
            )

    # ------------------------------------------------------------------ what the hooks do

    def _chance(self, purpose: str) -> tuple[int | str, ...]:
        return (self.training_seed, purpose, self.experiences)

    def _look(self, strategy: Any, drop_last: bool) -> Arrival:
        """The classes that arrive, once everything has been checked that can be."""
        own = is_own(strategy)
        contents, real = look(strategy, self.memory, own, self.real_images is not None)
        share = self.returning == "share"
        if share and self.real_images is not None:  # whether a class comes with other images is to be known
            real = declared_images(self.real_images, strategy.experience, self.memory, contents.classes)
            contents = replace(contents, keys=real.keys)
        classes = arriving(contents, self.seen, self.unfinished, self.keys, own, self.returning)
        before = {} if self.returning == "refuse" or not own else {label: self.keys.get(label) for label in self.seen}
        missing, again = to_be_made(self.memory, contents, classes, before, share)
        check_model(strategy, avalanche_forward, contents)
        served = list(dict.fromkeys([*self.seen, *classes]))
        self.notices.warn(SHARED_AHEAD, classes_ahead(self.memory, served))
        count = expected_images(self.memory, self.configured, served, missing, again, share)
        if self.rehearsal is not None:
            self.rehearsal.check(strategy, contents, classes)
        elif count is not None:
            check_batches(strategy, avalanche_forward, contents.sample, contents.sample_task, count, drop_last)
        if missing and real is None:
            real = self._images_of(strategy, classes)
        arrival = Arrival(contents, classes, part_of(real, classes) if missing and real is not None else None)
        if self.rehearsal is not None and arrival.real is not None:  # otherwise condensing checks it at once
            how = (self._who(strategy), self.returning, True, contents.tasks)
            plan_intake(self.memory, arrival.real, self.configured, *how)
        return arrival

    def _images_of(self, strategy: Any, classes: list[int]) -> RealImages:
        """The images of an experience: from the caller, or, of data that another strategy has read, read again."""
        if self.real_images is not None:
            return declared_images(self.real_images, strategy.experience, self.memory, classes)
        return read_contents(evaluation_view(strategy.adapted_dataset), strategy.experience, self.memory)[1]

    def _take_in(self, strategy: Any) -> None:
        arrival, self._arrival = self._arrival, None
        assert arrival is not None, "the experience was looked at before"
        self.condense_seconds = 0.0 if arrival.real is None else self._condense(strategy, arrival, arrival.real)
        contents, classes = arrival.contents, arrival.classes
        known = self.memory.class_names
        if contents.names and not all(label in known for label in classes):
            self.memory.name_classes({**contents.names, **known})
        self.task_labels.update({label: contents.tasks[label] for label in classes} if contents.tasks else {})
        self.keys.update({label: contents.keys[label] for label in classes})
        self.seen, self.unfinished = list(dict.fromkeys([*self.seen, *classes])), classes

    def _who(self, strategy: Any) -> str:
        # Only the plugin knows what the memory is called.
        return f"memory {self.name} at experience {strategy.experience.current_experience}"

    def _announcement(self, real: RealImages) -> str:
        """What is condensed, and into what."""
        names = [self.memory.class_names.get(label, str(label)) for label in real.classes]
        few = ", ".join(names) if len(names) <= 10 else f"{', '.join(names[:5])}, ..., {names[-1]}"
        images = sum(real.count(label) for label in real.classes)
        return (
            f"{self.name}: experience {self.experiences + 1}, {counted(len(names), 'class')} ({few}), "
            f"{counted(images, 'image')} into {self.memory.budget}"
        )

    def _condense(self, strategy: Any, arrival: Arrival, real: RealImages) -> float:
        device = strategy.device if self.device is None else default_device(self.device)
        if self.experiences == 0:
            warn_of_long_work(self.configured, device)
        before = self.memory.normalization
        if not self.memory.slots and real.normalization is not None:
            self.memory.normalization = real.normalization
        if self._unasked is not None and self.experiences == 0:
            self._unasked.say(self.configured, real, self.memory.images_per_class, device)
        try:
            title = f"{self.name}, condensing experience {self.experiences + 1}"
            with shown(self.progress, title, self._announcement(real)) as progress:
                return condense_experience(
                    self.memory,
                    real,
                    self.configured,
                    seed=self.seed,
                    device=device,
                    task_labels=arrival.contents.tasks,
                    progress=watched(progress, strategy),
                    keep=None if self.keep is None else self.keep(self.experiences),
                    cache=self.cache,
                    who=self._who(strategy),
                    returning=self.returning,
                    keep_whole=True,
                )
        except BaseException:
            if not self.memory.slots:
                self.memory.normalization = before
            raise

    def _serve(self, strategy: Any, shuffle: bool, drop_last: bool) -> None:
        """Let the strategy train on the classes seen so far: whole augmented batches, from the device."""
        images, labels, tasks = remembered(self, strategy)
        # Of a budget in bytes one knows the number of images only now.
        task = None if tasks is None else int(tasks[0])
        check_batches(strategy, avalanche_forward, images[0], task, len(images), drop_last)
        # For whatever reads it. Avalanche has made its own loader by now, which may refuse small batches.
        strategy.adapted_dataset = _dataset(images, labels, tasks)
        source = BatchSource(images, labels, strategy.train_mb_size, self.augment, self._chance("train"))
        strategy.dataloader = MemoryLoader(source, tasks, self, shuffle, drop_last)

    def _retake_statistics(self, strategy: Any) -> None:
        size, key = max(strategy.train_mb_size, strategy.eval_mb_size), self._chance("statistics")
        retake_statistics(strategy.model, own_loader(strategy, self), avalanche_forward, size, key)

    # ------------------------------------------------------------------ saving and going on

    def state_dict(self) -> dict[str, Any]:
        """Memory, classes seen, and how optimizer and schedulers began; tensors and plain values only.

        The model is not part of it: every experience starts with a new draw. Only a model that grows
        (Avalanche's dynamic modules) has to be brought back as well. To rehearse on, every model has to be; the
        optimizer's state, which Avalanche drops when a new strategy begins to train, is part of it then.
        """
        return state_of(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was taken; a memory that is shared is loaded for all.

        Raises:
            ValueError: the state is incomplete, or of a plugin that was made otherwise; nothing is changed then.
        """
        go_on_from(self, state)
        self._untrained = bool(self.seen)

    def __getstate__(self) -> dict[str, Any]:
        # Neither can a reference be pickled, nor should a pickle of the plugin hold the strategy.
        return {**self.__dict__, "_strategy": None}


class DDMReplayPlugin(CondensedReplayPlugin, supports_distributed=False):  # type: ignore[call-arg]
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
