"""``report.html`` of a run's folder."""

from __future__ import annotations

import logging
from pathlib import Path

from clreplay.data import Dataset
from clreplay.data.load import load_dataset
from clreplay.incremental.run_folder import (
    RunFolder,
    read_confusion,
    read_domains,
    read_memories,
    read_results,
    read_settings,
)
from clreplay.report import MissingLibrary, Reported, write_report

logger = logging.getLogger(__name__)
FILE = "report.html"


def reported(folder: Path, data: Dataset | None = None, data_root: str | None = None) -> Reported:
    """A run's folder as a report needs it; what is missing, such as memories of a run under way, is left out.

    Args:
        folder: of the run.
        data: what it ran on, whose real images are shown; None looks for it.
        data_root: where to look; data that are not found are left out, and that is warned of.

    Raises:
        FileNotFoundError: it is no run's folder, or has no results.
        ValueError: a file in it is damaged.
    """
    if not RunFolder(folder).settings_file.is_file():
        raise FileNotFoundError(f"{folder} is no run's folder: it has no settings.yaml")
    settings, results = read_settings(folder), read_results(folder)
    try:
        memories = read_memories(folder)
    except FileNotFoundError:
        memories = {}
    try:
        confusions = read_confusion(folder)
    except FileNotFoundError:
        confusions = None
    if data is None and memories:
        data = _found(settings["dataset"], data_root, settings.get("data_fingerprint"))
    names = settings.get("class_names") or (data.class_names if data is not None else ())
    if not names and memories:
        names = next(iter(memories.values())).class_names
    by_label = dict(names) if isinstance(names, dict) else dict(enumerate(names))
    real = None if data is None else data.train
    try:
        domains = read_domains(folder)
    except FileNotFoundError:
        domains = None
    return Reported(folder.resolve().name, settings, results, memories, confusions, real, by_label, domains)


def _found(name: str, data_root: str | None, fingerprint: str | None) -> Dataset | None:
    try:
        data = load_dataset(name, data_root, download=False)
    except (OSError, ValueError) as error:
        logger.warning("real images are left out: %s", error)
        return None
    if fingerprint not in (None, data.fingerprint):
        logger.warning("real images are left out: %s is here of other images or labels than the run's", name)
        return None
    return data


def leave_report(folder: RunFolder, data: Dataset) -> str:
    """Write the page of a run that has ended.

    Returns:
        what to say of it: where it is, or why there is none. A run is not lost for want of its page.
    """
    path = folder.path / FILE
    try:
        write_report([reported(folder.path, data)], path)
    except (MissingLibrary, OSError, ValueError) as error:
        return f"Report:   none: {error}"
    return f"Report:   {path}"
