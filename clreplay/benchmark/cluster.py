"""Who runs the units: a Ray cluster. GPUs are resources, and what a lost worker was at is run again elsewhere.

These are Ray's own tasks and not its back end for joblib (``ray.util.joblib``), which is a fixed pool of actors: one
that dies is not started again and what it was at fails, and it takes no tasks one by one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

from clreplay.benchmark.executors import Outcome, Task, attempt
from clreplay.benchmark.sets import Place
from clreplay.runtime.files import user_cache
from clreplay.runtime.progress import counted

logger = logging.getLogger(__name__)

RETRIES = 3
"""How often a unit is run again whose worker or machine was lost."""
LOST = f"its worker or machine was lost {RETRIES + 1} times (out of memory, or killed)"

SECONDS_TO_SAVE = 30.0
"""For condensations under way to save themselves when a run is stopped."""
SECONDS_TO_DIE = 60.0
"""For processes whose machine was lost to let go of what they were at."""


class ClusterError(ValueError):
    """There is no cluster, it has nothing to work with, or its machines have other code than this one."""


@dataclass(frozen=True)
class Share:
    """What one unit of work gets of a cluster.

    Attributes:
        jobs: units at a time.
        cpus: cores of each.
        gpus: GPUs of each, a fraction where several units share one.
    """

    jobs: int
    cpus: int
    gpus: float

    def summary(self) -> str:
        """In words."""
        cores = f"{self.cpus} core{'' if self.cpus == 1 else 's'}"
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{counted(self.jobs, 'unit')} at a time, {cores}{gpus} each"


class RayExecutor:
    """Tasks on the Ray cluster that this process is connected to, see :func:`connected`.

    Args:
        device_type: ``cuda`` gives every unit a GPU, or a part of one; ``cpu`` cores only.
        jobs: units at a time; None takes one a GPU, or one a core.

    Raises:
        ClusterError: the cluster has no such device, or a machine of it has other code than this one.
    """

    def __init__(self, device_type: str, jobs: int | None = None) -> None:
        self.share = share_of(_machines(), device_type, jobs)
        _check_code(device_type)

    @property
    def jobs(self) -> int:
        """Units at a time."""
        return self.share.jobs

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """The outcome of every task; when it ends early, what is running is cancelled and saves itself."""
        import ray

        running: dict[Any, Task] = {}
        tasks, shared = iter(tasks), _SharedImages()
        blocked: list[Task] = []
        patient_until = None
        try:
            while True:
                while len(running) < self.jobs and (task := next(tasks, None)) is not None:
                    running[self._begin(task, shared.reference(task))] = task
                if running:
                    (ready, *_), _ = ray.wait(list(running), num_returns=1)
                    outcome = _outcome(ready, task := running.pop(ready))
                    patient = patient_until is None or time.monotonic() < patient_until
                    if outcome.elsewhere and patient:
                        blocked.append(task)
                    else:
                        yield outcome
                elif blocked:
                    # Whoever has it is another run, or a process of a lost machine that has not noticed yet.
                    patient_until = patient_until or time.monotonic() + SECONDS_TO_DIE
                    time.sleep(1)
                    tasks, blocked = iter(blocked), []
                else:
                    return
        finally:
            for reference in running:
                ray.cancel(reference, force=False)
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=SECONDS_TO_SAVE)

    def _begin(self, task: Task, images: Any) -> Any:
        import ray

        resources = {"num_cpus": self.share.cpus, "num_gpus": self.share.gpus, "max_retries": RETRIES}
        remote = ray.remote(_work).options(**resources, name=task.unit.summary())
        return remote.remote(_anywhere(task), images, code_digest(), self.share.cpus)


class _SharedImages:
    """The condensed set that tasks train on, put into the cluster's memory once instead of with every task."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._reference: Any = None

    def reference(self, task: Task) -> Any:
        import ray

        if task.images is None:
            return None
        if task.unit.needs != self._key:
            self._key, self._reference = task.unit.needs, ray.put(dict(task.images))
        return self._reference


def _anywhere(task: Task) -> Task:
    """The task without its images, its paths as every machine understands them."""
    place = task.place
    # Named here, by flag or environment, it counts everywhere; else every machine uses its own setting.
    root = place.data_root or os.environ.get("CLREPLAY_DATA")
    root = None if root is None else str(Path(root).expanduser().absolute())
    work = None if place.work is None else str(Path(place.work).absolute())
    if work is not None:
        Path(work).mkdir(parents=True, exist_ok=True)  # machines that see it share this disk
    return replace(task, images=None, place=replace(place, data_root=root, work=work))


def _work(task: Task, images: Mapping[int, bytes] | None, digest: str, cpus: int) -> Outcome:
    """Run a task on whichever machine this is."""
    import torch

    if code_digest() != digest:  # a machine that came later
        return Outcome(task.unit, None, f"{socket.gethostname()} has other code of clreplay than where the run started")
    torch.set_num_threads(cpus)
    return attempt(replace(task, images=images, place=_here(task.place)))


def _here(place: Place) -> Place:
    """The place with a folder for work under way that this machine has: the run's own if the disk is shared."""
    if place.work is None or Path(place.work).is_dir():
        return place
    return replace(place, work=str(user_cache() / "static_tables" / Path(place.work).name))


