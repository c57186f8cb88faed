"""What is fastest on this machine, found by trying it once and remembered.

Ways to compute the same thing differ in float rounding, so a choice is part of what a memory is: it is made
before the work begins, written into the settings that are recorded and cached, and kept on this machine
(``~/.cache/clreplay/calibration``), so that the same settings give the same bytes here tomorrow.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch

from clreplay.condensation.engine.execution import EXECUTION_FIELDS, Execution
from clreplay.condensation.real_images import RealImages
from clreplay.networks.fused_forward import fusible
from clreplay.runtime.device import processor
from clreplay.runtime.files import replacing, user_cache

logger = logging.getLogger(__name__)

WORTH_MEASURING = 1e10
"""Multiply-adds a class (about a second of one core) below which plain settings will do."""
WORTH_COMPILING = 1e14
"""Multiply-adds of all classes (about a minute of a GPU in float32) below which ``torch.compile`` is not tried."""
MARGIN = 0.95
"""A later candidate must take less than this share of an earlier one's time: near ties must not flip."""


class Steppable(Protocol):
    """An engine as a trial sees it: made for some classes, moved a step at a time, closed."""

    def __init__(
        self,
        real: RealImages,
        counts: dict[int, int],
        settings: Any,
        seed: int,
        device: torch.device,
        execution: Execution,
    ) -> None: ...

    def step(self) -> Any:
        """One update of the images of every class."""

    def close(self) -> None:
        """Let go of threads."""


def choose_execution(
    engine: type[Steppable],
    settings: Any,
    execution: Execution,
    real: RealImages,
    counts: dict[int, int],
    device: torch.device,
) -> tuple[Any, Execution]:
    """Settings and execution without ``auto``: measured where the work is long enough to pay for it, plain elsewhere.

    Args:
        engine: the engine that will do the work; a few iterations of a few classes are its trial.
        settings: of the method; only ``precision`` may be open in them.
        execution: what is not ``auto`` (``classes_at_once``: null) stays.
        real, counts: the experience, of which the first classes are tried.
        device: where.
    """
    trial = Trial(engine, settings, execution, real, counts, torch.device(device))
    work = trial.multiply_adds() * settings.iterations
    if work >= WORTH_MEASURING and trial.is_open():
        path = user_cache() / "calibration" / f"{trial.key()}.json"
        found = _remembered(path)
        if found is None:
            chosen = _search(trial, compiling=work * len(real.classes) > WORTH_COMPILING)
            found = {"chosen": chosen, "milliseconds": trial.milliseconds()}
            _remember(path, found)
        settings, execution = _with_choice(settings, execution, found["chosen"])
    return settings.plain(trial.device), execution.plain(trial.device, settings.norm)


def _with_choice(settings: Any, execution: Execution, choice: Mapping[str, Any]) -> tuple[Any, Execution]:
    """Both with a choice written into them; ``precision`` is a setting."""
    how = {name: value for name, value in choice.items() if name != "precision"}
    if "precision" in choice:
        settings = replace(settings, precision=choice["precision"])
    return settings, replace(execution, **how)


def _search(trial: Trial, compiling: bool) -> dict[str, Any]:
    """The fastest choices: kernels with their layout and parallelism first, then the chunk, then precision."""
    best, seconds = None, math.inf
    for candidate in _ways(trial, compiling):
        taken = trial(candidate)
        if best is None or taken < MARGIN * seconds:
            best, seconds = candidate, taken
    chunks = trial.device.type == "cpu" and trial.execution.classes_at_once is None and trial.settings.norm != "batch"
    for chunk in (1, 4) if chunks else ():
        taken = trial({**best, "classes_at_once": chunk}) if chunk > 1 else seconds
        if chunk == 1 or taken < MARGIN * seconds:
            best, seconds = {**best, "classes_at_once": chunk}, taken
    if trial.settings.precision == "auto":
        low = {**best, "precision": "bfloat16"}
        best = low if trial(low) < MARGIN * seconds else {**best, "precision": "float32"}
    return best


def _ways(trial: Trial, compiling: bool) -> list[dict[str, Any]]:
    """Candidates, the one to prefer in a tie first."""
    execution, device = trial.execution, trial.device
    cpu = device.type == "cpu"
    kernels = [execution.kernels]
    if execution.kernels == "auto":
        fused = (["native"] if cpu else ["compiled"]) if cpu or compiling else []
        kernels = [name for name in fused if fusible(trial.network, name, device) is None] + ["eager"]
    elif execution.kernels == "compiled":
        kernels = ["compiled", "eager"]  # the latter in case the former fails
    layouts = {"native": ["channels_last"], "eager": ["contiguous"] if cpu else ["channels_last", "contiguous"]}
    threads = cpu and torch.get_num_threads() > 1 and trial.settings.norm != "batch"
    ways = []
    for name in kernels:
        known = layouts.get(name, ["contiguous"] if cpu else ["channels_last"])
        for layout in known if execution.layout == "auto" or name == "native" else [execution.layout]:
            free = ["classes", "operators"] if threads else ["operators"]
            for parallel in free if execution.parallel == "auto" else [execution.parallel]:
                ways.append({"kernels": name, "layout": layout, "parallel": parallel})
    return ways


