"""The class-incremental experiment: classes arrive in steps, a small memory is kept, networks are trained on it.

Protocol (DM's class-incremental script, which the DDM paper follows): at every step the memory of the new
classes is made from their data alone; old classes stay; networks with an output for every class are trained
from scratch on the memory, and tested on the test images of all classes seen so far, without masking.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clreplay import runfolder
from clreplay.chance import key_seed
from clreplay.condensation import RealImages, condense_experience, default_device
from clreplay.data import Dataset, ImageSet, load_dataset
from clreplay.estimate import estimate_run
from clreplay.memory import ReplayMemory, class_quotas
from clreplay.networks import reinitialize
from clreplay.recipes import PRESETS, Recipe, RecipeError, load_recipe, split_overrides, training_settings
from clreplay.reporting import Reporter, duration, size
from clreplay.runfolder import RunFolder
from clreplay.training import TrainingSettings, accuracy, train

HOSTS = ("avalanche", "none")
REPEATS = {"paper": (5, 3), "cpu": (1, 3), "smoke": (1, 1)}
"""Class orders and networks a step, by preset; the paper's are DM's: five orders, three networks."""


@dataclass(frozen=True)
class ContinualSettings:
    """One experiment, as a person asks for it; what is None is chosen by :func:`plan`.

    Attributes:
        dataset: ``cifar100``, ``cifar10`` or ``digits``.
        memories: names or recipe files of the memories to compare.
        images_per_class, mem_size: the budget; one of them.
        steps: experiences that the classes are split into evenly.
        class_orders: how many orders (legacy NumPy permutations of seeds 0, 1, ...).
        networks: networks trained a step.
        preset: ``paper``, ``cpu``, ``smoke``; None takes ``paper`` on a GPU and ``cpu`` otherwise.
        device: None takes a GPU if there is one.
        host: ``avalanche`` or ``none``; None takes Avalanche where it is installed.
        seed: of everything but the class orders.
        channels: of digits, 1 or 3.
        overrides: single settings, see :func:`clreplay.recipes.split_overrides`.
    """

    dataset: str = "cifar100"
    memories: tuple[str, ...] = ("ddm",)
    images_per_class: int | None = None
    mem_size: int | None = None
    steps: int = 5
    class_orders: int | None = None
    networks: int | None = None
    preset: str | None = None
    device: str | None = None
    host: str | None = None
    seed: int = 0
    channels: int | None = None
    data_root: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """An experiment with every choice made and every input checked; see :func:`plan`."""

    settings: ContinualSettings
    data: Dataset
    recipes: list[Recipe]
    memory_settings: dict[str, Any]
    learner: TrainingSettings
    device: torch.device

    def classes(self, order: int) -> list[list[int]]:
        """The classes of every step under one class order."""
        permutation = np.random.RandomState(order).permutation(self.data.num_classes)
        return [part.tolist() for part in np.split(permutation, self.settings.steps)]

    def images_at(self, step: int) -> int:
        """Images in memory after a step (0-based)."""
        seen = self.data.num_classes // self.settings.steps * (step + 1)
        return sum(class_quotas(seen, self.settings.images_per_class, self.settings.mem_size))

    def network(self) -> torch.nn.Module:
        """A learner with an output for every class of the data set."""
        channels, size = self.data.train.images.shape[1:3]
        return self.learner.build(self.data.num_classes, channels, size)

    def seed_of(self, recipe: Recipe, order: int) -> int:
        """Seed of a memory: apart from the class order, except for memories that draw anew with each."""
        redraw = getattr(self.memory_settings[recipe.name], "redraw_per_order", False)
        return key_seed(self.settings.seed, "order", order) if redraw else self.settings.seed

    def training_seed(self, order: int, network: int) -> int:
        """Seed of one network's weights, shuffling and augmentation."""
        return key_seed(self.settings.seed, "learner", order, network)

    def as_settings(self) -> dict[str, Any]:
        """What ``settings.yaml`` records."""
        s = self.settings
        return {
            "experiment": "class-incremental",
            "dataset": s.dataset,
            **({"channels": s.channels} if s.channels else {}),
            "steps": s.steps,
            "images_per_class": s.images_per_class,
            "mem_size": s.mem_size,
            "class_orders": s.class_orders,
            "networks": s.networks,
            "seed": s.seed,
            "preset": s.preset,
            "host": s.host,
            "device": self.device.type,
            "memories": {
                r.name: {"label": r.label, "method": r.method.name, "settings": asdict(self.memory_settings[r.name])}
                for r in self.recipes
            },
            "training": asdict(self.learner),
        }


