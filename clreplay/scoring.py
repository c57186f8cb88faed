"""Score a memory: train networks on it from scratch and test them, on any data and with any network."""

from __future__ import annotations

import copy
import difflib
import importlib.util
import math
import numbers
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clreplay.data import Dataset, ImageSet, Normalization, load_dataset
from clreplay.data.load import dataset_name
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.networks import ConvNet, reinitialize
from clreplay.networks.settings import network_settings
from clreplay.recipes.presets import default_preset
from clreplay.recipes.recipe import idc_settings, training_settings
from clreplay.recipes.typed_settings import RecipeError
from clreplay.runtime.checks import check_choice
from clreplay.runtime.device import default_device
from clreplay.runtime.progress import Progress, check_progress, counted, roughly, shown
from clreplay.runtime.seeding import key_seed
from clreplay.training.evaluate import accuracies_together, accuracy, share_right
from clreplay.training.learner import train_learner
from clreplay.training.settings import TrainingSettings
from clreplay.training.stacked import should_stack, train_together
from clreplay.training.trial import seconds_per_image

PROTOCOLS = ("common", "idc")
TORCHVISION = "torchvision:"
AnyNetwork = str | nn.Module | Callable[[], nn.Module]
"""A name of :func:`clreplay.networks.network_names`, ``torchvision:NAME``, ``FILE.py:FUNCTION``, a module that is
copied and drawn anew, or a function that makes one."""


