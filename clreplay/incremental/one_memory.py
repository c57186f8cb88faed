"""One memory of all classes of a data set in a file, without a run around it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from clreplay.condensation import RealImages, condense_experience
from clreplay.condensation.configured import ConfiguredMethod
from clreplay.incremental.folder_lock import sole_worker
from clreplay.incremental.forecast import estimate_condensing, estimate_encoders
from clreplay.incremental.plan import ExperimentPlan, plan_experiment
from clreplay.incremental.settings import ContinualSettings
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.recipes.overrides import split_overrides
from clreplay.recipes.presets import differing
from clreplay.recipes.recipe import Recipe
from clreplay.runtime.device import device_name
from clreplay.runtime.files import plain, write_text
from clreplay.runtime.progress import Reporter, counted, duration, roughly, size


@dataclass(frozen=True, eq=False)
class MemoryFile:
    """A memory that is to be made, with everything checked.

    Attributes:
        plan: one memory, one step of all classes.
        path: of the file.
        chosen_preset: whether the preset was asked for; otherwise it was chosen by the device.
    """

    plan: ExperimentPlan
    path: Path
    chosen_preset: bool

    @classmethod
    def planned(cls, settings: ContinualSettings, path: str | Path, replace_it: bool = False) -> MemoryFile:
        """Make every choice and check every input.

        Args:
            settings: data set, one memory, budget, store, preset, device, ...; steps and networks are not heeded.
            path: of the file.
            replace_it: whether a file that is there may be replaced, once the new one is whole.

        Raises:
            ValueError, OSError: before any work; the message names the argument, its value and the cure.
        """
        path = Path(path)
        if path.is_dir():
            raise ValueError(
                f"{path} is a folder; --out names the memory's file, such as {path / 'memory.safetensors'}"
            )
        if path.exists() and not replace_it:
            raise FileExistsError(f"{path} is there already; --force replaces it, or choose another --out")
        learner = [key for key in settings.overrides if key.startswith("train.")]
        if learner:
            raise ValueError(
                f"{', '.join(learner)}: settings of the learner, and nothing is trained on the memory here"
            )
        one = replace(settings, steps=1, class_orders=1, networks=1, host="none")
        return cls(plan_experiment(one), path, settings.preset is not None)

    @property
    def recipe(self) -> Recipe:
        """The memory's."""
        return self.plan.recipes[0]

    @property
    def method(self) -> ConfiguredMethod:
        """With its settings."""
        return self.plan.methods[self.recipe.name]

    @property
    def work(self) -> Path:
        """Folder of what is under way, beside the file."""
        return self.path.with_name(f"{self.path.name}.unfinished")

    @property
    def _progress(self) -> Path:
        return self.work / "condensing.progress"

    def make(self, reporter: Reporter) -> ReplayMemory:
        """Condense, or go on with it, and write the file.

        What is under way is saved now and then, on Ctrl-C and on signals that ask to stop
        (:func:`clreplay.runtime.command_line.signals_as_ctrl_c`): the same call goes on from there.

        Raises:
            FolderInUse: another process makes this file.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        with sole_worker(self.work):
            plan = self._with_execution()
            self._announce(plan, reporter)
            memory, seconds = self._condensed(plan, reporter)
            memory.save(self.path)
        shutil.rmtree(self.work, ignore_errors=True)
        stored, decoded = counted(len(memory), "image"), len(memory.labels)
        more = f" (decoded to {decoded})" if decoded != len(memory) else ""
        reporter.line(
            f"{self.path}: {stored}{more} of {counted(len(memory.classes), 'class')}, {size(memory.memory_bytes)} in "
            f"memory, a file of {size(self.path.stat().st_size)}; made in {duration(seconds)}"
        )
        return memory

    def _with_execution(self) -> ExperimentPlan:
        """How to compute, as it was chosen when the work began."""
        chosen = self.work / "chosen.json"
        before = json.loads(chosen.read_text(encoding="utf-8")) if chosen.is_file() else None
        same = before is not None and before["settings"] == plain(self.plan.as_settings())
        fixed = self.plan.with_execution(before["chosen"] if same else {})
        if not same:
            what = {"settings": plain(self.plan.as_settings()), "chosen": plain(self.plan.chosen(fixed))}
            write_text(chosen, json.dumps(what))
        return fixed

    def _announce(self, plan: ExperimentPlan, reporter: Reporter) -> None:
        data, device, preset = plan.data, plan.device, plan.settings.preset
        method = plan.methods[self.recipe.name]
        reporter.line(
            f"Condensing {data.name}: {counted(data.num_classes, 'class')}, {counted(len(data.train), 'image')}; "
            f"{self.recipe.label}, {plan.settings.budget}"
        )
        reporter.line(f"  data      {data.source}")
        reporter.line(f"  device    {device} ({device_name(device, threads=True)}), preset {preset}")
        if (speed := method.summary()) is not None:
            reporter.line(f"  speed     {speed}")
        if self._progress.is_file():
            reporter.line("  work      going on with what was begun")
            return
        if reporter.out is None:
            return
        seconds = _expected(plan, method)
        told = "known once it runs" if seconds is None else f"{roughly(seconds)} (from a short trial on this machine)"
        reporter.line(f"  time      {told}")
        if not self.chosen_preset and preset != "paper" and (paper := self._paper()) is not None:
            reporter.line(f"  preset    {preset}, because there is no GPU; {paper}")

    def _paper(self) -> str | None:
        """What the paper's settings are, beside those that were chosen, and what they would take; None if the same."""
        s = self.plan.settings
        mine = split_overrides(s.overrides, [self.recipe])[1][self.recipe.name]
        paper = self.recipe.configured("paper", mine, s.dataset, s.images_per_class)
        others = differing(self.method, paper)
        if not others:
            return None
        words = ", ".join(f"{others[name][1]:,} {name}" for name in ("iterations",) if name in others)
        words += ", ".join(f", {name} {others[name][1]}" for name in ("width",) if name in others)
        fixed = replace(self.plan, methods={self.recipe.name: paper})
        seconds = _expected(fixed, paper)
        takes = "" if seconds is None else f" would take {roughly(seconds)} here"
        return f"--preset paper ({words or 'the published settings'}){takes}"

    def _condensed(self, plan: ExperimentPlan, reporter: Reporter) -> tuple[ReplayMemory, float]:
        memory = plan.new_memory(self.recipe, 0)
        train, method = plan.data.train, plan.methods[self.recipe.name]
        with reporter.task(f"{self.recipe.label}, condensing") as progress:
            seconds = condense_experience(
                memory,
                RealImages(train.images, train.labels, plan.data.normalization),
                method,
                seed=plan.seed_of(self.recipe, 0),
                device=plan.device,
                keep_whole=True,
                progress=progress,
                keep=self._progress,
                cache=plan.cache(),
            )
        memory.info["condense_seconds"] = [seconds]
        where = device_name(plan.device, threads=True)
        memory.info.update(preset=plan.settings.preset, seed=plan.settings.seed, device_name=where)
        return memory, seconds


def _expected(plan: ExperimentPlan, method: ConfiguredMethod) -> float | None:
    """Seconds of condensing, as a short trial tells it; None where that is not known."""
    seconds = estimate_condensing(plan, method)
    return None if seconds is None else seconds + estimate_encoders(plan, method)
