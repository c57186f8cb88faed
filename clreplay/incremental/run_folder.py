"""The folder a run leaves: settings, results, pictures, memories, checkpoints; written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from clreplay.memory.replay_memory import ReplayMemory
from clreplay.runtime.files import plain, write_text

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "memory",
    "dataset",
    "class_order",
    "network",
    "step",
    "classes_seen",
    "accuracy",
    "memory_images",
    "memory_bytes",
    "condense_seconds",
    "train_seconds",
)
"""One row a trained network; accuracy in percent of the test images of all classes seen so far."""

INFORMATION = ("versions", "commit", "device_name", "created", "command", "chosen")
"""Settings that say where and when a run was made, not what it is: they may change when it goes on."""


class SettingsMismatch(ValueError):
    """A folder holds a run with other settings."""


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

    def open(self, settings: Mapping[str, Any]) -> bool:
        """Begin a run, or go on with it.

        Returns:
            whether the folder belonged to this run already.

        Raises:
            SettingsMismatch: it holds a run with other settings; nothing is changed.
            FileExistsError: it holds something else.
        """
        if self.settings_file.is_file():
            before = yaml.safe_load(self.settings_file.read_text(encoding="utf-8"))
            differences = differing(before, plain(settings))
            if differences:
                raise SettingsMismatch(
                    f"{self.path} holds a run with other settings: {'; '.join(differences)}. "
                    "Choose another --out, or repeat the run's own settings to go on with it."
                )
            return True
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise FileExistsError(
                f"{self.path} exists and is not a run's folder (no settings.yaml); choose another --out"
            )
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
        """All results so far (an empty frame with the columns if there are none)."""
        import pandas as pd

        if not self.results_file.is_file():
            return pd.DataFrame(columns=list(COLUMNS))
        return pd.read_csv(self.results_file, dtype={"memory": str, "dataset": str})

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add the rows of one finished step, all of them or none."""
        lines = [] if self.results_file.is_file() else [",".join(COLUMNS)]
        lines += [",".join(_cell(row[column]) for column in COLUMNS) for row in rows]
        before = self.results_file.read_text(encoding="utf-8") if self.results_file.is_file() else ""
        write_text(self.results_file, before + "\n".join(lines) + "\n")

    def checkpoint(self, memory: str, class_order: int) -> Path:
        """File of the memory of one class order between steps."""
        return self.path / "checkpoint" / f"{memory}-order{class_order}.safetensors"

    def work_in_progress(self, memory: str, class_order: int, step: int) -> Path:
        """File of an interrupted condensation."""
        return self.path / "checkpoint" / f"{memory}-order{class_order}-step{step}.progress"

    def memory_file(self, memory: str, alone: bool) -> Path:
        """``memory.safetensors``; ``memory-NAME.safetensors`` where a run compares several."""
        return self.path / ("memory.safetensors" if alone else f"memory-{memory}.safetensors")


def read_results(*folders: str | Path) -> pd.DataFrame:
    """The results of one or several run folders as one frame, with a column ``run`` for the folder's name.

    Raises:
        FileNotFoundError: a folder has no results.
    """
    import pandas as pd

    frames = []
    for folder in folders:
        run = RunFolder(folder)
        if not run.results_file.is_file():
            raise FileNotFoundError(f"no results.csv in {folder}; is it a run's folder?")
        frames.append(run.rows().assign(run=Path(folder).name))
    return pd.concat(frames, ignore_index=True)


def read_settings(folder: str | Path) -> dict[str, Any]:
    """``settings.yaml`` of a run folder."""
    return yaml.safe_load(RunFolder(folder).settings_file.read_text(encoding="utf-8"))


def read_memories(folder: str | Path) -> dict[str, ReplayMemory]:
    """The final memories of a run (of its first class order), by name.

    Raises:
        FileNotFoundError: the run has not finished.
    """
    names = list(read_settings(folder)["memories"])
    run = RunFolder(folder)
    return {name: ReplayMemory.load(run.memory_file(name, len(names) == 1)) for name in names}


def differing(before: Any, now: Any, where: str = "") -> list[str]:
    """What differs between two settings, one phrase each, leaving out :data:`INFORMATION`."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for key in dict.fromkeys([*before, *now]):
            if not where and key in INFORMATION:
                continue
            name = f"{where}.{key}" if where else str(key)
            found += differing(before.get(key), now.get(key), name)
        return found
    return [] if before == now else [f"{where} is {before!r} there and {now!r} here"]


def _cell(value: Any) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