@dataclass(frozen=True)
class Evaluation:
    """What networks trained on a memory get right.

    Attributes:
        accuracies: of every network after its last epoch, percent of the test images.
        network: what was trained, in words.
        training: how, with all settings.
        preset: of those settings.
        protocol: ``common`` or ``idc``.
        images: trained on.
        classes: tested on.
        outputs: of the network.
        test_images: tested on.
        seconds: of training all networks.
        seed: of all chance.
    """

    accuracies: tuple[float, ...]
    network: str
    training: TrainingSettings
    preset: str
    protocol: str
    images: int
    classes: int
    outputs: int
    test_images: int
    seconds: float
    seed: int

    @property
    def mean(self) -> float:
        """Of the accuracies, in percent."""
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float | None:
        """Sample standard deviation over networks (n - 1), in percentage points; None of a single network."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None

    def as_plain(self) -> dict[str, Any]:
        """All of it as JSON knows it."""
        return {"mean": self.mean, "std": self.std, **asdict(self)}

    def __str__(self) -> str:
        if self.std is None:
            return f"{self.mean:.2f} % (1 network)"
        return f"{self.mean:.2f} +- {self.std:.2f} % ({len(self.accuracies)} networks)"


def evaluate(
    memory: ReplayMemory | str | Path | tuple[Tensor, Tensor],
    dataset: str | Path | Dataset | ImageSet | tuple[Tensor, Tensor],
    network: AnyNetwork = "convnet",
    training: TrainingSettings | Mapping[str, Any] | None = None,
    networks: int = 5,
    seed: int = 0,
    device: torch.device | str | None = None,
    *,
    protocol: str = "common",
    preset: str | None = None,
    channels: int | None = None,
    data_root: str | Path | None = None,
    progress: Progress | Callable[[str], Any] | bool | None = None,
) -> Evaluation:
    """Train networks from scratch on a memory, as the tables and the class-incremental runs do, and test them.

    The seed and the settings decide all chance: a memory that ``clreplay run class-incremental --steps 1`` made gets
    the accuracies of that run's first class order.

    Args:
        memory: a memory, its file, or images with labels: float32 (n, c, h, w), normalised as the data set is, or
            pixels (uint8, or floats within [0, 1]); and integers (n,).
        dataset: what to test on: a name that :func:`clreplay.data.load_dataset` knows, a folder with ``train/`` and
            ``test/`` (``PATH@64`` resizes it), a data set, its test images, or images with labels as above.
        network: its name (``resnet18``, ``torchvision:resnet18``), a function without arguments that makes one, called
            anew for every network, or a module, which is copied and drawn anew by every part's ``reset_parameters``.
            It has an output for every class of the data set.
        training: how: single settings (``{"epochs": 300}``), or all of them. What is not given is the common learner's.
        networks: how many.
        seed: of weights, batches and augmentation.
        device: where to work; None takes a GPU if there is one.
        protocol: ``common`` (DM's) or ``idc`` (CutMix).
        preset: of the learner: ``paper`` (1,001 epochs), ``cpu`` or ``smoke``; None takes ``paper`` on a GPU and
            ``cpu`` otherwise.
        channels: of the data set, where it can be had with 1 or 3; None takes the memory's.
        data_root: where the data is.
        progress: called with (done, total, unit), over all networks, or with a line now and then where it takes a text
            (``print``); True draws a bar on a terminal and prints lines elsewhere.

    Raises:
        ValueError, OSError: before any training, if memory, data set and network do not fit each other, or a name or
            setting is unknown; the message names it and the cure.
        FloatingPointError: a training diverged.

    Example:
        >>> str(evaluate("memory.safetensors", "cifar10", network="resnet18", networks=3))
        '43.10 +- 0.52 % (3 networks)'
    """
    check_progress(progress)
    planned = plan_evaluation(
        memory,
        dataset,
        network,
        training,
        networks,
        seed,
        device,
        protocol=protocol,
        preset=preset,
        channels=channels,
        data_root=data_root,
    )
    with shown(False if progress is None else progress, f"training {counted(planned.networks, 'network')}") as told:
        return planned.run(told)


@dataclass(frozen=True, eq=False)
class PlannedEvaluation:
    """An evaluation with every choice made and every input checked.

    Attributes:
        images, labels: to train on, normalised.
        test: images and labels, on the CPU; uint8 pixel codes with a normalisation, or floats without.
        test_source: a sentence on where they come from.
        make: gives network number i, with its weights drawn.
        alike: whether networks may be trained in one stack.
        remarks: what a person should know: classes that are not tested, data of another name.
    """

    images: Tensor
    labels: Tensor
    test: tuple[Tensor, Tensor]
    normalization: Normalization | None
    test_source: str
    outputs: int
    network: str
    make: Callable[[int], nn.Module]
    alike: bool
    learner: TrainingSettings
    preset: str
    protocol: str
    networks: int
    seed: int
    device: torch.device
    remarks: tuple[str, ...] = ()

    def seed_of(self, number: int) -> int:
        """Of one network: the same as in a class-incremental run's first class order."""
        return key_seed(self.seed, "learner", 0, number)

    def length(self) -> str:
        """How long a network is trained, in words."""
        epochs = self.learner.epochs_for(len(self.images))
        updates = epochs * math.ceil(len(self.images) / self.learner.batch_size)
        return f"{counted(epochs, 'epoch')} ({counted(updates, 'update')})"

    def expected(self) -> str:
        """How long it takes, in words, from a few updates tried here."""
        each = seconds_per_image(self.make(0), self.images, self.labels, self.learner.batch_size, self.device)
        trained = self.learner.epochs_for(len(self.images)) * len(self.images)
        tested = len(self.test[1]) / 3  # a forward pass takes about a third of an update's time
        return roughly(each * (trained + tested) * self.networks)

    def run(self, progress: Progress | None = None, finished: Callable[[int, float], None] | None = None) -> Evaluation:
        """Train and test.

        Args:
            progress: called with (done, total, unit), over all networks.
            finished: called with the number of a network and its accuracy in percent, as they come.
        """
        begun = time.perf_counter()
        images, labels = self.images.to(self.device), self.labels.to(self.device)
        keys = [(self.seed_of(number), "train", 0) for number in range(self.networks)]
        testing, found = 0.0, []
        with torch.inference_mode(False), torch.enable_grad():
            if self.alike and should_stack(self.device, self.networks):
                together = [self.make(number).to(self.device) for number in range(self.networks)]
                said = None if progress is None else lambda done, total: progress(done, total, "epochs")
                train_together(together, images, labels, self.learner, keys, progress=said)
                start = time.perf_counter()
                if self.normalization is None:
                    found = [self._tested(network) for network in together]
                else:
                    found = accuracies_together(together, ImageSet(*self.test), self.normalization, self.device)
                testing = time.perf_counter() - start
                for number, value in enumerate(found):
                    if finished is not None:
                        finished(number, value)
            else:
                for number, key in enumerate(keys):
                    network = self.make(number).to(self.device)
                    said = None if progress is None else partial(_over_all, progress, number, self.networks)
                    train_learner(network, images, labels, self.learner, key, progress=said)
                    start = time.perf_counter()
                    found.append(self._tested(network))
                    testing += time.perf_counter() - start
                    if finished is not None:
                        finished(number, found[-1])
        return Evaluation(
            tuple(found),
            self.network,
            self.learner,
            self.preset,
            self.protocol,
            len(self.images),
            len(self.test[1].unique()),
            self.outputs,
            len(self.test[1]),
            time.perf_counter() - begun - testing,
            self.seed,
        )

    def _tested(self, network: nn.Module) -> float:
        """Accuracy in percent."""
        if self.normalization is not None:
            return accuracy(network, ImageSet(*self.test), self.normalization, self.device)
        network.eval()
        images, labels = (part.to(self.device) for part in self.test)
        return 100.0 * float(share_right(network, images, labels))


def _over_all(progress: Progress, before: int, networks: int, done: int, total: int) -> None:
    """Progress of one network as progress of all."""
    progress(before * total + done, networks * total, "epochs")


def plan_evaluation(
    memory: ReplayMemory | str | Path | tuple[Tensor, Tensor],
    dataset: str | Path | Dataset | ImageSet | tuple[Tensor, Tensor],
    network: AnyNetwork = "convnet",
    training: TrainingSettings | Mapping[str, Any] | None = None,
    networks: int = 5,
    seed: int = 0,
    device: torch.device | str | None = None,
    *,
    protocol: str = "common",
    preset: str | None = None,
    channels: int | None = None,
    data_root: str | Path | None = None,
) -> PlannedEvaluation:
    """Make every choice of :func:`evaluate` and check everything; arguments and errors are its."""
    check_choice("protocol", protocol, PROTOCOLS)
    for name, value in (("networks", networks), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise ValueError(f"{name} must be an integer, got {value!r}")
    if networks < 1:
        raise ValueError(f"networks must be at least 1, got {networks}")
    where = default_device(device)
    preset = preset or default_preset(where)
    if isinstance(memory, (str, Path)):
        memory = ReplayMemory.load(memory)
    stored = _Stored.of(memory)
    tested = _Tested.of(dataset, stored, channels, data_root)
    images, labels, normalization = stored.to_train_on(tested)
    remarks = _check_fit(stored, tested)
    learner = _learner(network, training, protocol, preset, tested.name or stored.dataset, stored.images_per_class)
    outputs = max(tested.classes, int(labels.max()) + 1)
    channels, height, width = images.shape[1:]
    make, called, alike = _networks(network, learner, outputs, (channels, height, width), where)
    return PlannedEvaluation(
        images,
        labels,
        *tested.rows(labels.unique(), normalization),
        tested.source,
        outputs,
        called,
        _drawn(make, seed),
        alike and protocol == "common",
        learner,
        preset,
        protocol,
        networks,
        seed,
        where,
        remarks,
    )


def _drawn(make: Callable[[int], nn.Module], seed: int) -> Callable[[int], nn.Module]:
    """Networks by their number, of which each has a seed of its own."""
    return lambda number: make(key_seed(key_seed(seed, "learner", 0, number), "weights", 0))


# ---------------------------------------------------------------- memory and data, and whether they fit


@dataclass(frozen=True, eq=False)
class _Stored:
    """What is to be scored."""

    memory: ReplayMemory | None
    images: Tensor
    labels: Tensor
    normalization: Normalization | None

    @classmethod
    def of(cls, memory: ReplayMemory | tuple[Tensor, Tensor]) -> _Stored:
        if isinstance(memory, ReplayMemory):
            if not memory.slots:
                raise ValueError("the memory is empty; add a class first")
            return cls(memory, memory.images, memory.labels, memory.normalization)
        images, labels = _pair("memory", memory)
        return cls(None, images, labels, None)

    @property
    def info(self) -> Mapping[str, Any]:
        """What the memory says of itself."""
        return {} if self.memory is None else self.memory.info

    @property
    def dataset(self) -> str | None:
        """Name of the data it was made of, where that is known."""
        return self.info.get("dataset")

    @property
    def images_per_class(self) -> int | None:
        """Images a class, where there is such a number; settings of the learner may depend on it."""
        if self.memory is not None:
            return self.memory.images_per_class
        counts = self.labels.unique(return_counts=True)[1]
        return int(counts[0]) if len(counts.unique()) == 1 else None

    def to_train_on(self, tested: _Tested) -> tuple[Tensor, Tensor, Normalization | None]:
        """Images as network input, their labels, and how pixels are made to lie beside them."""
        normalization = self.normalization or tested.normalization
        images = self.images
        if self.memory is None:
            images = _as_input("memory", images, normalization)
        return images, self.labels, normalization


@dataclass(frozen=True, eq=False)
class _Tested:
    """What to test on."""

    images: Tensor
    labels: Tensor
    classes: int
    source: str
    name: str | None = None
    normalization: Normalization | None = None
    class_names: tuple[str, ...] = ()
    fingerprint: str | None = None

    @classmethod
    def of(cls, dataset: Any, stored: _Stored, channels: int | None, data_root: str | Path | None) -> _Tested:
        if isinstance(dataset, (str, Path)):
            name = dataset_name(dataset)
            stored_channels = int(stored.images.shape[1]) if stored.images.ndim == 4 else None
            dataset = _loaded(name, data_root, channels, stored_channels)
        if isinstance(dataset, Dataset):
            test = dataset.test
            return cls(
                test.images,
                test.labels,
                dataset.num_classes,
                f"{dataset.name}: {dataset.source}",
                dataset.name,
                dataset.normalization,
                dataset.class_names,
                dataset.fingerprint if "data_fingerprint" in stored.info else None,
            )
        images, labels = (
            (dataset.images, dataset.labels) if isinstance(dataset, ImageSet) else _pair("dataset", dataset)
        )
        return cls(images, labels, int(labels.max()) + 1, "images that were given")

    def rows(self, classes: Tensor, normalization: Normalization | None) -> tuple[Any, Normalization | None]:
        """Images and labels of the classes that are in memory, and how the images are normalised."""
        wanted = torch.isin(self.labels, classes)
        images, labels = self.images[wanted], self.labels[wanted]
        if images.dtype == torch.uint8 and normalization is not None:
            return (images, labels), normalization
        return (_as_input("dataset", images, normalization), labels), None


def _loaded(name: str, root: str | Path | None, channels: int | None, stored: int | None) -> Dataset:
    """A data set, with the memory's channels where it can be had with them and nobody said otherwise."""
    if channels is not None or stored is None:
        return load_dataset(name, root, channels=channels)
    data = load_dataset(name, root)
    if data.train.images.shape[1] != stored and stored in (1, 3):
        try:
            return load_dataset(name, root, channels=stored)
        except ValueError:
            return data  # which does not fit, and is refused with its shape
    return data


def _check_fit(stored: _Stored, tested: _Tested) -> tuple[str, ...]:
    """Refuse what does not fit.

    Returns:
        what is odd, in sentences.
    """
    of_memory, of_data = tuple(stored.images.shape[1:]), tuple(tested.images.shape[1:])
    called = tested.name or "the test set"
    if of_memory != of_data:
        raise ValueError(
            f"the memory holds images of {_shape(of_memory)} and {called} has {_shape(of_data)}; they must agree: "
            "resize the data (folder:PATH@SIZE), or take the data set that the memory was made of"
            + (f", {stored.dataset}" if stored.dataset else "")
        )
    if len(tested.labels) == 0:
        raise ValueError(f"{called} has no test images")
    classes, present = stored.labels.unique(), tested.labels.unique()
    absent = classes[~torch.isin(classes, present)].tolist()
    if absent:
        raise ValueError(
            f"the memory has the classes {_few(absent)}, of which {called} has no test image (it has "
            f"{tested.classes} classes); take the data set that the memory was made of"
            + (f", {stored.dataset}" if stored.dataset else "")
        )
    names = {} if stored.memory is None else stored.memory.class_names
    for label in classes.tolist() if tested.class_names else ():
        here, there = names.get(label, str(label)), tested.class_names[label]
        if not _same_name(here, there):
            raise ValueError(
                f"class {label} is {here!r} in the memory and {there!r} in {called}: "
                "their classes differ in name or order"
            )
    remarks = []
    if len(classes) < tested.classes:
        remarks.append(
            f"the memory holds {len(classes)} of the {tested.classes} classes; tested on the images of those, with "
            f"{tested.classes} outputs"
        )
    made_of = stored.info.get("data_fingerprint")
    if tested.name and stored.dataset and stored.dataset != tested.name:
        remarks.append(f"the memory was made of {stored.dataset}, and is tested on {tested.name}")
    elif None not in (made_of, tested.fingerprint) and made_of != tested.fingerprint:
        remarks.append(f"the memory was made of other images or labels than {tested.name} has here")
    return tuple(remarks)


def _same_name(one: str, other: str) -> bool:
    """Whether two names may be of one class: numbers are no names, and exports change letters and add labels."""
    first, second = ("".join(filter(str.isalnum, name.casefold())) for name in (one, other))
    return first.isdigit() or second.isdigit() or first.startswith(second) or second.startswith(first)


def _pair(name: str, pair: Any) -> tuple[Tensor, Tensor]:
    """Images and labels as tensors."""
    cure = "pass a pair of tensors: images (n, c, h, w) and integer labels (n,)"
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        allowed = "a ReplayMemory, its file" if name == "memory" else "a name, a Dataset, an ImageSet"
        raise ValueError(f"{name} must be {allowed}, or images with labels, got {type(pair).__name__}; {cure}")
    images, labels = (torch.as_tensor(part).detach().cpu() for part in pair)
    if images.ndim != 4 or not len(images) or labels.shape != (len(images),) or labels.is_floating_point():
        raise ValueError(f"{name} has images {tuple(images.shape)} and labels {tuple(labels.shape)}; {cure}")
    if int(labels.min()) < 0:
        raise ValueError(f"{name} has the label {int(labels.min())}; labels must be class numbers from 0")
    return images, labels.to(torch.int64)


def _as_input(name: str, images: Tensor, normalization: Normalization | None) -> Tensor:
    """Pixels normalised; floats beyond [0, 1] are so already."""
    if images.dtype == torch.uint8:
        if normalization is None:
            raise ValueError(
                f"{name} has uint8 pixels, and nothing says how they are normalised; pass a data set by name"
            )
        return normalization.apply(images)
    images = images.to(torch.float32)
    if not torch.isfinite(images).all():
        raise ValueError(f"{name} has images with NaN or infinity; clean them")
    if normalization is None or float(images.min()) < 0 or float(images.max()) > 1:
        return images
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (normalization.mean, normalization.std))
    return (images - mean) / std


def _shape(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} channel{'s' if shape[0] > 1 else ''}, {shape[1]} x {shape[2]} pixels"


def _few(labels: list[int]) -> str:
    return ", ".join(map(str, labels[:5])) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")


# ---------------------------------------------------------------- the learner


def _learner(
    network: AnyNetwork,
    training: TrainingSettings | Mapping[str, Any] | None,
    protocol: str,
    preset: str,
    dataset: str | None,
    images_per_class: int | None,
) -> TrainingSettings:
    """How networks are trained, with the network where it is one of the table."""
    ours = isinstance(network, str) and not network.startswith(TORCHVISION) and not _own_file(network)
    chosen = network_settings(str(network)) if ours else {}
    if isinstance(training, TrainingSettings):
        return replace(training, **chosen) if network != "convnet" else training
    given = dict(training or {})
    if "network" in given:
        raise RecipeError("training: the network is an argument of its own: network=, on the command line --network")
    settings = idc_settings if protocol == "idc" else training_settings
    return settings(preset, {**chosen, **given}, dataset, images_per_class)


def _networks(
    network: AnyNetwork, learner: TrainingSettings, outputs: int, shape: tuple[int, int, int], device: torch.device
) -> tuple[Callable[[int], nn.Module], str, bool]:
    """What makes a network of a seed, what it is called, and whether several can be trained in one stack."""
    if isinstance(network, str) and network.startswith(TORCHVISION):
        name = network.removeprefix(TORCHVISION)
        make, called = _of_function(_torchvision(name, outputs)), f"torchvision's {name}"
    elif isinstance(network, str) and (found := _own_file(network)):
        make, called = _of_function(_own_function(*found)), found[1]
    elif isinstance(network, str):
        return _ours(learner, outputs, shape, device), learner.summary(), True
    elif isinstance(network, nn.Module):
        make, called = _copied(network), type(network).__name__
    elif callable(network):
        make, called = _of_function(network), getattr(network, "__name__", type(network).__name__)
    else:
        raise ValueError(f"network must be a name, a module or a function that makes one, got {type(network).__name__}")
    _check_network(make, called, outputs, shape)
    return make, called, False


def _ours(
    learner: TrainingSettings, outputs: int, shape: tuple[int, int, int], device: torch.device
) -> Callable[[int], nn.Module]:
    learner.build_for(outputs, shape)  # what does not fit the images is an error now

    def make(seed: int) -> nn.Module:
        network = learner.build_for(outputs, shape)
        if isinstance(network, ConvNet) and device.type == "cpu":
            network.fuse()
        reinitialize(network, seed)
        return network

    return make


def _of_function(function: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    """Networks as a function makes them, initialisation included, under a chance of their own."""

    def make(seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            made = function()
        if not isinstance(made, nn.Module):
            raise ValueError(f"the function for network= must return a torch.nn.Module, got {type(made).__name__}")
        return made

    return make


def _copied(network: nn.Module) -> Callable[[int], nn.Module]:
    """Copies of a module, drawn anew."""

    def make(seed: int) -> nn.Module:
        made = copy.deepcopy(network).cpu()
        try:
            reinitialize(made, seed)
        except TypeError as error:
            cure = "pass a function that makes the network instead of the network"
            raise ValueError(f"{str(error).split(';')[0]}; {cure}") from error
        return made

    return make


def _check_network(make: Callable[[int], nn.Module], called: str, outputs: int, shape: tuple[int, int, int]) -> None:
    """Try it on two images of zeros.

    Raises:
        ValueError: it cannot take such images, or has too few outputs.
    """
    network = make(0).eval()
    try:
        with torch.no_grad():
            logits = network(torch.zeros(2, *shape))
    except (RuntimeError, ValueError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{called} cannot take images of {_shape(shape)}: {reason}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < outputs:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"{called} must give logits (n, {outputs}), one a class, got {got} for two images")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError(f"{called} has no parameters to train")


def _torchvision(name: str, outputs: int) -> Callable[[], nn.Module]:
    from torchvision import models

    names = models.list_models(module=models)
    if name.lower() not in names:
        close = difflib.get_close_matches(name.lower(), names, n=1)
        hint = f"; did you mean {TORCHVISION + close[0]!r}?" if close else ""
        raise ValueError(f"torchvision has no network {name!r} for classification{hint}")
    return partial(models.get_model, name.lower(), weights=None, num_classes=outputs)


def _own_file(text: str) -> tuple[Path, str] | None:
    """The two parts of ``FILE.py:FUNCTION``."""
    path, _, name = text.rpartition(":")
    return (Path(path).expanduser(), name) if path.endswith(".py") and name else None


def _own_function(path: Path, name: str) -> Callable[[], nn.Module]:
    """A function of a file."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; --network takes FILE.py:FUNCTION")
    spec = importlib.util.spec_from_file_location(f"_own_network_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # anything may be wrong in a file of one's own
        raise ValueError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        has = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ValueError(f"{path} has no function {name!r}; it has {', '.join(has) or 'none'}")
    made: Callable[[], nn.Module] = function
    return made