def plan(settings: ContinualSettings) -> Plan:
    """Make every choice and check every input, before any work and before anything is written.

    Raises:
        ValueError: something does not fit; the message names the argument, its value and the cure.
        FileNotFoundError: the data set cannot be had.
    """
    device = default_device(settings.device)
    preset = settings.preset or ("paper" if device.type == "cuda" else "cpu")
    if preset not in PRESETS:
        raise RecipeError(f"preset must be auto, {', '.join(PRESETS)}, got {preset!r}")
    recipes = [load_recipe(name) for name in settings.memories]
    names = [recipe.name for recipe in recipes]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"memories must be one or more different names, got {', '.join(names) or 'none'}")
    learner, by_recipe = split_overrides(settings.overrides, recipes)
    chosen = {recipe.name: recipe.settings(preset, by_recipe[recipe.name]) for recipe in recipes}
    orders, networks = REPEATS[preset]
    filled = replace(
        settings,
        preset=preset,
        host=_host(settings.host),
        class_orders=orders if settings.class_orders is None else settings.class_orders,
        networks=networks if settings.networks is None else settings.networks,
        images_per_class=20 if settings.images_per_class is None and settings.mem_size is None else settings.images_per_class,
    )
    for name in ("steps", "class_orders", "networks"):
        if getattr(filled, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(filled, name)}")
    learned = training_settings(preset, learner)
    ReplayMemory(filled.images_per_class, filled.mem_size)  # a wrong budget is told before the data is read
    data = load_dataset(settings.dataset, settings.data_root, channels=settings.channels)
    if data.num_classes % filled.steps:
        raise ValueError(f"steps must divide the {data.num_classes} classes of {data.name}, got {filled.steps}")
    made = Plan(filled, data, recipes, chosen, learned, device)
    _check_budget(made)
    made.network()  # a learner that does not fit the images is told now
    return made


def run(
    settings: ContinualSettings, out: str | Path | None = None, reporter: Reporter | None = None, command: str = ""
) -> Path:
    """Run an experiment, or go on with it after its last finished step.

    Args:
        settings: what to do.
        out: the run's folder; None takes :func:`default_folder`.
        reporter: where progress is told.
        command: the command line, recorded in ``settings.yaml``.

    Returns:
        the run's folder with settings.yaml, results.csv, accuracy.png, memory.png and the memories.

    Raises:
        ValueError, FileNotFoundError: as :func:`plan`; or the folder holds another run.
    """
    reporter = reporter or Reporter()
    made = plan(settings)
    folder = RunFolder(default_folder(made) if out is None else out)
    device_name = torch.cuda.get_device_name(made.device) if made.device.type == "cuda" else _cpu_name()
    told = {**made.as_settings(), **runfolder.provenance(device_name), "created": time.strftime("%Y-%m-%d")}
    resumed = folder.open({**told, **({"command": command} if command else {})})
    _announce(made, folder, resumed, device_name, reporter)
    for order in range(made.settings.class_orders):
        for recipe in made.recipes:
            _run_line(made, recipe, order, folder, reporter)
    _final_pictures(made, folder)
    _summary(made, folder, reporter)
    return folder.path


@dataclass
class Line:
    """One memory under one class order: a line of the picture in the making."""

    plan: Plan
    recipe: Recipe
    order: int
    folder: RunFolder
    memory: ReplayMemory
    reporter: Reporter

    @property
    def checkpoint(self) -> Path:
        """Where the memory is kept."""
        return self.folder.checkpoint(self.recipe.name, self.order)

    @property
    def classes(self) -> list[list[int]]:
        """Classes of every step."""
        return self.plan.classes(self.order)

    def seen(self, step: int) -> list[int]:
        """Classes of all steps up to and including ``step``."""
        return [label for part in self.classes[: step + 1] for label in part]

    def has(self, step: int) -> bool:
        """Whether the memory of a step is made already."""
        return all(label in self.memory.slots for label in self.classes[step])

    def keep(self, step: int, seconds: float) -> None:
        """Put the memory of a new step, and what it cost, in a safe place."""
        self.memory.info["condense_seconds"] = [*self.memory.info["condense_seconds"][:step], seconds]
        self.memory.save(self.checkpoint)

    def title(self, step: int) -> str:
        """How progress calls a step."""
        order = f" order {self.order}," if self.plan.settings.class_orders > 1 else ""
        return f"{self.recipe.label},{order} step {step + 1}/{self.plan.settings.steps}"


