"""The class-incremental experiment: classes arrive in steps, a small memory is kept, networks are trained on it.

Protocol (DM's class-incremental script, which the DDM paper follows): at every step the memory of the new
classes is made from their data alone; old classes stay; networks with an output for every class are trained
from scratch on the memory, and tested on the test images of all classes seen so far, without masking.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clreplay import runfolder
from clreplay.chance import key_seed
from clreplay.condensation import RealImages, condense_experience
from clreplay.condensation.calibration import described
from clreplay.data import ImageSet
from clreplay.estimate import Forecast, forecast
from clreplay.experiment import ContinualSettings, Plan, default_folder, plan
from clreplay.memory import ReplayMemory
from clreplay.networks import reinitialize
from clreplay.recipes import Recipe
from clreplay.reporting import Reporter, Task, duration, size
from clreplay.runfolder import RunFolder
from clreplay.training import accuracy, train
from clreplay.training_together import accuracies_together, train_together, worth_it

__all__ = ["ContinualSettings", "Line", "Plan", "core_steps", "plan", "run"]


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
    before = folder.chosen()
    settled = made.settled(before or {})
    if before is None:
        folder.choose(made.chosen(settled))
    made = settled
    expected = _announce(made, folder, resumed, device_name, reporter)
    for order in range(made.settings.class_orders):
        for recipe in made.recipes:
            _run_line(made, recipe, order, folder, reporter, expected)
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
    expected: Forecast | None = None

    @property
    def checkpoint(self) -> Path:
        """Where the memory is kept."""
        return self.folder.checkpoint(self.recipe.name, self.order)

    def work_in_progress(self, step: int) -> Path:
        """Where a condensation that is under way is kept."""
        return self.folder.work_in_progress(self.recipe.name, self.order, step)

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

    def condensing(self, step: int) -> Task:
        """Progress of condensing a step; its first iterations correct the estimate of the whole run's time."""

        def correct(done: int, total: int, seconds: float) -> None:
            steps = self.plan.settings.steps
            if self.expected is not None and self.expected.correct(self.recipe.name, steps, done, total, seconds):
                self.reporter.line(
                    f"  time      about {duration(self.expected.total)} in all, "
                    f"corrected after {done} of {total} iterations"
                )

        return self.reporter.task(f"{self.title(step)}, condensing", correct)

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
            with line.condensing(step) as progress:
                seconds = condense_experience(
                    line.memory,
                    real,
                    line.recipe.method.condense,
                    made.memory_settings[line.recipe.name],
                    seed=made.seed_of(line.recipe, line.order),
                    device=made.device,
                    progress=progress,
                    keep=line.work_in_progress(step),
                    cache=made.cache(),
                )
            line.keep(step, seconds)
        images, labels, _ = (t.to(made.device) for t in line.memory.of_classes(line.seen(step)))
        test = made.data.test.of_classes(line.seen(step))
        if worth_it(made.device, made.settings.networks):
            yield _train_all(line, step, images, labels, test)
        else:
            yield [_train_one(line, step, network, images, labels, test) for network in range(made.settings.networks)]


def _train_one(
    line: Line, step: int, number: int, images: torch.Tensor, labels: torch.Tensor, test: ImageSet
) -> tuple[float, float]:
    made, seed = line.plan, line.plan.training_seed(line.order, number)
    start = time.perf_counter()
    network = _drawn(made, seed, step)
    with line.reporter.task(f"{line.title(step)}, network {number + 1}/{made.settings.networks}") as task:
        train(network, images, labels, made.learner, (seed, "train", step), progress=lambda d, t: task(d, t, "epochs"))
    seconds = time.perf_counter() - start
    return accuracy(network, test, made.data.normalization, made.device), seconds


def _train_all(
    line: Line, step: int, images: torch.Tensor, labels: torch.Tensor, test: ImageSet
) -> list[tuple[float, float]]:
    """All networks of a step at once, each drawn and keyed as by :func:`_train_one`; seconds are equal shares."""
    made = line.plan
    start = time.perf_counter()
    seeds = [made.training_seed(line.order, number) for number in range(made.settings.networks)]
    networks = [_drawn(made, seed, step) for seed in seeds]
    keys = [(seed, "train", step) for seed in seeds]
    with line.reporter.task(f"{line.title(step)}, {len(seeds)} networks together") as task:
        train_together(networks, images, labels, made.learner, keys, progress=lambda d, t: task(d, t, "epochs"))
    seconds = (time.perf_counter() - start) / len(seeds)
    values = accuracies_together(networks, test, made.data.normalization, made.device)
    return [(value, seconds) for value in values]


def _drawn(made: Plan, seed: int, step: int) -> torch.nn.Module:
    """A learner on the device, with the weights that its seed draws at a step."""
    network = made.network()
    reinitialize(network, key_seed(seed, "weights", step))
    return network.to(made.device)