def _outcome(reference: Any, task: Task) -> Outcome:
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        outcome: Outcome = ray.get(reference)
        return replace(outcome, unit=task.unit)
    except RayTaskError as error:  # what :func:`attempt` lets through
        lines = str(error.cause).splitlines() or [type(error.cause).__name__]
        return Outcome(task.unit, None, f"{type(error.cause).__name__}: {lines[0]}"[:500])
    except RayError as error:
        return Outcome(task.unit, None, f"{LOST}; {type(error).__name__}", RETRIES + 1)


# ---------------------------------------------------------------- the cluster


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Within the block this process is connected to a Ray cluster.

    Args:
        address: ``auto`` for the one that was started on this machine, ``local`` to start one on this machine that
            ends with the block, or where to find one (``10.0.0.1:6379``, ``ray://10.0.0.1:10001``).

    Raises:
        ClusterError: Ray is not installed, or there is no such cluster.
    """
    local = address == "local"
    before = {name: os.environ.get(name) for name in _CLOSED}
    try:
        if local:
            os.environ.update({**_CLOSED, "RAY_AUTH_TOKEN": secrets.token_hex(32)})
        with _connection(address, local):
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


_CLOSED = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": ""}
"""What makes a cluster of this machine only listen to this machine, and to who has its token: Ray runs any code that it
is sent. The first is Ray's switch for addresses other than the loopback one, whatever the system."""


@contextmanager
def _connection(address: str, local: bool) -> Iterator[None]:
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray announces as its next default
        import ray
    except ImportError as error:
        raise ClusterError(f"--cluster needs Ray ({error}); pip install 'clreplay[cluster]'") from error
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **_dashboard(local))
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        cure = "start one with 'ray start --head', or give --cluster local or --jobs" if address == "auto" else ""
        raise ClusterError(f"--cluster {address}: no Ray cluster ({reason}){'; ' + cure if cure else ''}") from error
    try:
        if local and (listens := {one["NodeManagerAddress"] for one in ray.nodes()} - {"127.0.0.1"}):
            logger.warning(
                "the cluster of this machine listens at %s, where others may send it code; this Ray (%s) cannot be "
                "kept from it, so run it behind a firewall, or give --jobs",
                ", ".join(sorted(listens)),
                ray.__version__,
            )
        yield
    finally:
        ray.shutdown()


def _dashboard(local: bool) -> dict[str, Any]:
    return {"include_dashboard": False, "_node_ip_address": "127.0.0.1"} if local else {}


def has_gpus() -> bool:
    """Whether the cluster that this process is connected to has any."""
    return any(machine.get("GPU", 0) >= 1 for machine in _machines())


def share_of(machines: list[dict[str, float]], device_type: str, jobs: int | None) -> Share:
    """What a unit gets, so that ``jobs`` of them run at a time.

    Args:
        machines: ``CPU`` and ``GPU`` of each.
        device_type: ``cuda`` or ``cpu``.
        jobs: units at a time; None takes one a GPU, or one a core.

    Raises:
        ClusterError: a GPU is requested and there is none, or there are no cores.
        ValueError: less than one job.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    able = [(int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in machines]
    able = [(cpus, gpus) for cpus, gpus in able if cpus > 0 and (gpus > 0 or device_type != "cuda")]
    what, cure = ("GPU", "--device cpu") if device_type == "cuda" else ("CPU", "machines with cores")
    if not able:
        raise ClusterError(f"no machine of the cluster has a {what} to work with; give {cure}")
    if device_type == "cuda":
        gpus = sum(gpus for _, gpus in able)
        each = ceil((jobs or gpus) / gpus)  # units that share one
        cpus = min(cpus // (gpus * each) for cpus, gpus in able)  # of the machine that has the fewest cores a GPU
        return Share(min(jobs or gpus, gpus * each), max(1, cpus), 1 / each)
    cores = sum(cpus for cpus, _ in able)
    jobs = min(jobs or cores, cores)
    # Cores of one machine each: as many as let all jobs run somewhere.
    fitting = (n for n in range(cores // jobs, 1, -1) if sum(cpus // n for cpus, _ in able) >= jobs)
    return Share(jobs, next(fitting, 1), 0)


def _machines() -> list[dict[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


@cache
def code_digest() -> str:
    """Hash of clreplay's code: machines with the same one measure the same."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for kind in ("*.py", "*.c") for path in package.rglob(kind)):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _digest() -> str:
    return code_digest()  # Ray takes plain functions only


def _check_code(device_type: str) -> None:
    """All machines that will work have the code of this one.

    Raises:
        ClusterError: naming one that does not.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    resource = "GPU" if device_type == "cuda" else "CPU"
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get(resource, 0) >= 1]
    there = [NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False) for node in nodes]
    ask = ray.remote(_digest)
    asked = [ask.options(num_cpus=0, scheduling_strategy=one).remote() for one in there]
    for address, reference in zip((node["NodeManagerAddress"] for node in nodes), asked):
        try:
            found = ray.get(reference)
        except RayError as error:
            lines = str(getattr(error, "cause", error)).splitlines() or [type(error).__name__]
            raise ClusterError(
                f"{address} of the cluster cannot run clreplay ({lines[0]}); install it there"
            ) from error
        if found != code_digest():
            raise ClusterError(f"{address} of the cluster has other code of clreplay; install the same there")