@dataclass
class Trial:
    """Seconds of one iteration of one class, tried on the first classes of an experience.

    Args:
        engine, settings, execution, real, counts, device: as of :func:`choose_execution`.
    """

    engine: type[Steppable]
    settings: Any
    execution: Execution
    real: RealImages
    counts: dict[int, int]
    device: torch.device
    fastest: float = field(default=math.inf, init=False)
    results: list[tuple[Mapping[str, Any], float]] = field(default_factory=list, init=False)
    _warned: bool = field(default=False, init=False)

    @cached_property
    def network(self) -> torch.nn.Module:
        """A network of the kind that will be worked with."""
        return self.settings.build_for(1, self.real.shape).to(self.device)

    @property
    def _batch(self) -> int:
        return min(self.settings.real_batch, max(self.real.count(label) for label in self.real.classes))

    def is_open(self) -> bool:
        """Whether there is anything to choose."""
        how, names = self.execution, ["kernels", "parallel" if self.device.type == "cpu" else "layout"]
        failing = how.kernels == "compiled"  # it is tried, and given up if it fails
        return failing or self.settings.precision == "auto" or any(getattr(how, name) == "auto" for name in names)

    def multiply_adds(self) -> float:
        """Rough number for one class and iteration: the two first blocks of a ConvNet are nearly all of it."""
        channels, height, width = self.real.shape
        image = 9 * self.settings.width * height * width * (channels + self.settings.width / 4)
        return image * (self._batch + 3 * max(self.counts[label] for label in self.real.classes))

    def key(self) -> str:
        """Hash of all that the fastest choice may depend on: the work's shape, the machine and the software."""
        left_out = ("iterations", "lr_img", "momentum_img")
        shape = {name: value for name, value in asdict(self.settings).items() if name not in left_out}
        threads, classes, cpu = torch.get_num_threads(), len(self.real.classes), self.device.type == "cpu"
        parts = [
            self.engine.__name__,
            shape,
            asdict(self.execution),
            self.real.shape,
            self._batch,
            max(self.counts[label] for label in self.real.classes),
            min(classes, threads) if cpu else classes,
            threads,
            processor() if cpu else torch.cuda.get_device_name(self.device),
            torch.__version__,
        ]
        return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()

    def __call__(self, choice: Mapping[str, Any]) -> float:
        """Seconds with a choice in place of settings and execution as they are.

        The best of four iterations; a hopeless candidate is timed by the first alone.
        """
        precision = "float32" if self.settings.precision == "auto" else self.settings.precision
        settings, execution = _with_choice(self.settings, self.execution, {"precision": precision, **choice})
        classes = len(self.real.classes)
        if self.device.type == "cpu":  # as many as it works on at a time say it; a GPU is only filled by all
            classes = min(classes, torch.get_num_threads() * (execution.classes_at_once or 1))
        part = self.real.subset(self.real.classes[:classes])
        try:
            counts = {label: self.counts[label] for label in part.classes}
            engine = self.engine(part, counts, settings, 0, self.device, execution)
            seconds = self._best(engine) / classes
        except Exception as error:
            # Whatever a compiler stumbles over is a reason not to use it; PyTorch's own layers must work.
            if execution.kernels != "compiled":
                raise
            if not self._warned:
                logger.warning("kernels=compiled does not work here (%s); going on with eager", _first_line(error))
            self._warned, seconds = True, math.inf
        self.fastest = min(self.fastest, seconds * classes)
        self.results.append((choice, seconds))
        return seconds

    def _best(self, engine: Steppable) -> float:
        try:
            best = self._timed(engine)
            for _ in range(3):
                if best > 4 * self.fastest:
                    break
                best = min(best, self._timed(engine))
            return best
        finally:
            engine.close()

    def _timed(self, engine: Steppable) -> float:
        self._wait()
        start = time.perf_counter()
        engine.step()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def milliseconds(self) -> list[dict[str, Any]]:
        """What was tried and how long an iteration of one class took, to be read by people."""
        rows = [(choice, seconds) for choice, seconds in self.results if math.isfinite(seconds)]
        return [{**choice, "milliseconds_a_class": round(1000 * seconds, 3)} for choice, seconds in rows]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _remembered(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if set(found["chosen"]) <= set(EXECUTION_FIELDS) else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("measuring anew: %s is damaged (%s)", path, error)
        return None


def _remember(path: Path, found: dict[str, Any]) -> None:
    """Keep a choice; a full or read-only disk costs a warning, not the run."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_text(json.dumps(found, indent=1), encoding="utf-8")
    except OSError as error:
        logger.warning("cannot keep what was measured in %s: %s", path.parent, error)