def core_steps(line: Line, first: int) -> Iterator[list[tuple[float, float]]]:
    """The core host: accuracy and training seconds of every network, step by step from ``first``."""
    made = line.plan
    for step in range(first, made.settings.steps):
        if not line.has(step):
            subset = made.data.train.of_classes(line.classes[step])
            real = RealImages(subset.images, subset.labels, made.data.normalization)
            with line.reporter.task(f"{line.title(step)}, condensing") as progress:
                seconds = condense_experience(
                    line.memory,
                    real,
                    line.recipe.method.condense,
                    made.memory_settings[line.recipe.name],
                    seed=made.seed_of(line.recipe, line.order),
                    device=made.device,
                    progress=progress,
                )
            line.keep(step, seconds)
        images, labels, _ = (t.to(made.device) for t in line.memory.of_classes(line.seen(step)))
        test = made.data.test.of_classes(line.seen(step))
        yield [_train_one(line, step, network, images, labels, test) for network in range(made.settings.networks)]


def _train_one(
    line: Line, step: int, number: int, images: torch.Tensor, labels: torch.Tensor, test: ImageSet
) -> tuple[float, float]:
    made, seed = line.plan, line.plan.training_seed(line.order, number)
    start = time.perf_counter()
    network = made.network()
    reinitialize(network, key_seed(seed, "weights", step))
    network.to(made.device)
    with line.reporter.task(f"{line.title(step)}, network {number + 1}/{made.settings.networks}") as task:
        train(network, images, labels, made.learner, (seed, "train", step), progress=lambda d, t: task(d, t, "epochs"))
    seconds = time.perf_counter() - start
    return accuracy(network, test, made.data.normalization, made.device), seconds


def default_folder(made: Plan) -> Path:
    """``out/cifar100-5step-ddm-cpu``: one folder a line-up, data set, number of steps and preset."""
    s = made.settings
    budget = "" if s.images_per_class == 20 else f"-ipc{s.images_per_class}" if s.images_per_class else f"-mem{s.mem_size}"
    return Path("out") / f"{s.dataset}-{s.steps}step-{'-'.join(r.name for r in made.recipes)}{budget}-{s.preset}"


def _run_line(made: Plan, recipe: Recipe, order: int, folder: RunFolder, reporter: Reporter) -> None:
    first = _finished_steps(folder, recipe.name, order, made.settings.networks)
    if first == made.settings.steps:
        return
    line = Line(made, recipe, order, folder, _memory_of(made, recipe, order, folder, first), reporter)
    if made.settings.host == "avalanche":
        from clreplay.avalanche_host import avalanche_steps as steps
    else:
        steps = core_steps
    for step, measured in enumerate(steps(line, first), start=first):
        rows = _rows(line, step, measured)
        folder.append(rows)
        _accuracy_picture(made, folder)
        values = np.array([row["accuracy"] for row in rows])
        condensed = line.memory.info["condense_seconds"][step]
        reporter.line(
            f"{line.title(step):<28} {len(line.seen(step)):>4} classes  "
            f"{values.mean():5.1f} % (std {values.std():.1f}, {len(values)} network{'s' if len(values) > 1 else ''})  "
            f"memory {rows[0]['memory_images']} images, {size(rows[0]['memory_bytes'])}; "
            f"made in {duration(condensed)}, trained in {duration(sum(s for _, s in measured))}"
        )


def _rows(line: Line, step: int, measured: Sequence[tuple[float, float]]) -> list[dict[str, Any]]:
    common = {
        "memory": line.recipe.name,
        "dataset": line.plan.settings.dataset,
        "class_order": line.order,
        "step": step,
        "classes_seen": len(line.seen(step)),
        "memory_images": len(line.memory),
        "memory_bytes": line.memory.memory_bytes,
        "condense_seconds": float(line.memory.info["condense_seconds"][step]),
    }
    return [
        {**common, "network": number, "accuracy": value, "train_seconds": seconds}
        for number, (value, seconds) in enumerate(measured)
    ]


def _finished_steps(folder: RunFolder, memory: str, order: int, networks: int) -> int:
    rows = folder.rows()
    steps = rows[(rows.memory == memory) & (rows.class_order == order)].groupby("step").size()
    return int((steps == networks).sum())


def _memory_of(made: Plan, recipe: Recipe, order: int, folder: RunFolder, finished: int) -> ReplayMemory:
    """The memory as the last step left it, or a new one."""
    path = folder.checkpoint(recipe.name, order)
    if path.is_file():
        return ReplayMemory.load(path, dataset=made.data.name)
    if finished:
        raise FileNotFoundError(f"{folder.results_file} has finished steps but {path} is gone; use a new --out")
    memory = ReplayMemory(made.settings.images_per_class, made.settings.mem_size, made.data.normalization)
    memory.info = {"dataset": made.data.name, "method": recipe.name, "class_order": order, "condense_seconds": []}
    return memory


