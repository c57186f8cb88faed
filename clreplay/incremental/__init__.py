"""The class-incremental experiment: classes arrive in steps, a small memory is kept, networks are trained on it."""

from clreplay.incremental.run import run_experiment
from clreplay.incremental.run_folder import read_memories, read_results, read_settings
from clreplay.incremental.settings import ContinualSettings

__all__ = [
    "ContinualSettings",
    "read_memories",
    "read_results",
    "read_settings",
    "run_experiment",
]
