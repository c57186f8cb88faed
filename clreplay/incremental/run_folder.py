"""The folder a run leaves: settings, results, pictures, memories, checkpoints; written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from clreplay.incremental.confusion_file import Tested, read_confusions, write_confusions
from clreplay.incremental.folder_lock import LOCK, OWNER, sole_worker
from clreplay.incremental.results_file import COLUMNS, DOMAIN_COLUMNS, append_rows, read_rows
from clreplay.incremental.settings_file import INFORMATION, SettingsMismatch, differing, load_settings
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.runtime.files import plain, write_text

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "COLUMNS",
    "INFORMATION",
    "RunFolder",
    "SettingsMismatch",
    "differing",
    "read_confusion",
    "read_domains",
    "read_memories",
    "read_results",
    "read_settings",
]

LEFTOVERS = (LOCK, OWNER, "settings.yaml.*partial", ".DS_Store", "Thumbs.db", "lost+found")
"""Patterns of names that do not make a folder somebody else's: left by a run that was killed before its settings were
written, by file managers, by a file system."""


def _left_over(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in LEFTOVERS)


class RunFolder:
    """One run on disk.

    Args:
        path: the folder; made when it is first written to.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def settings_file(self) -> Path:
        """``settings.yaml``: everything needed to repeat the run."""
        return self.path / "settings.yaml"

    @property
    def results_file(self) -> Path:
        """``results.csv``, see :data:`COLUMNS`."""
        return self.path / "results.csv"

    @property
    def domains_file(self) -> Path:
        """``domains.csv`` of a domain-incremental run, see :data:`clreplay.incremental.results_file.DOMAIN_COLUMNS`."""
        return self.path / "domains.csv"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder if need be, and let no other process work in it within the block.

        Raises:
            FileExistsError: it holds something else; nothing is changed.
            FolderInUse: another process works in it.
        """
        self._check_ours()
        self.path.mkdir(parents=True, exist_ok=True)
        with sole_worker(self.path):
            yield

    def _check_ours(self) -> None:
        if self.settings_file.is_file() or not self.path.exists():
            return
        if not self.path.is_dir() or not all(_left_over(entry.name) for entry in self.path.iterdir()):
            raise FileExistsError(
                f"{self.path} exists and is not a run's folder (no settings.yaml); choose another --out"
            )

    def open(self, settings: Mapping[str, Any]) -> bool:
        """Begin a run, or go on with it.

        Returns:
            whether the folder belonged to this run already.

        Raises:
            SettingsMismatch: it holds a run with other settings; nothing is changed.
            FileExistsError: it holds something else.
            ValueError: its settings or results are damaged.
        """
        if self.settings_file.is_file():
            differences = differing(load_settings(self.settings_file), plain(settings))
            if differences:
                raise SettingsMismatch(
                    f"{self.path} holds a run with other settings: {'; '.join(differences)}. "
                    "Choose another --out, or repeat the run's own settings to go on with it."
                )
            self.rows()  # damage must be told before any work
            self.domain_rows()
            return True
        self._check_ours()
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.settings_file, yaml.safe_dump(plain(settings), sort_keys=False, width=100))
        return False

    def chosen(self) -> dict[str, dict[str, Any]] | None:
        """What was chosen by measurement when the run began, by memory; None if it is still to be."""
        return read_settings(self.path).get("chosen")

    def choose(self, chosen: Mapping[str, Mapping[str, Any]]) -> None:
        """Record what was chosen by measurement, once for the whole run."""
        settings = {**read_settings(self.path), "chosen": plain(chosen)}
        write_text(self.settings_file, yaml.safe_dump(settings, sort_keys=False, width=100))

    def rows(self) -> pd.DataFrame:
        """All results so far (an empty frame with the columns if there are none).

        Raises:
            ValueError: the file is damaged, or has a row twice.
        """
        return read_rows(self.results_file)

    def domain_rows(self) -> pd.DataFrame:
        """The accuracies by domain so far.

        Raises:
            ValueError: as :meth:`rows`.
        """
        return read_rows(self.domains_file, DOMAIN_COLUMNS)

    def keep_domains(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add the accuracies by domain of a step whose rows are to be added next; those of it that are there go.

        Args:
            rows: one a network and domain seen; none in a run without domains.

        Raises:
            FileNotFoundError: the folder was removed or emptied while the run worked in it.
        """
        if rows:
            self.check_there()
            append_rows(self.domains_file, rows, DOMAIN_COLUMNS)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add the rows of one finished step, all of them or none; rows of that step that are there are replaced.

        Raises:
            FileNotFoundError: the folder was removed or emptied while the run worked in it.
        """
        self.check_there()
        append_rows(self.results_file, rows)

    def check_there(self) -> None:
        """Whether this is still a run's folder; a part of one must not be made of nothing.

        Raises:
            FileNotFoundError: it was removed or emptied.
        """
        if not self.settings_file.is_file():
            raise FileNotFoundError(
                f"{self.path} was removed or emptied while the run worked in it; put it back to go on from there, or "
                "start again from the beginning"
            )

    @property
    def confusion_file(self) -> Path:
        """``confusion.safetensors``, see :func:`.confusion_file.read_confusions`."""
        return self.path / "confusion.safetensors"

    def keep_confusions(self, tested: Sequence[Tested]) -> None:
        """Add what the networks of a finished step took the test images for.

        Raises:
            FileNotFoundError: the folder was removed or emptied while the run worked in it.
        """
        self.check_there()
        write_confusions(self.confusion_file, tested)

    def checkpoint(self, memory: str, class_order: int) -> Path:
        """File of the memory of one class order between steps."""
        return self.path / "checkpoint" / f"{memory}-order{class_order}.safetensors"

    def work_in_progress(self, memory: str, class_order: int, step: int) -> Path:
        """File of an interrupted condensation."""
        return self.path / "checkpoint" / f"{memory}-order{class_order}-step{step}.progress"

    def training(self, memory: str, class_order: int, step: int, network: int | str) -> Path:
        """File of a training: interrupted, or finished while others of its step are not."""
        return self.path / "checkpoint" / f"{memory}-order{class_order}-step{step}-network{network}.training"

    def memory_file(self, memory: str, alone: bool) -> Path:
        """``memory.safetensors``; ``memory-NAME.safetensors`` where a run compares several."""
        return self.path / ("memory.safetensors" if alone else f"memory-{memory}.safetensors")


def read_results(*folders: str | Path) -> pd.DataFrame:
    """The results of one or several run folders as one frame, with a column ``run`` for the folder's name.

    Raises:
        FileNotFoundError: a folder has no results.
    """
    return _read(folders, lambda run: run.results_file, RunFolder.rows, "a run's folder")


def read_domains(*folders: str | Path) -> pd.DataFrame:
    """The accuracies by domain of one or several domain-incremental runs as one frame, as :func:`read_results`.

    Raises:
        FileNotFoundError: a folder has none.
    """
    return _read(folders, lambda run: run.domains_file, RunFolder.domain_rows, "the folder of a domain-incremental run")


def _read(
    folders: Sequence[str | Path],
    file: Callable[[RunFolder], Path],
    rows: Callable[[RunFolder], pd.DataFrame],
    kind: str,
) -> pd.DataFrame:
    import pandas as pd

    frames = []
    for folder in folders:
        run = RunFolder(folder)
        if not file(run).is_file():
            raise FileNotFoundError(f"no {file(run).name} in {folder}; is it {kind}?")
        frames.append(rows(run).assign(run=Path(folder).name))
    return pd.concat(frames, ignore_index=True)


def read_confusion(folder: str | Path) -> pd.DataFrame:
    """What the networks of a run took the test images for.

    Returns:
        one row a memory, class_order, step, network, class (``label``) and what it was ``taken_for``: ``count`` images;
        pairs without an image have none. ``arrived`` and ``taken_for_arrived`` are the steps in which the two classes
        came; the latter is -1 for classes that have not come yet.

    Raises:
        FileNotFoundError: there is no such file, as in runs of earlier versions.
        ValueError: it is damaged.
    """
    import pandas as pd

    run = RunFolder(folder)
    tested = read_confusions(run.confusion_file)
    first = {(one.class_order, label): 0 for one in tested for label in one.classes}
    for order, label in first:
        first[order, label] = min(one.step for one in tested if one.class_order == order and label in one.classes)
    rows = []
    for one in tested:
        for place, taken_for in one.counts.nonzero().tolist():
            label = one.classes[place]
            arrived = first[one.class_order, label]
            other = first.get((one.class_order, taken_for), -1)
            other = other if other <= one.step else -1
            rows.append((*one[:4], label, taken_for, int(one.counts[place, taken_for]), arrived, other))
    columns = [
        "memory",
        "class_order",
        "step",
        "network",
        "label",
        "taken_for",
        "count",
        "arrived",
        "taken_for_arrived",
    ]
    return pd.DataFrame(rows, columns=columns).assign(run=run.path.name)


def read_settings(folder: str | Path) -> dict[str, Any]:
    """``settings.yaml`` of a run folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    return load_settings(RunFolder(folder).settings_file)


def read_memories(folder: str | Path) -> dict[str, ReplayMemory]:
    """The final memories of a run (of its first class order), by name.

    Raises:
        FileNotFoundError: the run has not finished.
    """
    names = list(read_settings(folder)["memories"])
    run = RunFolder(folder)
    return {name: ReplayMemory.load(run.memory_file(name, len(names) == 1)) for name in names}