def _run_line(
    made: Plan, recipe: Recipe, order: int, folder: RunFolder, reporter: Reporter, expected: Forecast | None
) -> None:
    first = _finished_steps(folder, recipe.name, order, made.settings.networks)
    if first == made.settings.steps:
        return
    line = Line(made, recipe, order, folder, _memory_of(made, recipe, order, folder, first), reporter, expected)
    steps = _host_of(made)
    for step, measured in enumerate(steps(line, first), start=first):
        rows = _rows(line, step, measured)
        folder.append(rows)
        _accuracy_picture(made, folder)
        values = np.array([row["accuracy"] for row in rows])
        condensed = line.memory.info["condense_seconds"][step]
        decoded = len(line.memory.labels)
        more = f" (decoded to {decoded})" if decoded != rows[0]["memory_images"] else ""
        reporter.line(
            f"{line.title(step):<28} {len(line.seen(step)):>4} classes  "
            f"{values.mean():5.1f} %{_spread(values):<22}  "
            f"memory {rows[0]['memory_images']} images{more}, {size(rows[0]['memory_bytes'])}; "
            f"made in {duration(condensed)}, trained in {duration(sum(s for _, s in measured))}"
        )


def _host_of(made: Plan) -> Callable[[Line, int], Iterator[list[tuple[float, float]]]]:
    if made.settings.host == "none":
        return core_steps
    from clreplay.avalanche_host import avalanche_steps  # Avalanche takes seconds to import

    return avalanche_steps


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
    s = made.settings
    memory = ReplayMemory(s.images_per_class, s.mem_size, made.data.normalization, s.store)
    memory.info = {"dataset": made.data.name, "method": recipe.name, "class_order": order, "condense_seconds": []}
    return memory


def _announce(made: Plan, folder: RunFolder, resumed: bool, device_name: str, reporter: Reporter) -> Forecast | None:
    s = made.settings
    budget = f"{s.images_per_class} images a class" if s.images_per_class else f"{s.mem_size} images in all"
    budget += "" if s.store == "uint8" else f", condensed ones stored as {s.store}"
    reporter.line(f"Class-incremental {s.dataset}: {made.data.num_classes} classes in {s.steps} steps, {budget}")
    reporter.line(
        f"  memories  {', '.join(r.label for r in made.recipes)}; "
        f"{s.class_orders} class order(s), {s.networks} network(s) a step"
    )
    reporter.line(f"  learner   {made.learner.described()}, host {s.host}")
    reporter.line(f"  device    {made.device} ({device_name}), preset {s.preset}{_PRESET_NOTES[s.preset]}")
    for recipe in made.recipes:
        if (speed := described(made.memory_settings[recipe.name])) is not None:
            reporter.line(f"  speed     {recipe.label}: {speed}")
    reporter.line(f"  data      {made.data.source}")
    reporter.line(f"  folder    {folder.path}{' (going on with the run in it)' if resumed else ''}")
    if resumed:
        return None
    expected = forecast(made)
    labels = [recipe.label for recipe in made.recipes if recipe.name in expected.unknown]
    without = f", not counting to make {', '.join(labels)}: that is known once it runs" if labels else ""
    reporter.line(f"  time      about {duration(expected.total)} (from a short trial on this machine{without})")
    return expected


_PRESET_NOTES = {
    "paper": ": the paper's settings",
    "cpu": ": narrow networks and short runs for a CPU; not the paper's accuracy",
    "smoke": ": a few iterations to see that everything works; accuracies mean nothing",
}


def _accuracy_picture(made: Plan, folder: RunFolder) -> None:
    from clreplay.plots import accuracy_figure

    labels = {recipe.name: recipe.label for recipe in made.recipes}
    s = made.settings
    title = f"{s.dataset}, {s.steps} steps, " + (
        f"{s.images_per_class} images a class" if s.images_per_class else f"{s.mem_size} images"
    )
    accuracy_figure(
        folder.rows(), labels=labels, title=f"{title} ({s.preset} preset)", path=folder.path / "accuracy.png"
    )


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
        reporter.line(f"  {recipe.label:<10} {values.mean():5.2f} %{_spread(values.to_numpy())}")
    reporter.line(f"Pictures: {folder.path / 'accuracy.png'} and {folder.path / 'memory.png'}")
    reporter.line(f"Numbers:  {folder.results_file}")


def _spread(values: np.ndarray) -> str:
    return f" (std {values.std():.2f}, {len(values)} networks)" if len(values) > 1 else " (1 network)"


def _cpu_name() -> str:
    try:
        for text in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if text.startswith("model name"):
                return f"{text.split(':', 1)[1].strip()}, {torch.get_num_threads()} threads"
    except OSError:
        pass  # not Linux: the architecture is all that is known
    import platform

    return f"{platform.machine()}, {torch.get_num_threads()} threads"