def _check_budget(made: Plan) -> None:
    """The largest quota of any class, in any order, must be there in real images."""
    sizes = torch.bincount(made.data.train.labels, minlength=made.data.num_classes)
    s, classes = made.settings, made.data.num_classes
    for step in range(1, s.steps + 1):
        quotas = class_quotas(classes // s.steps * step, s.images_per_class, s.mem_size)
        if max(quotas) > int(sizes.min()):
            name, value = ("images_per_class", s.images_per_class) if s.images_per_class else ("mem_size", s.mem_size)
            limit = int(sizes.min()) if s.images_per_class else int(sizes.min()) * (classes // s.steps)
            raise ValueError(
                f"{name} is {value}, so a class needs {max(quotas)} images at step {step}, but class "
                f"{int(sizes.argmin())} of {made.data.name} has {int(sizes.min())}; take at most {limit}"
            )


def _announce(made: Plan, folder: RunFolder, resumed: bool, device_name: str, reporter: Reporter) -> None:
    s = made.settings
    budget = f"{s.images_per_class} images a class" if s.images_per_class else f"{s.mem_size} images in all"
    reporter.line(f"Class-incremental {s.dataset}: {made.data.num_classes} classes in {s.steps} steps, {budget}")
    reporter.line(f"  memories  {', '.join(r.label for r in made.recipes)}; {s.class_orders} class order(s), {s.networks} network(s) a step")
    reporter.line(f"  learner   {made.network().__class__.__name__} of width {made.learner.width}, host {s.host}")
    reporter.line(f"  device    {made.device} ({device_name}), preset {s.preset}{_PRESET_NOTES[s.preset]}")
    reporter.line(f"  data      {made.data.source}")
    reporter.line(f"  folder    {folder.path}{' (going on with the run in it)' if resumed else ''}")
    if not resumed:
        reporter.line(f"  time      about {duration(estimate_run(made))} (estimated from a short trial on this machine)")


_PRESET_NOTES = {
    "paper": ": the paper's settings",
    "cpu": ": narrow networks and short runs for a CPU; not the paper's accuracy",
    "smoke": ": a few iterations to see that everything works; accuracies mean nothing",
}


def _accuracy_picture(made: Plan, folder: RunFolder) -> None:
    from clreplay.plots import accuracy_figure

    labels = {recipe.name: recipe.label for recipe in made.recipes}
    s = made.settings
    title = f"{s.dataset}, {s.steps} steps, " + (f"{s.images_per_class} images a class" if s.images_per_class else f"{s.mem_size} images")
    accuracy_figure(folder.rows(), labels=labels, title=f"{title} ({s.preset} preset)", path=folder.path / "accuracy.png")


def _final_pictures(made: Plan, folder: RunFolder) -> None:
    from clreplay.plots import memory_figure

    alone = len(made.recipes) == 1
    memories = {}
    for recipe in made.recipes:
        memories[recipe.name] = ReplayMemory.load(folder.checkpoint(recipe.name, 0), dataset=made.data.name)
        memories[recipe.name].save(folder.memory_file(recipe.name, alone))
    memory_figure(
        memories,
        made.data.train,
        class_names=made.data.class_names,
        labels={recipe.name: recipe.label for recipe in made.recipes},
        path=folder.path / "memory.png",
    )
    _accuracy_picture(made, folder)


def _summary(made: Plan, folder: RunFolder, reporter: Reporter) -> None:
    rows = folder.rows()
    last = rows[rows.step == made.settings.steps - 1].groupby("memory").accuracy
    reporter.line()
    reporter.line(f"Accuracy after the last step, all {made.data.num_classes} classes, last epoch:")
    for recipe in made.recipes:
        values = last.get_group(recipe.name)
        reporter.line(f"  {recipe.label:<10} {values.mean():5.2f} % (std {values.std(ddof=0):.2f} over {len(values)} networks)")
    reporter.line(f"Pictures: {folder.path / 'accuracy.png'} and {folder.path / 'memory.png'}")
    reporter.line(f"Numbers:  {folder.results_file}")


def _host(wanted: str | None) -> str:
    installed = importlib.util.find_spec("avalanche") is not None
    if wanted is None:
        return "avalanche" if installed else "none"
    if wanted not in HOSTS:
        raise ValueError(f"host must be one of {', '.join(HOSTS)}, got {wanted!r}")
    if wanted == "avalanche" and not installed:
        raise ValueError("host 'avalanche' needs Avalanche: pip install avalanche-lib, or use --host none")
    return wanted


def _cpu_name() -> str:
    try:
        for text in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if text.startswith("model name"):
                return f"{text.split(':', 1)[1].strip()}, {torch.get_num_threads()} threads"
    except OSError:
        pass  # not Linux: the architecture is all that is known
    import platform

    return f"{platform.machine()}, {torch.get_num_threads()} threads"

